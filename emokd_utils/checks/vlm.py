"""Checks of lesson 3: visual tokens, the score of an answer, reading an answer."""

import json
import math
import re

import torch

from ..answers import parse_answer
from ..checks import Exercise, calls
from ..emotions import MIKELS


def _tokens(height, width, patch=14, merge=2, fit=round):
    side = patch * merge
    return fit(height / side) * fit(width / side)


def _times(factor):
    """Tokens times what the factor makes of the side of a square of merged patches."""
    return lambda *sizes: _tokens(*sizes) * factor(sizes[3] if len(sizes) > 3 else 2)


TOKENS = Exercise(
    "3.1",
    "How many visual tokens?",
    calls((112, 112), (224, 224), (100, 150), (333, 1000), (224, 448, 16, 2), (240, 120, 10, 3)),
    _tokens,
    {
        "patches are counted, not tokens. Your number is that of the patches. What happens to each "
        "square of neighbouring patches before the language model "
        "sees them?": _times(lambda merge: merge**2),
        "merging is counted along one side only. Patches are merged in squares. By how much does "
        "that divide their number?": _times(lambda merge: merge),
        "sides are cut off. Try 150 pixels: is the nearest multiple of the step below it or above "
        "it?": lambda *sizes: _tokens(*sizes, fit=math.floor),
        "sides are always rounded up. Try 100 and 333 pixels, and look for the nearest multiple in "
        "both directions.": lambda *sizes: _tokens(*sizes, fit=math.ceil),
        "the area is divided, not each side. The picture is resized before it is cut. Each side "
        "has to fit by itself.": (
            lambda height, width, patch=14, merge=2: round(height * width / (patch * merge) ** 2)
        ),
        "patch and merge are fixed. Another encoder may have patches of 16 pixels. Which numbers "
        "of your function are written out that should come in "
        "as arguments?": lambda height, width, *sizes: _tokens(height, width),
    },
    rtol=0,
    atol=0.1,
)


def _score_cases() -> list[tuple]:
    """Logits of a whole row of tokens, the tokens (the last one ends the answer), where it starts."""
    draw = torch.Generator().manual_seed(3)
    cases = []
    for length, start in ((9, 5), (7, 6), (12, 1)):
        logits = 2 * torch.randn(length, 11, generator=draw)
        cases.append((logits, torch.randint(11, (length,), generator=draw), start))
    return cases


def _log_softmax(logits):
    return logits.log_softmax(1)


def _scored(values=_log_softmax, total=torch.sum, shift=1, first=None, end=0):
    """The log-likelihood of tokens[start:], with one thing wrong."""

    def score(logits, tokens, start):
        places = torch.arange(first or start, len(tokens) - end)
        return total(values(logits)[places - shift, tokens[places]])

    return score


SCORE = Exercise(
    "3.2",
    "The score of an answer",
    calls(*_score_cases()),
    _scored(),
    {
        "the shift by one is missing. The logits in row t were made when token t had been read. "
        "Which token do they speak about?": _scored(shift=0),
        "the prompt is scored as well. Your sum runs over the question too. Nobody asked how "
        "likely the question is.": _scored(first=1),
        "the token that ends the answer is forgotten. The last of the tokens belongs to the "
        "answer: without it an answer and a longer one that begins alike could not be "
        "told apart.": _scored(end=1),
        "the mean over tokens is taken. The probability of a sequence is a product of all its "
        "steps. What does that make of the logarithms?": _scored(total=torch.mean),
        "probabilities are added in place of logarithms. A log-likelihood is never above zero. "
        "Look at one term of your sum.": _scored(lambda logits: logits.softmax(1)),
        "the logits are not normalised. A logit alone says nothing: add 5 to all logits of a row, "
        "and the score must stay.": _scored(lambda logits: logits),
        "the softmax runs over the places, not over the vocabulary. Which dimension of the logits "
        "must sum to 1 after the softmax?": _scored(lambda logits: logits.log_softmax(0)),
        "a probability is returned, not its logarithm. You went one step too far: what is wanted "
        "is below zero.": _scored(total=lambda terms: terms.sum().exp()),
        "the sign is that of a loss. A loss is to be made small, a score is to be compared: the "
        "likelier the higher.": _scored(total=lambda terms: -terms.sum()),
    },
)

_LABELS = list(MIKELS.labels)
_TEXTS = (
    "{'emotion': 'anger'}",
    '{"emotion": "Awe"}',
    "The answer is {'emotion': 'fear'}, not anger.",
    "{'emotion': 'sadness",
    "{'emotion': 'joy'}",
    "{'emotion': 'nothing'}",
    "Disgust.",
    "either anger or fear",
    "fear, nothing but fear",
    "An awesome clown on a street.",
    "Nothing but discontentment.",
    "a chair in a room",
    "",
)
_FORM = re.compile(r"""['"]?emotion['"]?\s*[:=]\s*['"]?([a-z]+)""")


def _words(text, labels):
    return [word for word in re.findall(r"[A-Za-z]+", text) if word in labels]


def _parts(text, labels):
    return [label for label in labels if label in text]


def _reading(find=_words, accept=lambda named: len(set(named)) == 1, fold=str.lower, form="label"):
    """The label a text names, with one thing wrong; form: what counts of the asked form."""

    def read(text, labels):
        text = fold(text)
        asked = _FORM.search(text)
        if form and asked:
            return asked[1] if asked[1] in labels or form == "any word" else None
        named = find(text, labels)
        return named[0] if accept(named) else None

    return read


def _whole_form_only(text, labels):
    try:
        label = json.loads(text.replace("'", '"'))["emotion"].lower()
    except ValueError:
        return None
    return label if label in labels else None


PARSER = Exercise(
    "3.3",
    "A parser that never guesses",
    calls(*[(text, _LABELS) for text in _TEXTS]),
    lambda text, labels: parse_answer(text, MIKELS),
    {
        "an answer without a label becomes a class. Look at what you return for a chair in a room. "
        "A wrong answer that is counted as a class hides in the "
        "confusion matrix.": lambda text, labels: _reading()(text, labels) or labels[0],
        "whatever stands in the form is returned. Try an answer that names joy: is it one of the "
        "labels?": _reading(form="any word"),
        "the first label that occurs anywhere is taken. Two things at once: labels are found "
        "inside other words, and of several labels the first of the list is taken. Try 'either "
        "anger or fear' and 'awesome'.": _reading(_parts, bool, form=None),
        "the first label word wins. 'either anger or fear' names two labels. Which of them did the "
        "model mean?": _reading(accept=bool),
        "a label is found inside another word. Search your text for awe in 'awesome'. Where does a "
        "word begin and end?": _reading(_parts),
        "the same label twice counts as two labels. 'fear, nothing but fear' names one label. "
        "Count labels, not words.": _reading(accept=lambda named: len(named) == 1),
        "capital letters are not read. Try 'Disgust.' and 'Awe'.": _reading(fold=str),
        "words beside the form count as much as the form. Where the asked form is there, it alone "
        "is the answer; the words around it are chatter.": _reading(form=None),
        "only the whole form is read. Try an answer that was cut short, and a bare word. A "
        "tolerant parser reads both.": _whole_form_only,
    },
)

EXERCISES = (TOKENS, SCORE, PARSER)
