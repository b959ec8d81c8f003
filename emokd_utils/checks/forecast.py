"""Checks of appendix A2: answers about rows held out, and how many images would make it clear."""

import math

import numpy as np

from ..checks import Exercise, calls, variants


def _by_nearest(rows, labels):
    """Answers with the label of the nearest row that it has learnt."""
    rows, labels = np.asarray(rows, float), np.asarray(labels)
    return lambda others: labels[np.abs(np.asarray(others, float)[:, None] - rows).argmin(1)]


_ROWS = np.array([0.0, 4.6, 1.0, 9.1, 2.1, 6.0, 3.3, 7.5])
_LABELS = np.array([0, 1, 1, 1, 1, 0, 0, 0])
_FOLDS = {
    "two halves come out wrong": [0, 0, 0, 0, 1, 1, 1, 1],
    "folds that take turns come out wrong": [0, 1, 0, 1, 0, 1, 0, 1],
    "more than two folds come out wrong": [2, 0, 1, 2, 0, 1, 2, 0],
    "folds of unlike size, or with other names, come out wrong": [7, 3, 3, 7, 5, 3, 3, 5],
}
_FOLDS_PROBE = calls(
    *[(_by_nearest, _ROWS, _LABELS, np.array(fold)) for fold in _FOLDS.values()],
    read=lambda answers: [int(answer) for answer in answers],
    about=_FOLDS,
)


@variants
def _held_out(fit, rows, labels, fold, *, learns=np.not_equal, asked=np.equal, order=None):
    answers = np.empty(len(labels), labels.dtype)
    for name in np.unique(fold):
        learnt, out = learns(fold, name), asked(fold, name)
        answers[out] = fit(rows[learnt], labels[learnt])(rows[out])
    return answers if order is None else answers[order(fold)]


def _one_left_out(fit, rows, labels, fold):
    each = np.arange(len(labels))
    return [int(fit(rows[each != k], labels[each != k])(rows[[k]])[0]) for k in each]


def _by_the_last(fit, rows, labels, fold):
    learnt = fold != np.unique(fold)[-1]
    return fit(rows[learnt], labels[learnt])(rows)


_STACKS = {
    "a row is among those that its answer was learnt from. Which rows may `fit` see?": _held_out(
        learns=lambda fold, name: fold == fold
    ),
    "it learns from one fold and answers about all others. Which part is larger?": _held_out(
        learns=np.equal, asked=np.not_equal
    ),
    "answers come fold after fold. In which order are the labels?": _held_out(
        order=lambda fold: np.argsort(fold, kind="stable")
    ),
    "the answers of one fit are given to all rows. Each fold needs a fit of its own.": _by_the_last,
    "a single row is left out at a time. The folds are given.": _one_left_out,
}

_COUNTS = {
    "where only images are to blame for the doubt, the number is wrong": (
        0.05,
        0.0,
        0.0,
        0.173,
        2.0,
    ),
    "a margin is not kept to": (0.05, 0.013, 0.0, 0.173, 2.0),
    "the doubt that no image takes away is left out, or counted wrongly": (
        0.05,
        0.01,
        0.00013,
        0.173,
        2.0,
    ),
    "another quantile than 2 comes out wrong": (0.06, 0.01, 0.0001, 0.173, 2.3),
    "a gain below the margin, or a loss, comes out wrong": (-0.03, 0.01, 0.0001, 0.173, 2.0),
    "where no number would do, it is not -1": (0.03, 0.01, 0.0004, 0.173, 2.0),
    "at the margin itself it is not -1": (0.01, 0.01, 0.0, 0.173, 2.0),
}
_COUNTS_PROBE = calls(*_COUNTS.values(), about=_COUNTS)


@variants
def _images(
    gain, margin, own, of_one, quantile, *, far=abs, keep=1, owes=1, power=2, end=math.ceil, none=-1
):
    room = (far(gain - keep * margin) / quantile) ** power - owes * own
    return end(of_one / room) if room > 0 else none


_NEEDED = {
    "the doubt of the law is left out. What remains when n is huge?": _images(owes=0),
    "the margin is left out. From what has the interval to keep away?": _images(keep=0),
    "a distance is not squared. A variance is in squared units.": _images(power=1),
    "it is rounded down. Does one image fewer suffice?": _images(end=math.floor),
    "a gain below the margin is never clear. It too can be far from it.": _images(
        far=lambda distance: max(distance, 0)
    ),
    "where no number of images would do, it is not -1. Look at the sign.": _images(none=0),
}

EXERCISES = (
    Exercise("A2.1", "Answers about rows held out", _FOLDS_PROBE, _held_out(), _STACKS),
    Exercise("A2.2", "How many images?", _COUNTS_PROBE, _images(), _NEEDED),
)
