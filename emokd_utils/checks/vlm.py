"""Checks of lesson 3: visual tokens, the score of an answer, reading an answer."""

import math
import re

import torch

from ..checks import Exercise, calls, variants
from ..emotions import EKMAN, MIKELS

_SIZES = ((112, 112), (224, 224), (100, 150), (333, 1000), (224, 448, 16, 2), (240, 120, 10, 3))


@variants
def _tokens(height, width, patch=14, merge=2, *, fit=round, times=lambda merge: 1):
    return fit(height / patch / merge) * fit(width / patch / merge) * times(merge)


_TOKENS = {
    "patches are counted, not tokens. What does merging do?": _tokens(times=lambda merge: merge**2),
    "merging is counted along one side only. It is by squares.": _tokens(times=lambda merge: merge),
    "sides are cut off. Try 150 pixels: which multiple is nearest?": _tokens(fit=math.floor),
    "sides are always rounded up. Try 100 and 333 pixels.": _tokens(fit=math.ceil),
    "a multiple is always added. Try 100 pixels.": _tokens(fit=lambda sides: sides // 1 + 1),
    "the area is divided, not each side. Each has to fit by itself.": (
        lambda height, width, p=14, m=2: round(height * width / (p * m) ** 2)
    ),
    "sides are brought to whole patches only. Squares of them are to fit.": (
        lambda height, width, p=14, m=2: round(height / p) * round(width / p) // m**2
    ),
}


def _score_case(length: int, start: int) -> tuple:
    """Logits of a whole row of tokens, the tokens (the last one ends the answer), where it starts."""
    draw = torch.Generator().manual_seed(length)
    words = min(length, 11)
    logits = (2 * torch.randn(length, words, generator=draw)).round()
    return logits, torch.randint(words, (length,), generator=draw), start


SCORE_CASES = (_score_case(3, 1), _score_case(9, 5), _score_case(7, 6), _score_case(12, 1))
_ROWS = "with few tokens/with many tokens/where the answer is only its end/with many tokens"


@variants
def _scored(
    logits, tokens, start, *, values=torch.log_softmax, total=torch.sum, shift=1, begin=0, end=0
):
    places = torch.arange(max(start + begin, 1), len(tokens) - end)
    return total(values(logits, 1)[places - shift, tokens[places]])


_SCORES = {
    "the shift by one is missing. About which token does row t speak?": _scored(shift=0),
    "the prompt is scored as well. Where does your sum begin?": _scored(begin=-99),
    "the first token of the answer is not scored. It is the one at start.": _scored(begin=1),
    "the token that ends the answer is forgotten. It is scored as well.": _scored(end=1),
    "the mean over tokens is taken. How do you multiply in logarithms?": _scored(total=torch.mean),
    "probabilities are added in place of logarithms. Can it pass 0?": _scored(values=torch.softmax),
    "the logits are not normalised. Add 5 to a row.": _scored(values=lambda logits, axis: logits),
    "the softmax runs over places. What sums to 1?": _scored(
        values=lambda x, axis: x.log_softmax(0)
    ),
    "every row is asked about every token. Pick one number a row.": lambda logits, tokens, start: (
        logits.log_softmax(1)[start - 1 : -1, tokens[start:]].sum()
    ),
    "it is the mean loss. Is a sum asked for?": _scored(total=lambda terms: -terms.mean()),
}

_TEXTS = {  # what is between | is one text
    "where the form is whole": "{'emotion': 'anger'}|The answer is {'emotion': 'fear'}, not anger.",
    "where the quotes are double": 'Anger or fear? {"emotion": "Awe"}',
    "where the form is cut short": "{'emotion': 'sadness",
    "where a label is cut": "{'emotion': 'conten",
    "where a form holds no label": "{'emotion': 'joy'}|It is fear. {'emotion': 'rage'}|"
    "{'emotion': 'fear, anger'}",
    "where there are two forms": "{'emotion': 'fear'}. Looking again: {'emotion': 'awe'}|"
    "{'emotion': 'awe'}, or so they say: {'emotion': 'joy'}",
    "behind a thought": "<think>Is it {'emotion': 'fear'}?</think> Awe.|"
    "<think>Hm.</think> Fear?</think> Awe.",
    "where one word is a label": "Disgust.",
    "where two labels are named": "either anger or fear",
    "where a label is named twice": "fear, nothing but fear",
    "where a label is inside another word": "An awesome clown.|Nothing but discontentment.",
    "where no label is named": "a chair in a room",
    "where a label is denied": "It evokes awe, not fear.|No anger, but sadness.",
    "where a text declines": "I cannot say whether it is fear.|I can't see anger.|"
    "Sorry, awe is a guess.",
    "where a word declines beside a form": "Sorry for the wait: {'emotion': 'awe'}",
    "where the labels are others": "{'emotion': 'joy'}|Surprise!|Awe.",
}
_ABOUT = [(about, text) for about, texts in _TEXTS.items() for text in texts.split("|")]
_TEXT_PROBE = calls(
    *[(text, list(EKMAN if "others" in about else MIKELS)) for about, text in _ABOUT],
    places="/".join(about for about, _ in _ABOUT),
)
_FORM = r"""['"]?emotion['"]?\s*:\s*['"]([^'"}]*)"""


@variants
def _read(text, labels, *, fold=str.lower, form=_FORM, most=None):
    text = fold(text).rpartition("</think>")[2]
    if declared := re.findall(form, text):
        return next((word for word in declared[::-1] if word in labels), None)
    words = re.findall("[A-Za-z']+", text)
    if {"sorry", "cannot", "can't"} & set(words):
        return None
    pairs = zip(["", *words], words, strict=False)
    named = [word for before, word in pairs if word in labels and before not in ("not", "no")]
    return named[0] if len(set(named[:most])) == 1 else None


_READINGS = {
    "the first label that occurs anywhere is taken. Try 'either anger or fear' and 'awesome': "
    "there are two faults at once.": lambda text, labels: next(
        (label for label in labels if label in text.lower()), None
    ),
    "the first label word wins. Try 'either anger or fear'.": _read(most=1),
    "capital letters are not read. Try 'Disgust.' and 'Awe'.": _read(fold=str),
    "words beside the form count as much as the form. Is it read first?": _read(form="(?!)"),
}

EXERCISES = (
    Exercise("3.1", "How many visual tokens?", calls(*_SIZES), _tokens(), _TOKENS),
    Exercise(
        "3.2", "The score of an answer", calls(*SCORE_CASES, places=_ROWS), _scored(), _SCORES
    ),
    Exercise("3.3", "A parser that never guesses", _TEXT_PROBE, _read(), _READINGS),
)
