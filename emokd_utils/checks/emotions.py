"""Checks of lesson 1: from one label set to another, the mean of a hue, labels from votes."""

from collections import Counter

import numpy as np

from ..checks import Exercise, calls
from ..emotions import EKMAN, MIKELS, POLARITY

_DRAW = np.random.default_rng(1)


def _sides(label_set):
    """bool (C, 2): the labels that are negative, positive."""
    return np.array([[label_set.polarity[c] == side for side in POLARITY] for c in label_set])


def _summed(probabilities, label_set):
    return probabilities @ _sides(label_set)


def _averaged(probabilities, label_set):
    return _summed(probabilities, label_set) / _sides(label_set).sum(0)


def _normalised(values):
    return values / values.sum(1, keepdims=True)


def _strongest(probabilities, label_set):
    return np.stack([probabilities[:, own].max(1) for own in _sides(label_set).T], axis=1)


def _first_half(probabilities, label_set):
    half = len(label_set) // 2
    return np.stack([probabilities[:, half:].sum(1), probabilities[:, :half].sum(1)], axis=1)


TWO_SIDES = Exercise(
    "1.1",
    "Eight into two",
    calls(*[(_DRAW.dirichlet(np.full(len(s), 0.7), 5), s) for s in (MIKELS, EKMAN)]),
    _summed,
    {
        "negative and positive are exchanged. Print POLARITY.labels: "
        "which column comes first?": lambda p, s: _summed(p, s)[:, ::-1],
        "the mean is taken over a side's labels. Your rows do not sum to 1. What is the "
        "probability that one of several events happens, of which only one can?": _averaged,
        "the mean is taken over a side's labels, and then the rows are made to sum to 1. That is "
        "harmless where both sides have as many labels. "
        "In Ekman's set they do not.": lambda p, s: _normalised(_averaged(p, s)),
        "the first half of the labels is taken for positive. So it is in Mikels' set. Print "
        "another set's labels with their polarity.": _first_half,
        "the likeliest emotion decides alone. An image with 0.3 awe, 0.25 fear and 0.45 spread "
        "over the other negative emotions: "
        "which side is likelier?": lambda p, s: _sides(s)[p.argmax(1)],
        "only the strongest emotion of each side counts. Probability that is spread over several "
        "emotions of a side counts for that side too.": lambda p, s: _normalised(_strongest(p, s)),
    },
)


_HUES = ([350.0, 10.0, 30.0], [200.0, 240.0, 250.0], [300.0, 355.0, 20.0, 60.0], [80.0, 130.0])


def _direction(degrees, arctangent=np.arctan2, angles=np.radians):
    angles = angles(degrees)
    return np.degrees(arctangent(np.sin(angles).sum(), np.cos(angles).sum()))


HUE = Exercise(
    "1.2",
    "The middle of a hue",
    calls(*[(hues,) for hues in _HUES]),
    lambda degrees: _direction(degrees) % 360,
    {
        "it is the plain mean of the numbers. What is the middle of 350 and 10 on the colour "
        "circle?": np.mean,
        "it is the median of the numbers. The circle has no smallest and no largest hue, so "
        "nothing lies in the middle of the list.": np.median,
        "the result is in radians. The sum points the right way. "
        "In which unit do you say so?": lambda degrees: np.radians(_direction(degrees) % 360),
        "the result is negative for some hues. The direction is right. Hues run from 0 up to 360; "
        "where does your arctangent run?": _direction,
        "degrees go into sine and cosine as they are. In which unit do these functions want their "
        "angle?": lambda degrees: _direction(degrees, angles=np.asarray) % 360,
        "sine and cosine are exchanged. Try one hue alone, 90. Read which argument of the "
        "arctangent comes "
        "first.": lambda degrees: _direction(degrees, lambda y, x: np.arctan2(x, y)) % 360,
        "the arctangent of the quotient forgets the quadrant. Two opposite directions have one "
        "quotient. Which function takes both parts "
        "apart?": lambda degrees: _direction(degrees, lambda y, x: np.arctan(y / x)) % 360,
    },
    atol=1e-3,
)


def _voted(ties="none", enough=lambda count, needed, n: count >= needed):
    """A rule for votes, with one thing other than it should be."""

    def label(votes, needed):
        tally = Counter(votes)
        most = max(tally.values())
        top = [name for name in tally if tally[name] == most]
        if not enough(most, needed, len(votes)) or (len(top) > 1 and ties == "none"):
            return "undecided"
        return min(top) if ties == "alphabet" else top[0]

    return label


VOTES = Exercise(
    "1.3",
    "Votes into a label",
    calls(
        (["fear", "awe", "fear", "fear", "awe"], 3),
        (["fear", "awe", "fear", "awe", "joy"], 2),
        (["fear", "awe", "joy", "fear", "anger"], 3),
        (["joy", "awe", "joy", "fear", "anger"], 2),
        (["awe", "awe", "joy", "awe", "fear"], 4),
        (["anger"] * 5, 3),
        read=str,
    ),
    _voted(),
    {
        "a tie goes to the label that came first. Look at two labels with two votes each. Should "
        "the order of the raters decide?": _voted(ties="first"),
        "a tie goes to the alphabet. Look at two labels with two votes each. Should their spelling "
        "decide?": _voted(ties="alphabet"),
        "the most votes are enough, however few. One of five may be the most. Where does `needed` "
        "come in?": _voted(enough=lambda count, needed, n: True),
        "more than `needed` votes are asked for. At least three: is three enough?": _voted(
            enough=lambda count, needed, n: count > needed
        ),
        "half of the votes is asked for in place of `needed`. Try `needed` 2 and 4 with the same "
        "five votes. Should the "
        "answer change?": _voted(enough=lambda count, needed, n: count > n / 2),
    },
)

EXERCISES = (TWO_SIDES, HUE, VOTES)
