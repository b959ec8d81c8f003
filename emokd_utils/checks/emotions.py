"""Checks of lesson 1: from one label set to another, the mean of a hue, labels from votes."""

from collections import Counter

import numpy as np

from ..checks import Exercise, calls, variants
from ..emotions import EKMAN, MIKELS, POLARITY, LabelSet

_DRAW = np.random.default_rng(1)
_SIDES = {"sun": "positive", "rain": "negative", "storm": "negative"}
_WEATHER = LabelSet("weather", tuple(_SIDES), _SIDES, {}, "")
_SIDED_CASES = [(np.array([[0.5, 0.3, 0.2], [0.4, 0.6, 0.0]]), _WEATHER)]
_SIDED_CASES += [(_DRAW.dirichlet(np.full(len(s), 0.7), 5), s) for s in (MIKELS, EKMAN)]


@variants
def _sided(measure, rows, label_set):
    sides = np.array([[label_set.polarity[c] == side for side in POLARITY] for c in label_set])
    return measure(rows, sides)  # (N, C) probabilities, (C, 2) bool: negative, positive


def _normalised(values):
    return values / values.sum(1, keepdims=True)


def _first_half(rows, sides):
    first = np.arange(len(sides)) < len(sides) // 2
    return rows @ np.stack([~first, first], axis=1)


_SIDED = {
    "negative and positive are exchanged. Print POLARITY.labels: "
    "which of the two columns comes first?": _sided(lambda rows, sides: (rows @ sides)[:, ::-1]),
    "the mean is taken over a side's labels. Your rows do not sum to 1. How likely is it that "
    "one of several events happens?": _sided(lambda rows, sides: rows @ (sides / sides.sum(0))),
    "the mean is taken over a side's labels, and then the rows are made to sum to 1. Ekman's "
    "sides differ in size.": _sided(lambda rows, sides: _normalised(rows @ (sides / sides.sum(0)))),
    "the first half of the labels is taken for positive. Print another set.": _sided(_first_half),
    "the likeliest emotion decides alone. Which side is likelier with 0.3 awe, 0.25 "
    "fear and 0.45 over other negative labels?": _sided(lambda rows, sides: sides[rows.argmax(1)]),
    "only the strongest emotion of each side counts. So does what is spread "
    "over the others.": _sided(lambda rows, sides: (rows[:, :, None] * sides).max(1)),
}

_HUES = ([350.0, 10.0, 30.0], [200.0, 240.0, 250.0], [300.0, 355.0, 20.0, 60.0], [80.0, 130.0])


@variants
def _hue(hues, *, finish=lambda hue: hue % 360, arctangent=np.arctan2, angles=np.radians):
    sine, cosine = np.sin(angles(hues)).sum(), np.cos(angles(hues)).sum()
    return finish(np.degrees(arctangent(sine, cosine)))


_MIDDLES = {
    "it is the plain mean of the numbers. What is the middle of 350 and 10 on the circle?": np.mean,
    "angles are averaged after all. Add arrows, sines and cosines each.": lambda hues: (
        (np.mean((np.array(hues) + 180) % 360) - 180) % 360
    ),
    "the result is in radians. Wanted are degrees.": _hue(finish=lambda hue: np.radians(hue % 360)),
    "the result is negative for some hues. Hues run from 0 up to 360.": _hue(finish=float),
    "the sign is dropped. Is -90 the direction of 90?": _hue(finish=abs),
    "half a turn is lost. Which angle is the same as -90?": _hue(finish=lambda hue: hue % 180),
    "a turn is added to every hue. Which need it?": _hue(finish=lambda hue: hue + 360),
    "degrees go into sine and cosine as they are. In which unit are angles?": _hue(angles=np.array),
    "sine and cosine are exchanged. Try one hue alone, 90. Which argument of "
    "the arctangent comes first?": _hue(arctangent=lambda sine, cosine: np.arctan2(cosine, sine)),
    "the arctangent of the quotient forgets the quadrant. Opposite directions have one quotient. "
    "Which takes both?": _hue(arctangent=lambda sine, cosine: np.arctan(sine / cosine)),
}

_BALLOTS = {
    "fear awe fear fear awe": 3,
    "fear awe fear awe joy": 2,
    "joy awe joy awe joy": 2,
    "fear awe joy fear anger": 3,
    "joy awe joy fear anger": 2,
    "awe awe joy awe fear": 4,
    "anger anger anger anger anger": 3,
    "fear fear fear awe joy": 3,
    "joy fear fear awe awe joy": 2,
}
_VOTES_PROBE = calls(*((text.split(), needed) for text, needed in _BALLOTS.items()))


def _any_tie(votes, needed):
    tally = Counter(votes).most_common()
    tied = len({count for _, count in tally}) < len(tally)
    return "undecided" if tied or tally[0][1] < needed else tally[0][0]


@variants
def _voted(votes, needed, *, more=0, least=lambda k, n: k, of_tied=lambda tied: "undecided"):
    tally = Counter(votes)
    top = [name for name in tally if tally[name] == max(tally.values())]
    if tally[top[0]] < least(needed, len(votes)) + more:
        return "undecided"
    return top[0] if len(top) == 1 else of_tied(top)


_VOTES = {
    "a tie goes to the label that came first. Is it clear?": _voted(of_tied=lambda tied: tied[0]),
    "a tie goes to the alphabet. Should spelling decide?": _voted(of_tied=min),
    "a tie further down counts too. Who is at the top?": _any_tie,
    "the most votes are enough, however few. What of `needed`?": _voted(least=lambda needed, n: 0),
    "more than `needed` votes are asked for. At least three: are not three enough?": _voted(more=1),
    "half of the votes is asked for in place of `needed`. Try 2 and 4 with the same votes. "
    "Should the answer change?": _voted(least=lambda needed, n: n // 2 + 1),
}

EXERCISES = (
    Exercise("1.1", "Eight into two", calls(*_SIDED_CASES), _sided(np.matmul), _SIDED),
    Exercise("1.2", "The middle of a hue", calls(*[(h,) for h in _HUES]), _hue(), _MIDDLES),
    Exercise("1.3", "Votes into a label", _VOTES_PROBE, _voted(), _VOTES),
)
