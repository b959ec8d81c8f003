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
_SIDED_PROBE = calls(*_SIDED_CASES, places="for three labels/for Mikels' eight/for Ekman's six")


@variants
def _sided(measure, rows, label_set):
    sides = np.array([[label_set.polarity[c] == side for side in POLARITY] for c in label_set])
    return measure(rows, sides)  # (N, C) probabilities, (C, 2) bool: negative, positive


_SIDED = {
    "negative and positive are exchanged. Print POLARITY.labels.": lambda x, s: (x @ s)[:, ::-1],
    "the mean is taken over a side's labels. Do rows sum to 1?": lambda x, s: x @ (s / s.sum(0)),
    "the likeliest emotion decides alone. Add up the others.": lambda x, s: s[x.argmax(1)],
    "only the strongest of a side counts. Add them up.": lambda x, s: (x[:, :, None] * s).max(1),
}
_SIDED = {text: _sided(measure) for text, measure in _SIDED.items()}

_HUES = ([350.0, 10.0, 30.0], [200.0, 240.0, 250.0], [300.0, 355.0, 20.0, 60.0], [80.0, 130.0])
_PLACES = "for hues on both sides of 0/for hues above 180/for hues on both sides of 0/for two hues"


@variants
def _hue(hues, *, finish=lambda hue: hue % 360, arctangent=np.arctan2, angles=np.radians):
    sine, cosine = np.sin(angles(hues)).sum(), np.cos(angles(hues)).sum()
    return finish(np.degrees(arctangent(sine, cosine)))


_HUE_PROBE = calls(*[(hues,) for hues in _HUES], places=_PLACES)
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
    "sine and cosine are exchanged. Try 90 alone.": _hue(arctangent=lambda y, x: np.arctan2(x, y)),
    "a quotient forgets the quadrant. Take both.": _hue(arctangent=lambda y, x: np.arctan(y / x)),
}

_BALLOTS = {
    "where the winner has just enough": ("fear awe fear fear awe", 3),
    "where the first is no winner": ("joy fear fear awe fear", 2),
    "where all agree": ("joy joy joy", 2),
    "where two have enough": ("joy awe joy awe joy", 2),
    "where two are at the top": ("fear awe fear awe joy", 2),
    "where the first two are at the top": ("joy awe joy awe fear anger", 2),
    "where there is a tie further down": ("fear fear fear awe joy", 3),
    "where the winner has too few": ("awe awe joy awe fear", 4),
    "where half is too few": ("fear awe joy fear", 3),
    "where less than half is enough": ("joy fear joy awe anger", 2),
}
_VOTES_PROBE = calls(
    *((text.split(), needed) for text, needed in _BALLOTS.values()), places="/".join(_BALLOTS)
)


@variants
def _voted(votes, needed, *, more=0, least=lambda needed: needed, of_tied=lambda tied: "undecided"):
    tally = Counter(votes)
    top = [name for name in tally if tally[name] == max(tally.values())]
    if tally[top[0]] < least(needed) + more:
        return "undecided"
    return top[0] if len(top) == 1 else of_tied(top)


_VOTES = {
    "a tie goes to the label that came first. Is it clear?": _voted(of_tied=lambda tied: tied[0]),
    "a tie goes to the alphabet. Should spelling decide?": _voted(of_tied=min),
    "the most votes are enough, however few. What of `needed`?": _voted(least=lambda needed: 0),
    "more than `needed` votes are asked for. At least three: are not three enough?": _voted(more=1),
}

EXERCISES = (
    Exercise("1.1", "Eight into two", _SIDED_PROBE, _sided(np.matmul), _SIDED),
    Exercise("1.2", "The middle of a hue", _HUE_PROBE, _hue(), _MIDDLES),
    Exercise("1.3", "Votes into a label", _VOTES_PROBE, _voted(), _VOTES),
)
