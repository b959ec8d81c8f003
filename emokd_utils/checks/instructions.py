"""Checks of lesson 4: the labels of a training row, leaked labels, a categorical instruction."""

import json
import re

import torch

from ..answers import parse_answer
from ..checks import Exercise, calls, returned, variants
from ..emotions import EKMAN, MIKELS
from ..instructions import IGNORED, answer_for

_ROWS = (
    ([5, 1, 6, 7, 1, 9, 2], 5),
    ([5, 1, 6, 6, 7, 8, 1, 9, 10, 11, 2], 7),
    ([5, 1, 6, 6, 7, 8, 4, 3, 1, 0, 12, 13, 2], 9),
)


def _padded(pad: int, rows: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of tokens, where each answer starts, how long each row is; token 2 ends it."""
    tokens, starts = zip(*_ROWS[rows], strict=True)
    lengths = [len(row) for row in tokens]
    longest = [row + [pad] * (lengths[-1] - len(row)) for row in tokens]
    return torch.tensor(longest), torch.tensor(starts), torch.tensor(lengths)


@variants
def _labelled(tokens, starts, lengths, *, first=0, last=0, fill=IGNORED):
    """The tokens where they are learnt, ``fill`` elsewhere; first, last: places off the answer."""
    place = torch.arange(tokens.shape[1])  # (L,) against (N, 1)
    learnt = (place >= starts[:, None] + first) & (place < lengths[:, None] + last)
    return torch.where(learnt, tokens, fill)


_ROWS_PROBE = calls(
    _padded(3, slice(1)),
    _padded(3, slice(2)),
    _padded(2, slice(3)),
    keep=0,
    places="in one row/with padding/where the padding is the token of the end",
)
_LABELS = {
    "the prompt is not masked. Where does the answer start?": _labelled(first=-99),
    "the padding is trained on. What comes after a short row's answer?": _labelled(last=99),
    "the token that ends the answer is masked too. Who learns to stop then?": _labelled(last=-1),
    "the first token of the answer is masked. It is the one in starts.": _labelled(first=1),
    "the last token of the prompt is trained on. What is before starts?": _labelled(first=-1),
    "the mask value is 0. Which number does the loss pass over?": _labelled(fill=0),
    "the labels are shifted. The model does it.": lambda *rows: _labelled()(*rows).roll(-1, 1),
    "the padding's first token is trained on. Where is the last one?": _labelled(last=1),
}

_SAD, _AWE = ["sadness", "sad", "sadly", "saddened"], ["awe", "awed", "awestruck", "awesome"]
_LEAK_TEXTS = {  # what is between | is one text
    "where the label stands": "The mood is one of sadness",
    "where another form stands": "A sad day.|We are saddened by it.",
    "where it begins a sentence": "Sadly, it rains.|SAD it is.",
    "where a mark stands behind it": "How sad!",
    "where digits or _ stand beside it": "sad_01.jpg|sad2.jpg",
    "where a hyphen stands beside it": "A sad-eyed dog.",
    "where it stands in quotes": "It is a 'sad' cat.",
    "where it is there twice": "Sad, so sad.",
    "where it begins another word": "A saddle on a horse.",
    "where it is inside another word": "An ambassador of nomads.",
    "where it is not there": "The end of a love.|",
    "where the forms are others": "He stands awestruck, his head back.|A chest of drawers.|Trees overawe.",
}
_LEAK_CASES = [(about, text) for about, texts in _LEAK_TEXTS.items() for text in texts.split("|")]
_LEAK_PROBE = calls(
    *[(text, list(_AWE if "others" in about else _SAD)) for about, text in _LEAK_CASES],
    read=bool,
    places="/".join(about for about, _ in _LEAK_CASES),
)


def _words(text):
    return re.findall(r"[a-z]+", text.lower())


@variants
def _leaks(text, forms, *, pattern="[a-z]+", fold=str.lower, read=re.findall):
    words = read(pattern, fold(text))
    return any(form in words for form in forms)


_LEAKS = {
    "only the label itself is found. Try all forms.": lambda text, forms: _leaks()(text, forms[:1]),
    "a form is found inside another word. Try 'drawers'.": _leaks(read=lambda pattern, text: text),
    "the beginning of a word is enough. A saddle is not sad.": _leaks(pattern=r"\b(?:sad|awe)"),
    "capital letters are not read. A sentence may begin with the word.": _leaks(fold=str),
    "words are split at spaces only. Print those of 'How sad!'": _leaks(pattern=r"\S+"),
    "digits and _ are taken for letters. Try 'sad_01.jpg'.": _leaks(pattern=r"\w+"),
}

_ASKED = "{'emotion': 'label'}"
_FORM = re.compile(r"\{\s*['\"]emotion['\"]\s*:")


def _instruction_probe(function) -> dict[str, bool]:
    mikels, ekman = (_facts(function, label_set) for label_set in (MIKELS, EKMAN))
    return {name: mikels[name] and ekman[name] for name in mikels}


def _offers_more(prompt: str, classes: list[str]) -> bool:
    """Whether something stands beside a class like one of them (", neutral") or after an "or"."""
    text, one = re.sub(r"\d+", "0", prompt.lower()), rf"\b(?:{'|'.join(classes)})\b"
    between = {gap for gap in re.findall(rf"{one}([^a-z]+)(?={one})", text) if gap != " "}
    gap, other = "|".join(map(re.escape, between)) or "(?!)", rf"(?!{one}|please)[a-z]+"
    usual = r"[\s,;/|'\"-]+(?:and )?(?:neutral|other|none|unknown|no emotion)\b"
    listed = rf"(?:(?:{gap}){other}|\W+or {other}(?: [a-z]+){{0,2}})(?={gap}|['\"?.!\n\])]|$)"
    before = rf"(?:^|[:(]\s*){other}(?!\s*\n)(?:{gap}){one}"
    return bool(re.search(rf"{one}(?:{usual}|{listed})|{before}", text))


def _facts(function, label_set) -> dict[str, bool]:
    classes = list(label_set.labels)
    others = {*MIKELS.labels, *EKMAN.labels} - {*classes}
    pairs = [returned(function(list(classes), label)) for label in classes]
    prompts = [str(prompt) for prompt, _ in pairs]
    answers = [answer.strip() if isinstance(answer, str) else "" for _, answer in pairs]
    return {
        "every class is offered": all({*classes} <= {*_words(p)} for p in prompts),
        "no other class is offered": not any(
            others & {*_words(p)} or _offers_more(p, classes) for p in prompts
        ),
        "the question shows the form": all(map(_FORM.search, prompts)),
        "one question for all": len(set(prompts)) == 1,
        "the answer is in the form": all(map(_FORM.search, answers)),
        "the answer is that form letter by letter": answers == [answer_for(c) for c in classes],
        "single braces in the question": not any("{{" in p for p in prompts),
        "single braces in the answer": not any("{{" in a for a in answers),
        "the answer names the label": [parse_answer(a, label_set) for a in answers] == classes,
    }


@variants
def _instruction(classes, label, *, offered=(), form=_ASKED, answer=answer_for):
    offered = ", ".join(offered or classes)
    prompt = f"Which of {offered} does this image evoke? Answer in the form {form}."
    return prompt, answer(label)


_INSTRUCTIONS = {
    "the question gives away the label. Can the answer be read off without the image?": (
        lambda classes, label: _instruction(form=answer_for(label))(classes, label)
    ),
    "the classes are typed in. Ask for Ekman's six.": _instruction(offered=MIKELS.labels),
    "the answer is not the form letter by letter. Compare quotes, spaces and what stands around.": (
        _instruction(answer=lambda label: json.dumps({"emotion": label}))
    ),
}

EXERCISES = (
    Exercise("4.1", "Mask all but the answer", _ROWS_PROBE, _labelled(), _LABELS),
    Exercise("4.2", "A leak detector", _LEAK_PROBE, _leaks(), _LEAKS),
    Exercise("4.3", "A categorical instruction", _instruction_probe, _instruction(), _INSTRUCTIONS),
)
