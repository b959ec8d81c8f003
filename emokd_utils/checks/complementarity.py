"""Checks of lesson 6: McNemar's test, the oracle, kappa (6.4 to 6.6), beside those of `looking`."""

from functools import partial

import numpy as np
from scipy.stats import binom, binomtest, chi2
from sklearn.metrics import cohen_kappa_score

from ..checks import Exercise, calls, variants
from .looking import EXERCISES as LOOKING


def _rights(*cells):
    """Two arrays of what is right, for the counts both, only A, only B, neither, in a mixed order."""
    pairs = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool).repeat(cells, axis=0)
    return tuple(np.random.default_rng(cells[0]).permutation(pairs).T)


_TESTS = {
    "it is wrong already where on every image just one is right, A more often": _rights(0, 3, 1, 0),
    "it is wrong where B is the better one": _rights(0, 1, 4, 0),
    "it is wrong where both win as often": _rights(0, 2, 2, 0),
    "images on which both are right, or none, change it": _rights(3, 3, 0, 2),
    "it is wrong for many images": _rights(30, 14, 5, 11),
}
_TEST_PROBE = calls(*_TESTS.values(), about=_TESTS)


@variants
def _of_cells(measure, a, b):
    return measure(*(int(cell.sum()) for cell in (a & ~b, ~a & b, a & b, ~a & ~b)))


_tail = partial(binom.cdf, p=0.5)


def _exact(x, y, *rest):
    return binomtest(x, x + y).pvalue


_MCNEMAR = {
    "the test is one-sided. An outcome as uneven the other "
    "way would have surprised you as much.": _of_cells(lambda x, y, *rest: _tail(min(x, y), x + y)),
    "the probability goes above 1. With equal counts the two tails share the middle. "
    "What can it be at most?": _of_cells(lambda x, y, *rest: 2 * _tail(min(x, y), x + y)),
    "it is the chi-square approximation. That is for large counts. The exact test "
    "counts tosses of a coin.": _of_cells(lambda x, y, *rest: chi2.sf((x - y) ** 2 / (x + y), 1)),
    "every image is a toss of the coin. It is tossed where just one is right. How "
    "many tosses are that?": _of_cells(lambda x, y, *rest: 2 * _tail(min(x, y), x + y + sum(rest))),
    "the tail is always that of the first model. Exchange the two models: p should stay. "
    "Which count begins the tail?": _of_cells(lambda x, y, *rest: min(1.0, 2 * _tail(x, x + y))),
}


@variants
def _of_hits(measure, predicted, labels):
    return measure(predicted == labels)  # bool (models, images): who is right where


_oracle = _of_hits(lambda hits: hits.any(0).mean())
_ORACLE = {
    "accuracies are added. Can the sum pass 1?": _of_hits(lambda hits: hits.mean(1).sum()),
    "it is the best single model. Choose by image.": _of_hits(lambda hits: hits.mean(1).max()),
    "all models have to be right. One is enough.": _of_hits(lambda hits: hits.all(0).mean()),
    "it is the mean accuracy. A model drawn at random has that.": _of_hits(np.mean),
    "it is taken over the wrong axis. Rows are models.": _of_hits(lambda hits: hits.any(1).mean()),
}
_MODELS = {  # what each model says of each image, and the labels
    "it is wrong already for one model alone": ([[0, 1, 1]], [0, 0, 1]),
    "what one of two models gets right counts wrongly": ([[0, 1, 0], [2, 0, 2]], [0, 0, 1]),
    "what both models get right counts wrongly": ([[0, 1, 0, 1], [0, 1, 2, 2]], [0, 1, 1, 0]),
    "of several models not each counts": (
        *([[0, 1, 2, 2, 0], [0, 2, 0, 1, 1], [1, 2, 1, 1, 0], [1, 2, 1, 0, 0]], [0, 1, 0, 0, 2]),
    ),
}
_ORACLE_PROBE = calls(*[[*map(np.array, case)] for case in _MODELS.values()], about=_MODELS)


def _agreement(a, b, *labels):
    return np.mean(np.array(a) == np.array(b))


def _expected(a, b):
    return sum(a.count(name) * b.count(name) for name in {*a}) / len(a) ** 2


@variants
def _kappa(a, b, labels, *, chance=_expected):
    return 1 - (1 - _agreement(a, b)) / (1 - chance(a, b))


_KAPPA = {
    "chance is not taken off. Two constant answers agree too.": _agreement,
    "right and wrong are compared, not the classes. Two wrong ones may "
    "differ.": lambda a, b, labels: cohen_kappa_score(np.equal(a, labels), np.equal(b, labels)),
    "accuracy stands in place of agreement. You compare with the labels. "
    "Whom must the model's answer equal?": lambda a, b, labels: cohen_kappa_score(a, labels),
    "all classes are taken to be equally frequent. How often does each model give "
    "each class?": _kappa(chance=lambda a, b: 1 / len({*a, *b})),
}
_LISTS = {
    "two models that always agree do not come to 1": "awe fear awe/awe fear awe/fear fear awe",
    "two models that agree as often as chance do not come to 0": (
        "awe awe fear fear/awe fear awe fear/awe awe fear joy"
    ),
    "two models that agree less often than chance come out wrong": (
        "awe awe awe fear fear/fear fear awe awe awe/fear awe awe fear awe"
    ),
    "where one model gives a class more often, kappa is wrong": (
        "awe awe awe awe fear fear/awe fear awe fear fear fear/awe awe fear fear awe fear"
    ),
    "a class that no label has, or one model never gives, counts wrongly": (
        "awe awe fear joy awe/awe fear fear joy joy/awe fear awe awe fear"
    ),
    "three classes of different frequencies come out wrong": (
        "awe awe awe awe awe fear fear joy/awe awe awe joy fear fear joy joy/"
        "awe awe fear awe fear awe fear joy"
    ),
}
_LIST_CASES = [tuple(part.split() for part in text.split("/")) for text in _LISTS.values()]
_KAPPA_PROBE = calls(*_LIST_CASES, about=_LISTS)

EXERCISES = (
    *LOOKING,
    Exercise("6.4", "McNemar's exact test", _TEST_PROBE, _of_cells(_exact), _MCNEMAR),
    Exercise("6.5", "The oracle of many models", _ORACLE_PROBE, _oracle, _ORACLE),
    Exercise("6.6", "Kappa from two lists of answers", _KAPPA_PROBE, _kappa(), _KAPPA),
)
