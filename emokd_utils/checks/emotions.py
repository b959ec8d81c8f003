"""Checks of lesson 1: from one label set to another, the mean of a hue, labels from votes."""

from collections import Counter

import numpy as np

from ..checks import Exercise, Mistake, attempted, calls
from ..emotions import EKMAN, MIKELS, POLARITY


def _polarity_probe(function):
    draw = np.random.default_rng(1)
    if not callable(function):
        raise TypeError(f"a function is wanted here, this is {type(function).__name__}")
    cases = [(draw.dirichlet(np.full(len(s), 0.7), 5), s) for s in (MIKELS, EKMAN)]
    return [np.asarray(attempted(function(p, s)), dtype=float) for p, s in cases]


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


def _decided(probabilities, label_set):
    return _sides(label_set)[probabilities.argmax(1)].astype(float)


def _direction(degrees):
    angles = np.radians(degrees)
    return np.degrees(np.arctan2(np.sin(angles).sum(), np.cos(angles).sum()))


def _unconverted(degrees):
    return np.degrees(np.arctan2(np.sin(degrees).sum(), np.cos(degrees).sum())) % 360


def _exchanged(degrees):
    angles = np.radians(degrees)
    return np.degrees(np.arctan2(np.cos(angles).sum(), np.sin(angles).sum())) % 360


def _ratio(degrees):
    angles = np.radians(degrees)
    return np.degrees(np.arctan(np.sin(angles).sum() / np.cos(angles).sum())) % 360


HUES = ([350.0, 10.0, 30.0], [200.0, 240.0, 250.0], [300.0, 355.0, 20.0, 60.0], [80.0, 130.0])

VOTES = (
    (["fear", "awe", "fear", "fear", "awe"], 3),
    (["fear", "awe", "fear", "awe", "joy"], 2),
    (["fear", "awe", "joy", "fear", "anger"], 3),
    (["joy", "awe", "joy", "fear", "anger"], 2),
    (["awe", "awe", "joy", "awe", "fear"], 4),
    (["anger"] * 5, 3),
)


def _votes_probe(function):
    if not callable(function):
        raise TypeError(f"a function is wanted here, this is {type(function).__name__}")
    return [str(attempted(function(list(votes), needed))) for votes, needed in VOTES]


def _votes(ties="none", enough=lambda count, needed, n: count >= needed):
    """A rule for votes, with one thing other than it should be."""

    def label(votes, needed):
        tally = Counter(votes)
        most = max(tally.values())
        top = [name for name in tally if tally[name] == most]
        if not enough(most, needed, len(votes)) or (len(top) > 1 and ties == "none"):
            return "undecided"
        return min(top) if ties == "alphabet" else top[0]

    return label


EXERCISES = (
    Exercise(
        "1.1",
        "Eight into two",
        _polarity_probe,
        _summed,
        (
            Mistake(
                "negative and positive are exchanged",
                "Print POLARITY.labels: which column comes first?",
                lambda p, s: _summed(p, s)[:, ::-1],
            ),
            Mistake(
                "the mean is taken over a side's labels",
                "Your rows do not sum to 1. What is the probability that one of several events "
                "happens, of which only one can?",
                _averaged,
            ),
            Mistake(
                "the mean is taken over a side's labels, and then the rows are made to sum to 1",
                "That is harmless where both sides have as many labels. In Ekman's set they do not.",
                lambda p, s: _normalised(_averaged(p, s)),
            ),
            Mistake(
                "the first half of the labels is taken for positive",
                "So it is in Mikels' set. Print another set's labels with their polarity.",
                _first_half,
            ),
            Mistake(
                "the likeliest emotion decides alone",
                "An image with 0.3 awe, 0.25 fear and 0.45 spread over the other negative emotions: "
                "which side is likelier?",
                _decided,
            ),
            Mistake(
                "only the strongest emotion of each side counts",
                "Probability that is spread over several emotions of a side counts for that side too.",
                lambda p, s: _normalised(_strongest(p, s)),
            ),
        ),
    ),
    Exercise(
        "1.2",
        "The middle of a hue",
        calls(*((hues,) for hues in HUES)),
        lambda degrees: _direction(degrees) % 360,
        (
            Mistake(
                "it is the plain mean of the numbers",
                "What is the middle of 350 and 10 on the colour circle?",
                np.mean,
            ),
            Mistake(
                "it is the median of the numbers",
                "The circle has no smallest and no largest hue, so nothing lies in the middle of "
                "the list.",
                np.median,
            ),
            Mistake(
                "the result is in radians",
                "The sum points the right way. In which unit do you say so?",
                lambda degrees: np.radians(_direction(degrees) % 360),
            ),
            Mistake(
                "the result is negative for some hues",
                "The direction is right. Hues run from 0 up to 360; where does your arctangent run?",
                _direction,
            ),
            Mistake(
                "degrees go into sine and cosine as they are",
                "In which unit do these functions want their angle?",
                _unconverted,
            ),
            Mistake(
                "sine and cosine are exchanged",
                "Try one hue alone, 90. Read which argument of the arctangent comes first.",
                _exchanged,
            ),
            Mistake(
                "the arctangent of the quotient forgets the quadrant",
                "Two opposite directions have one quotient. Which function takes both parts apart?",
                _ratio,
            ),
        ),
        atol=1e-3,
    ),
    Exercise(
        "1.3",
        "Votes into a label",
        _votes_probe,
        _votes(),
        (
            Mistake(
                "a tie goes to the label that came first",
                "Look at two labels with two votes each. Should the order of the raters decide?",
                _votes(ties="first"),
            ),
            Mistake(
                "a tie goes to the alphabet",
                "Look at two labels with two votes each. Should their spelling decide?",
                _votes(ties="alphabet"),
            ),
            Mistake(
                "the most votes are enough, however few",
                "One of five may be the most. Where does `needed` come in?",
                _votes(enough=lambda count, needed, n: True),
            ),
            Mistake(
                "more than `needed` votes are asked for",
                "At least three: is three enough?",
                _votes(enough=lambda count, needed, n: count > needed),
            ),
            Mistake(
                "half of the votes is asked for in place of `needed`",
                "Try `needed` 2 and 4 with the same five votes. Should the answer change?",
                _votes(enough=lambda count, needed, n: count > n / 2),
            ),
        ),
    ),
)
