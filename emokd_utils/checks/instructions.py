"""Checks of lesson 4: the labels of a training row, leaked labels, a categorical instruction."""

import json
import re

import torch

from ..answers import parse_answer
from ..checks import Exercise, attempted, calls
from ..emotions import EKMAN, MIKELS
from ..instructions import IGNORED, answer_for


def _rows(pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three rows of tokens padded on the right, where each answer starts, how long each row is.

    Token 2 ends an answer; with pad 2 the padding is the same token, as some models have it.
    """
    rows = [
        [5, 1, 6, 6, 7, 8, 1, 9, 10, 11, 2],
        [5, 1, 6, 6, 7, 1, 9, 2],
        [5, 1, 6, 6, 7, 8, 4, 3, 1, 0, 12, 13, 2],
    ]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return tokens, torch.tensor([7, 6, 9]), torch.tensor([len(row) for row in rows])


def _labelled(before=0, no_end=0, fill=IGNORED, padding=True, prompt=True):
    """The tokens where they are learnt, ``fill`` elsewhere, with one thing wrong."""

    def labels(tokens, starts, lengths):
        place = torch.arange(tokens.shape[1])
        learnt = torch.ones_like(tokens, dtype=torch.bool)
        if prompt:
            learnt &= place >= starts[:, None] + before
        if padding:
            learnt &= place < lengths[:, None] - no_end
        return torch.where(learnt, tokens, fill)

    return labels


_right_labels = _labelled()


def _by_pad_token(tokens, starts, lengths):
    labels = _labelled(padding=False)(tokens, starts, lengths)
    return torch.where(tokens == tokens[1, -1], IGNORED, labels)


LABELS = Exercise(
    "4.1",
    "Mask all but the answer",
    calls(_rows(pad=3), _rows(pad=2), keep=0),
    _right_labels,
    {
        "the prompt is not masked. Your row learns to write the question, and the places of the "
        "image, as well. Where does the answer start?": _labelled(prompt=False),
        "nothing is masked. You return the tokens as they came. Which of them is the model to "
        "learn to write?": lambda tokens, starts, lengths: tokens,
        "the padding is trained on. Decode what a short row learns: "
        "what comes after its answer?": _labelled(padding=False),
        "the token that ends the answer is masked too. A model that never learns to stop goes on "
        "writing. Look at the last real place of a row.": _labelled(no_end=1),
        "the padding is found by its token. In some models the token that pads is also the one "
        "that ends an answer. Look at the second case there, "
        "and find the padding in another way.": _by_pad_token,
        "the first token of the answer is masked. Off by one: the row at starts holds the first "
        "token of the answer itself.": _labelled(before=1),
        "the last token of the prompt is trained on. Off by one: what stands just before the place "
        "in starts?": _labelled(before=-1),
        "the mask value is 0. 0 is a token like any other, and the loss would learn to write it. "
        "Which number does the loss pass over?": _labelled(fill=0),
        "the labels are shifted. The model shifts by itself. Here the label of a place is the "
        "token of that place.": lambda *rows: _right_labels(*rows).roll(-1, 1),
        "a mask is returned, not labels. Where it is learnt, a place holds its token, "
        "not a 1.": lambda *rows: _right_labels(*rows) != IGNORED,
        "one start for all rows. The questions differ in length. Compare where the answers of two "
        "rows begin.": lambda tokens, starts, lengths: _right_labels(tokens, starts[:1], lengths),
        "the tokens themselves are overwritten. The labels are right, but the model now reads -100 "
        "where the question stood. What do your labels and the "
        "tokens share?": lambda tokens, *rows: tokens.copy_(_right_labels(tokens, *rows)),
    },
)

_SAD = ["sadness", "sad", "sadly", "saddened"]
_AWE = ["awe", "awed", "awestruck", "awesome"]
_CONTENT = ["contentment", "content", "contented", "contentedly"]


def _words(text):
    return re.findall(r"[a-z]+", text.lower())


def _leaks(text, forms):
    return any(word in forms for word in _words(text))


LEAKS = Exercise(
    "4.2",
    "A leak detector",
    calls(
        ("The mood is one of sadness.", _SAD),
        ("A sad day.", _SAD),
        ("Sadly, it rains.", _SAD),
        ("A saddle on a horse, and an ambassador.", _SAD),
        ("The end of a love.", _SAD),
        ("How sad!", _SAD),
        ("A chest of drawers.", _AWE),
        ("An awe-inspiring sky.", _AWE),
        ("AWE is what it brings.", _AWE),
        ("Whoever enters stands awestruck, his head back.", _AWE),
        ("Discontentment on every face.", _CONTENT),
        ("A cat, contented and asleep.", _CONTENT),
        ("A container on a street.", _CONTENT),
        ("", _CONTENT),
        read=bool,
    ),
    _leaks,
    {
        "only the label itself is found. forms holds more than one word. "
        "Try 'A sad day.'": lambda text, forms: forms[0] in _words(text),
        "a form is found inside another word. Search 'drawers' for awe and 'discontentment' for "
        "content. Where does a word begin "
        "and end?": lambda text, forms: any(form in text.lower() for form in forms),
        "the beginning of a word is enough. A saddle is not sad, and a container is not "
        "content.": lambda text, forms: any(word.startswith(tuple(forms)) for word in _words(text)),
        "capital letters are not read. A sentence may begin with the word. Try 'Sadly, "
        "it rains.'": lambda text, forms: not {*re.findall("[A-Za-z]+", text)}.isdisjoint(forms),
        "words are split at spaces only. Print the words that you compare for "
        "'How sad!'": lambda text, forms: not {*text.lower().split()}.isdisjoint(forms),
        "a hyphen keeps two words together. Print the words that you compare for 'An awe-inspiring "
        "sky.'": lambda text, forms: any(w.strip(".,!?") in forms for w in text.lower().split()),
        "it says True where nothing leaks. Your answer is turned round: True means that the text "
        "gives the label away.": lambda text, forms: not _leaks(text, forms),
        "all forms are wanted at once. One form of the label is enough to give "
        "it away.": lambda text, forms: all(form in _words(text) for form in forms),
    },
)

_FORM = re.compile(r"\{\s*['\"]emotion['\"]\s*:")


def _instruction_probe(function) -> dict[str, bool]:
    """What is so of the questions and answers for each label of two label sets."""
    mikels, ekman = (_facts(function, label_set) for label_set in (MIKELS, EKMAN))
    return {name: mikels[name] and ekman[name] for name in mikels}


def _facts(function, label_set) -> dict[str, bool]:
    classes = list(label_set.labels)
    others = {*MIKELS.labels, *EKMAN.labels} - {*classes}
    pairs = [attempted(function(list(classes), label)) for label in classes]
    prompts = [str(prompt) for prompt, _ in pairs]
    answers = [str(answer).strip() for _, answer in pairs]
    return {
        "every class is offered": all({*classes} <= {*_words(p)} for p in prompts),
        "no other class is offered": not any(others & {*_words(p)} for p in prompts),
        "the question shows the form": all(map(_FORM.search, prompts)),
        "one question for all": len(set(prompts)) == 1,
        "the answer is in the form": all(map(_FORM.search, answers)),
        "it is that form letter by letter": answers == [answer_for(c) for c in classes],
        "single braces in the question": not any("{{" in p for p in prompts),
        "single braces in the answer": not any("{{" in a for a in answers),
        "it is read as its label": [parse_answer(a, label_set) for a in answers] == classes,
    }


def _instructed(offered=", ".join, form="{'emotion': 'label'}", answer=answer_for):
    """A question and answer with one thing wrong."""

    def instruction(classes, label):
        prompt = f"Which of {offered(classes)} does this image evoke? Answer in the form {form}."
        return prompt, answer(label)

    return instruction


def _in_more_braces(label):
    return "{" + answer_for(label) + "}"


INSTRUCTION = Exercise(
    "4.3",
    "A categorical instruction",
    _instruction_probe,
    _instructed(),
    {
        "the question gives away the label. Print the questions of two images of different "
        "classes: can the answer be read off the question without the "
        "image?": lambda classes, label: _instructed(form=answer_for(label))(classes, label),
        "the classes are typed in. Other data have other classes. Call your function with Ekman's "
        "six.": _instructed(lambda classes: ", ".join(MIKELS.labels)),
        "the classes are not offered. How is the model to know that the answer is 'awe' and not "
        "'wonder'? Print your question.": _instructed(lambda classes: "all emotions"),
        "the question does not show the form. The answer has a form; where is the model told of "
        "it?": _instructed(form="that you know"),
        "the answer is a bare word. Question and answer must fit: "
        "what does the question ask for?": _instructed(answer=str),
        "the braces of question and answer are doubled. Print both. In which strings does Python "
        "want braces twice?": _instructed(form="{{'emotion': 'label'}}", answer=_in_more_braces),
        "the braces of the answer are doubled. Print the answer. In which strings does Python want "
        "braces twice?": _instructed(answer=_in_more_braces),
        "the braces of the question are doubled. Print the question. In which strings does Python "
        "want braces twice?": _instructed(form="{{'emotion': 'label'}}"),
        "the answer has other quotes than the form. Compare the answer with the form letter by "
        "letter: to a model these are "
        "other tokens.": _instructed(answer=lambda name: json.dumps({"emotion": name})),
    },
)

EXERCISES = (LABELS, LEAKS, INSTRUCTION)
