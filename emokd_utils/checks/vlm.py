"""Checks of lesson 3: visual tokens, the score of an answer, reading an answer."""

import json
import re

import torch

from ..answers import parse_answer
from ..checks import Exercise, Mistake, NotAttempted, calls
from ..emotions import MIKELS

# ---------------------------------------------------------------------------------- visual tokens


def _tokens(height, width, patch=14, merge=2):
    side = patch * merge
    return round(height / side) * round(width / side)


def _patches(height, width, patch=14, merge=2):
    return _tokens(height, width, patch, merge) * merge**2


def _merged_once(height, width, patch=14, merge=2):
    return _tokens(height, width, patch, merge) * merge


def _cut_off(height, width, patch=14, merge=2):
    side = patch * merge
    return (height // side) * (width // side)


def _rounded_up(height, width, patch=14, merge=2):
    side = patch * merge
    return -(-height // side) * -(-width // side)


def _by_area(height, width, patch=14, merge=2):
    return round(height * width / (patch * merge) ** 2)


def _constants_fixed(height, width, patch=14, merge=2):
    return _tokens(height, width)


# ------------------------------------------------------------------------------ score of an answer


def _score_cases() -> list[tuple]:
    """Logits of a whole row of tokens, the tokens (the last one ends the answer), where it starts."""
    draw = torch.Generator().manual_seed(3)
    cases = []
    for length, start in ((9, 5), (7, 6), (12, 1)):
        logits = 2 * torch.randn(length, 11, generator=draw)
        cases.append((logits, torch.randint(11, (length,), generator=draw), start))
    return cases


def _score(logits, tokens, start, shift=1, mean=False, **wrong):
    """The log-likelihood of tokens[start:], with one thing wrong."""
    first = 1 if wrong.get("with_prompt") else start
    last = len(tokens) - bool(wrong.get("no_end"))
    rows = logits[first - shift : last - shift]
    if wrong.get("raw"):
        values = rows
    elif wrong.get("over_places"):
        values = logits.log_softmax(0)[first - shift : last - shift]
    elif wrong.get("probabilities"):
        values = rows.softmax(-1)
    else:
        values = rows.log_softmax(-1)
    found = values.gather(1, tokens[first:last, None])[:, 0]
    total = found.mean() if mean else found.sum()
    if wrong.get("exp"):
        return total.exp()
    return -total if wrong.get("loss") else total


def _scored(**wrong):
    return lambda logits, tokens, start: _score(logits, tokens, start, **wrong)


# ---------------------------------------------------------------------------------- reading answers

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
_LABELS = tuple(MIKELS.labels)


def _reading_probe(function) -> list[str]:
    """What it reads in each text; a function that reads nothing at all is an empty stub."""
    if not callable(function):
        raise TypeError(f"a function is wanted here, this is {type(function).__name__}")
    found = [function(text, list(_LABELS)) for text in _TEXTS]
    if all(label is None or label is ... for label in found):
        raise NotAttempted
    return ["no label" if label is None else label for label in found]


_FORM = re.compile(r"""['"]?emotion['"]?\s*[:=]\s*['"]?([a-z]+)""")


def _whole_words(text, labels):
    return [word for word in re.findall(r"[A-Za-z]+", text) if word in labels]


def _anywhere(text, labels):
    return [label for label in labels if label in text]


def _one_label(there):
    return len(set(there)) == 1


def _read(
    text, labels, find=_whole_words, accept=_one_label, fold=str.lower, form=True, other=None
):
    """The label a text names; each argument can be set to a mistake."""
    text = fold(text)
    asked = _FORM.search(text)
    if form and asked:
        return asked[1] if asked[1] in labels else other
    there = find(text, labels)
    return there[0] if accept(there) else other


def _reading(**wrong):
    return lambda text, labels: _read(text, labels, **wrong)


def _whatever_the_form_holds(text, labels):
    asked = _FORM.search(text.lower())
    return asked[1] if asked else _read(text, labels)


def _whole_form_only(text, labels):
    try:
        label = json.loads(text.replace("'", '"'))["emotion"].lower()
    except (ValueError, TypeError, KeyError):
        return None
    return label if label in labels else None


EXERCISES = (
    Exercise(
        "3.1",
        "How many visual tokens?",
        lambda function: [
            int(value)
            for value in calls(
                (112, 112),
                (224, 224),
                (100, 150),
                (333, 1000),
                (224, 448, 16, 2),
                (240, 120, 10, 3),
            )(function)
        ],
        _tokens,
        (
            Mistake(
                "patches are counted, not tokens",
                "Your number is that of the patches. What happens to each square of neighbouring "
                "patches before the language model sees them?",
                _patches,
            ),
            Mistake(
                "merging is counted along one side only",
                "Patches are merged in squares. By how much does that divide their number?",
                _merged_once,
            ),
            Mistake(
                "sides are cut off",
                "Try 150 pixels: is the nearest multiple of the step below it or above it?",
                _cut_off,
            ),
            Mistake(
                "sides are always rounded up",
                "Try 100 and 333 pixels, and look for the nearest multiple in both directions.",
                _rounded_up,
            ),
            Mistake(
                "the area is divided, not each side",
                "The picture is resized before it is cut. Each side has to fit by itself.",
                _by_area,
            ),
            Mistake(
                "patch and merge are fixed",
                "Another encoder may have patches of 16 pixels. Which numbers of your function are "
                "written out that should come in as arguments?",
                _constants_fixed,
            ),
        ),
    ),
    Exercise(
        "3.2",
        "The score of an answer",
        calls(*_score_cases()),
        _score,
        (
            Mistake(
                "the shift by one is missing",
                "The logits in row t were made when token t had been read. Which token do they "
                "speak about?",
                _scored(shift=0),
            ),
            Mistake(
                "the prompt is scored as well",
                "Your sum runs over the question too. Nobody asked how likely the question is.",
                _scored(with_prompt=True),
            ),
            Mistake(
                "the token that ends the answer is forgotten",
                "The last of the tokens belongs to the answer: without it an answer and a longer "
                "one that begins alike could not be told apart.",
                _scored(no_end=True),
            ),
            Mistake(
                "the mean over tokens is taken",
                "The probability of a sequence is a product of all its steps. What does that make "
                "of the logarithms?",
                _scored(mean=True),
            ),
            Mistake(
                "probabilities are added in place of logarithms",
                "A log-likelihood is never above zero. Look at one term of your sum.",
                _scored(probabilities=True),
            ),
            Mistake(
                "the logits are not normalised",
                "A logit alone says nothing: add 5 to all logits of a row, and the score must stay.",
                _scored(raw=True),
            ),
            Mistake(
                "the softmax runs over the places, not over the vocabulary",
                "Which dimension of the logits must sum to 1 after the softmax?",
                _scored(over_places=True),
            ),
            Mistake(
                "a probability is returned, not its logarithm",
                "You went one step too far: what is wanted is below zero.",
                _scored(exp=True),
            ),
            Mistake(
                "the sign is that of a loss",
                "A loss is to be made small, a score is to be compared: the likelier the higher.",
                _scored(loss=True),
            ),
        ),
    ),
    Exercise(
        "3.3",
        "A parser that never guesses",
        _reading_probe,
        lambda text, labels: parse_answer(text, MIKELS),
        (
            Mistake(
                "an answer without a label becomes a class",
                "Look at what you return for a chair in a room. A wrong answer that is counted as a "
                "class hides in the confusion matrix.",
                _reading(other=_LABELS[0]),
            ),
            Mistake(
                "whatever stands in the form is returned",
                "Try an answer that names joy: is it one of the labels?",
                _whatever_the_form_holds,
            ),
            Mistake(
                "the first label that occurs anywhere is taken",
                "Two things at once: labels are found inside other words, and of several labels the "
                "first of the list is taken. Try 'either anger or fear' and 'awesome'.",
                _reading(find=_anywhere, accept=bool, form=False),
            ),
            Mistake(
                "the first label word wins",
                "'either anger or fear' names two labels. Which of them did the model mean?",
                _reading(accept=bool),
            ),
            Mistake(
                "a label is found inside another word",
                "Search your text for awe in 'awesome'. Where does a word begin and end?",
                _reading(find=_anywhere),
            ),
            Mistake(
                "the same label twice counts as two labels",
                "'fear, nothing but fear' names one label. Count labels, not words.",
                _reading(accept=lambda there: len(there) == 1),
            ),
            Mistake(
                "capital letters are not read",
                "Try 'Disgust.' and 'Awe'.",
                _reading(fold=str),
            ),
            Mistake(
                "words beside the form count as much as the form",
                "Where the asked form is there, it alone is the answer; the words around it are "
                "chatter.",
                _reading(form=False),
            ),
            Mistake(
                "only the whole form is read",
                "Try an answer that was cut short, and a bare word. A tolerant parser reads both.",
                _whole_form_only,
            ),
        ),
    ),
)
