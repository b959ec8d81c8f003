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
    "the area is divided, not each side. Each side has to fit by "
    "itself.": lambda height, width, p=14, m=2: round(height * width / (p * m) ** 2),
    "the sides are added. Tokens lie in rows and columns.": lambda height, width, p=14, m=2: (
        round(height / p / m) + round(width / p / m)
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
    "the softmax runs over the places, not over the vocabulary. "
    "Which dimension must sum to 1?": _scored(values=lambda logits, axis: logits.log_softmax(0)),
    "every row is asked about every token. Pick one number a row.": lambda logits, tokens, start: (
        logits.log_softmax(1)[start - 1 : -1, tokens[start:]].sum()
    ),
    "it is the mean loss. Is a sum asked for, and is likelier higher?": _scored(
        total=lambda terms: -terms.mean()
    ),
    "logarithms are multiplied. What is multiplied is probabilities.": _scored(total=torch.prod),
}

_TEXTS = (
    "{'emotion': 'anger'}",
    "The answer is {'emotion': 'fear'}, not anger.",
    "{'emotion': 'sadness",
    'Anger or fear? {"emotion": "Awe"}',
    "{'emotion': 'joy'}",
    "{'emotion': 'nothing'}",
    "It is fear. {'emotion': 'rage'}",
    "Sorry for the wait: {'emotion': 'awe'}",
    "{'emotion': 'conten",
    "{'emotion': 'fear, anger'}",
    "{'emotion': 'fear'}. Looking again: {'emotion': 'awe'}",
    "{'emotion': 'awe'}, or so they say: {'emotion': 'joy'}",
    "<think>Is it {'emotion': 'fear'}?</think> Awe.",
    "<think>Hm.</think> Fear?</think> Awe.",
    "Disgust.",
    "either anger or fear",
    "fear, nothing but fear",
    "It evokes awe, not fear.",
    "No anger, but sadness.",
    "An awesome clown on a street.",
    "Nothing but discontentment.",
    "I cannot say whether it is fear.",
    "I can't see anger.",
    "Sorry, awe is a guess.",
    "a chair in a room",
)
_TEXT_CASES = [(text, list(MIKELS.labels)) for text in _TEXTS]
_TEXT_CASES += [(text, list(EKMAN.labels)) for text in ("{'emotion': 'joy'}", "Surprise!", "Awe.")]
_FORM = r"""['"]?emotion['"]?\s*:\s*['"]([^'"}]*)"""
_WORD = "[A-Za-z']+"
_REFUSING = {"sorry", "cannot", "can't"}


def _words(text, labels, negating=("not", "no")):
    words = re.findall(_WORD, text)
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if word in labels and before not in negating]


def _all_words(text, labels):
    return _words(text, labels, ())


def _parts(text, labels):
    return [label for label in labels if label in text]


@variants
def _read(
    text,
    labels,
    *,
    find=_words,
    most=None,
    counted=set,
    fold=str.lower,
    form=_FORM,
    which=-1,
    thought="</think>",
    refusing=_REFUSING,
    begun=False,
    valid=True,
    closed=True,
):
    text = fold(text).rpartition(thought)[2]
    declared = re.findall(form, text)
    if begun:
        declared = [label for word in declared for label in labels if label.startswith(word)]
    if declared:
        named = [word for word in declared if word in labels or not valid]
        if named or closed:
            return named[which] if named else None
    if refusing & set(re.findall(_WORD, text)):
        return None
    named = find(text, labels)[:most]
    return named[0] if len(counted(named)) == 1 else None


def _whole_form_only(text, labels):
    asked = re.fullmatch(r"""\{['"]emotion['"]: ['"](\w+)['"]\}""", text.lower())
    return asked[1] if asked and asked[1] in labels else None


_NO_FORM = "(?!)"
_READINGS = {
    "an answer without a label becomes a class. What do you return for a chair in a room? "
    "It hides in the confusion matrix.": lambda text, labels: _read()(text, labels) or labels[0],
    "whatever stands in the form is returned. Is joy one of the labels?": _read(valid=False),
    "the first label that occurs anywhere is taken. Try 'either anger or fear' and 'awesome': "
    "there are two faults at once.": _read(find=_parts, most=1, form=_NO_FORM, refusing=set()),
    "the first label word wins. Try 'either anger or fear'.": _read(most=1),
    "a label is found inside another word. Search 'awesome' for awe.": _read(find=_parts),
    "the same label twice counts as two labels. Count labels, not words.": _read(counted=list),
    "capital letters are not read. Try 'Disgust.' and 'Awe'.": _read(fold=str),
    "words beside the form count as much as the form. Is the form read first?": _read(
        form=_NO_FORM
    ),
    "only the whole form is read. Try one cut short, and a bare word.": _whole_form_only,
    "only single quotes are read. A model may write double ones.": _read(
        form=r"'emotion': '([^']*)"
    ),
    "only double quotes are read. A model may write single ones.": _read(
        form=r'"emotion": "([^"]*)'
    ),
    "the closing brace is waited for. Try an answer cut short.": _read(form=_FORM + r"""['"]\}"""),
    "a label that was cut is completed. Did the model write it?": _read(begun=True),
    "words are read where the form holds no label. Then there is no answer.": _read(closed=False),
    "the first form counts. A model that corrects itself means the last.": _read(which=0),
    "what was thought aloud is read. What does </think> end?": _read(thought="\0"),
    "a refusal is read. Does 'I cannot say whether it is fear' name fear?": _read(refusing=set()),
    "a label that is denied counts. Try 'awe, not fear'.": _read(find=_all_words),
}

EXERCISES = (
    Exercise("3.1", "How many visual tokens?", calls(*_SIZES), _tokens(), _TOKENS),
    Exercise("3.2", "The score of an answer", calls(*SCORE_CASES), _scored(), _SCORES),
    Exercise("3.3", "A parser that never guesses", calls(*_TEXT_CASES), _read(), _READINGS),
)
