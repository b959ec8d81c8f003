"""Checks of lesson 4: the labels of a training row, leaked labels, a categorical instruction."""

import json
import re
from functools import partial

import torch

from ..answers import parse_answer
from ..checks import Exercise, calls, returned, variants
from ..emotions import EKMAN, MIKELS
from ..instructions import IGNORED, answer_for

_ROWS = (
    [5, 1, 6, 6, 7, 8, 1, 9, 10, 11, 2],
    [5, 1, 6, 6, 7, 1, 9, 2],
    [5, 1, 6, 6, 7, 8, 4, 3, 1, 0, 12, 13, 2],
)


def _padded(pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three rows of tokens, where each answer starts, how long each row is; token 2 ends it."""
    tokens = torch.tensor([row + [pad] * (13 - len(row)) for row in _ROWS])
    return tokens, torch.tensor([7, 6, 9]), torch.tensor([len(row) for row in _ROWS])


@variants
def _labelled(tokens, starts, lengths, *, first=0, last=0, fill=IGNORED):
    """The tokens where they are learnt, ``fill`` elsewhere; first, last: places off the answer."""
    place = torch.arange(tokens.shape[1])  # (L,) against (N, 1)
    learnt = (place >= starts[:, None] + first) & (place < lengths[:, None] + last)
    return torch.where(learnt, tokens, fill)


def _by_pad_token(tokens, starts, lengths):
    labels = _labelled(last=99)(tokens, starts, lengths)
    return torch.where(tokens == tokens[1, -1], IGNORED, labels)


_ROWS_PROBE = calls(_padded(pad=3), _padded(pad=2), keep=0)
_LABELS = {
    "the prompt is not masked. Where does the answer start?": _labelled(first=-99),
    "nothing is masked. Which tokens should it learn to write?": _labelled(first=-99, last=99),
    "the padding is trained on. What comes after a short row's answer?": _labelled(last=99),
    "the token that ends the answer is masked too. Who learns to stop then?": _labelled(last=-1),
    "the padding is found by its token. An answer may end in the same one.": _by_pad_token,
    "the first token of the answer is masked. It is the one in starts.": _labelled(first=1),
    "the last token of the prompt is trained on. What is before starts?": _labelled(first=-1),
    "the mask value is 0. Which number does the loss pass over?": _labelled(fill=0),
    "the labels are shifted. The model does it.": lambda *rows: _labelled()(*rows).roll(-1, 1),
    "a mask is returned, not labels. What is wanted?": lambda *rows: _labelled()(*rows) != IGNORED,
    "one start for all rows. The questions differ in length. Where do two rows' "
    "answers begin?": lambda tokens, starts, lengths: _labelled()(tokens, starts[:1], lengths),
}

_LEAK_TEXTS = {
    "sadness sad sadly saddened": "The mood is one of sadness./A sad day./Sadly, it rains./How sad!/"
    "sad_01.jpg/A saddle on a horse, and an ambassador./The end of a love.",
    "awe awed awestruck awesome": "A chest of drawers./An awe-inspiring sky./AWE is what it brings./"
    "Whoever enters stands awestruck, his head back.",
    "contentment content contented contentedly": "Discontentment on every face./"
    "A cat, contented and asleep./A container on a street./",
}
_LEAK_CASES = [(t, forms.split()) for forms, texts in _LEAK_TEXTS.items() for t in texts.split("/")]
_LEAK_PROBE = calls(*_LEAK_CASES, read=bool)


def _words(text):
    return re.findall(r"[a-z]+", text.lower())


@variants
def _leaks(text, forms, *, pattern="[a-z]+", fold=str.lower, read=re.findall, enough=any):
    words = read(pattern, fold(text))
    return enough(form in words for form in forms)


_LEAKS = {
    "only the label itself is found. Try all forms.": lambda text, forms: _leaks()(text, forms[:1]),
    "a form is found inside another word. Try 'drawers'.": _leaks(read=lambda pattern, text: text),
    "the beginning of a word is enough. A saddle is not sad, and a container is "
    "not content.": lambda text, forms: any(word.startswith(tuple(forms)) for word in _words(text)),
    "capital letters are not read. A sentence may begin with the word.": _leaks(fold=str),
    "words are split at spaces only. Print those of 'How sad!'": _leaks(pattern=r"\S+"),
    "digits and _ are taken for letters. Try 'sad_01.jpg'.": _leaks(pattern=r"\w+"),
    "a hyphen keeps two words together. Try 'An awe-inspiring sky.'": _leaks(pattern="[a-z-]+"),
    "it says True where nothing leaks. Your answer is turned round: "
    "True means that the label is given away.": lambda text, forms: not _leaks()(text, forms),
    "all forms are wanted at once. One form gives the label away.": _leaks(enough=all),
}

_ASKED, _BRACES = "{'emotion': 'label'}", "{{'emotion': 'label'}}"
_in_braces = partial(_BRACES.replace, "label")
_FORM = re.compile(r"\{\s*['\"]emotion['\"]\s*:")


def _instruction_probe(function) -> dict[str, bool]:
    mikels, ekman = (_facts(function, label_set) for label_set in (MIKELS, EKMAN))
    return {name: mikels[name] and ekman[name] for name in mikels}


def _facts(function, label_set) -> dict[str, bool]:
    classes = list(label_set.labels)
    others = {*MIKELS.labels, *EKMAN.labels} - {*classes}
    pairs = [returned(function(list(classes), label)) for label in classes]
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


@variants
def _instruction(classes, label, *, offered=(), form=_ASKED, answer=answer_for):
    offered = ", ".join(offered or classes)
    prompt = f"Which of {offered} does this image evoke? Answer in the form {form}."
    return prompt, answer(label)


_INSTRUCTIONS = {
    "the question gives away the label. Print two questions. Can the answer be read off without "
    "the image?": lambda classes, label: _instruction(form=answer_for(label))(classes, label),
    "the classes are typed in. Ask for Ekman's six.": _instruction(offered=MIKELS.labels),
    "the classes are not offered. Print your question.": _instruction(offered=["all emotions"]),
    "the question does not show the form. Who tells the model?": _instruction(form="that you know"),
    "the answer is a bare word. What does the question ask for?": _instruction(answer=str),
    "the braces of question and answer are doubled. Print both. In "
    "which strings does Python want braces twice?": _instruction(form=_BRACES, answer=_in_braces),
    "the braces of the answer are doubled. Print it.": _instruction(answer=_in_braces),
    "the braces of the question are doubled. Print it.": _instruction(form=_BRACES),
    "the answer has other quotes than the form. Compare letter by letter: to a model "
    "these are other tokens.": _instruction(answer=lambda label: json.dumps({"emotion": label})),
}

EXERCISES = (
    Exercise("4.1", "Mask all but the answer", _ROWS_PROBE, _labelled(), _LABELS),
    Exercise("4.2", "A leak detector", _LEAK_PROBE, _leaks(), _LEAKS),
    Exercise("4.3", "A categorical instruction", _instruction_probe, _instruction(), _INSTRUCTIONS),
)
