"""Checks of lesson 6: McNemar's test, the oracle, kappa (6.4 to 6.6), beside those of `looking`."""

from functools import partial

import numpy as np
from scipy.stats import binom, binomtest, chi2, chi2_contingency, ttest_rel
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from ..checks import Exercise, calls, variants
from .looking import EXERCISES as LOOKING


def _rights(*cells):
    """Two arrays of what is right, for the counts both, only A, only B, neither, in a mixed order."""
    pairs = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool).repeat(cells, axis=0)
    return tuple(np.random.default_rng(cells[0]).permutation(pairs).T)


@variants
def _of_cells(measure, a, b):
    return measure(*(int(cell.sum()) for cell in (a & ~b, ~a & b, a & b, ~a & ~b)))


_tail = partial(binom.cdf, p=0.5)


def _exact(x, y, *rest):
    return binomtest(x, x + y).pvalue


def _two_samples(a, b):
    sides = [np.bincount(side, minlength=2) for side in (a, b)]
    return chi2_contingency(sides).pvalue


_MCNEMAR = {
    "the test is on both right and neither right. There both did equally well. Which "
    "images say that one is better?": _of_cells(lambda x, y, both, neither: _exact(both, neither)),
    "the numbers of right answers are compared. The images in both numbers only dilute them. "
    "Which are in one?": _of_cells(lambda x, y, both, neither: _exact(both + x, both + y)),
    "the test is one-sided. An outcome as uneven the other "
    "way would have surprised you as much.": _of_cells(lambda x, y, *rest: _tail(min(x, y), x + y)),
    "it is asked in one direction only, whether the first model is better. "
    "It could be the other.": _of_cells(lambda x, y, *rest: 1 - _tail(x - 1, x + y)),
    "it is asked in one direction only, whether the first model is worse. "
    "It could be the other.": _of_cells(lambda x, y, *rest: _tail(x, x + y)),
    "the probability goes above 1. With equal counts the two tails share the middle. "
    "What can it be at most?": _of_cells(lambda x, y, *rest: 2 * _tail(min(x, y), x + y)),
    "it is the chi-square approximation. That is for large counts. The exact test "
    "counts tosses of a coin.": _of_cells(lambda x, y, *rest: chi2.sf((x - y) ** 2 / (x + y), 1)),
    "it is the chi-square approximation with a correction. The exact test needs no correction "
    "at all.": _of_cells(lambda x, y, *rest: chi2.sf((abs(x - y) - 1) ** 2 / (x + y), 1)),
    "every image is a toss of the coin. It is tossed where just one is right. How "
    "many tosses are that?": _of_cells(lambda x, y, *rest: 2 * _tail(min(x, y), x + y + sum(rest))),
    "the tail is the wrong one. You want the outcomes at least as small. Yours are at "
    "least as large.": _of_cells(lambda x, y, *rest: min(1.0, 2 - 2 * _tail(min(x, y) - 1, x + y))),
    "the tail is always that of the first model. Exchange the two models: p should stay. "
    "Which count begins the tail?": _of_cells(lambda x, y, *rest: min(1.0, 2 * _tail(x, x + y))),
    "the observed outcome is left out of the tail. At least as extreme: what "
    "was observed is one of these.": _of_cells(lambda x, y, *rest: 2 * _tail(min(x, y) - 1, x + y)),
    "it is the probability of this one outcome. A p-value adds "
    "up all that are at least as extreme.": _of_cells(lambda x, y, *rest: binom.pmf(x, x + y, 0.5)),
    "it is a t-test. Its curve is for large counts. The exact test "
    "counts tosses of a coin.": lambda a, b: ttest_rel(1 * a, 1 * b).pvalue,
    "it is asked whether one model's being right depends on the other's. Which is "
    "better?": lambda a, b: chi2_contingency(confusion_matrix(a, b)).pvalue,
    "the tail is always that of the second model. Exchange the two models: p should stay. "
    "Which count begins the tail?": _of_cells(lambda x, y, *rest: min(1.0, 2 * _tail(y, x + y))),
    "the pairs are taken for two separate samples. Whose images were they?": _two_samples,
}


@variants
def _of_hits(measure, predicted, labels):
    return measure(predicted == labels)  # bool (models, images): who is right where


def _vote(predicted, labels):
    return np.mean([np.bincount(column).argmax() for column in predicted.T] == labels)


_oracle = _of_hits(lambda hits: hits.any(0).mean())

_ORACLE = {
    "accuracies are added. Can the sum pass 1?": _of_hits(lambda hits: hits.mean(1).sum()),
    "accuracies are added and cut off at 1. Cutting "
    "off hides that images are counted twice.": _of_hits(lambda hits: min(1.0, hits.mean(1).sum())),
    "it is the best single model. Choose by image.": _of_hits(lambda hits: hits.mean(1).max()),
    "all models have to be right. One is enough.": _of_hits(lambda hits: hits.all(0).mean()),
    "it is the mean accuracy. A model drawn at random has that.": _of_hits(np.mean),
    "it is the majority's accuracy. A vote does not know the labels; the oracle does.": _vote,
    "the models are taken to err independently. A product of error rates assumes that. "
    "Count on the images themselves.": _of_hits(lambda hits: 1 - np.prod(1 - hits.mean(1))),
    "the whole table is asked at once. Each image needs its own.": _of_hits(np.any),
    "exactly one model has to be right. More may be.": _of_hits(lambda h: (h.sum(0) == 1).mean()),
    "most models have to be right. One is enough.": _of_hits(lambda h: (h.mean(0) > 0.5).mean()),
    "it is asked whether the models agree. The labels are not used.": lambda predicted, labels: (
        (predicted == predicted[0]).all(0).mean()
    ),
    "it is taken over the wrong axis. Rows are models.": _of_hits(lambda hits: hits.any(1).mean()),
    "only the first two models are asked. Ask all.": _of_hits(lambda hits: hits[:2].any(0).mean()),
}


def _agreement(a, b, *labels):
    return np.mean(np.array(a) == np.array(b))


def _frequencies(a, b, names=()):
    names = sorted(names or {*a, *b})
    return np.array([[side.count(name) / len(side) for name in names] for side in (a, b)])


def _expected(shares, n):
    return shares[0] @ shares[1]


@variants
def _kappa(
    *given,
    observed=_agreement,
    chance=_expected,
    names=0,
    seen=(0, 1),
    of=lambda o, e: (o - e) / (1 - e),
):
    shares = _frequencies(*(given[k] for k in seen), names=set(given[2]) if names else ())
    return of(observed(*given), chance(shares, len(given[0])))


def _chance_of_being_right(a, b, labels):
    p, q = _agreement(a, labels), _agreement(b, labels)
    return _kappa(chance=lambda *shares: p * q + (1 - p) * (1 - q))(a, b, labels)


_KAPPA = {
    "chance is not taken off. Two constant answers agree too.": _agreement,
    "right and wrong are compared, not the classes. Two wrong ones may "
    "differ.": lambda a, b, labels: cohen_kappa_score(np.equal(a, labels), np.equal(b, labels)),
    "accuracy stands in place of agreement. You compare with the labels. "
    "Whom must the model's answer equal?": lambda a, b, labels: cohen_kappa_score(a, labels),
    "accuracy stands in place of agreement, for the second model. "
    "Whom must its answer equal?": lambda a, b, labels: cohen_kappa_score(b, labels),
    "all classes are taken to be equally frequent. How often does each model give "
    "each class?": _kappa(chance=lambda shares, n: 1 / len(shares[0])),
    "it is not divided by what chance leaves open. Two models that always agree should "
    "come to 1.": _kappa(of=lambda o, e: o - e),
    "both models have the same frequencies. You pooled the two. "
    "Multiply one's by the other's.": _kappa(chance=lambda shares, n: (shares.mean(0) ** 2).sum()),
    "only right answers count as agreement. Two models that give the same wrong class agree as "
    "well.": _kappa(observed=lambda *lists: (np.array(lists) == lists[0]).all(0).mean()),
    "a class that no label has is forgotten. Whose classes count?": _kappa(names=1),
    "chance is that of the labels. How often do the models give a class?": _kappa(seen=(2, 2)),
    "counts are multiplied, not shares. By what is a count divided?": _kappa(
        chance=lambda shares, n: n**2 * _expected(shares, n)
    ),
    "the difference is divided by chance. What does chance leave open?": _kappa(
        of=lambda o, e: (o - e) / e
    ),
    "brackets are missing. What stands above the line, what below?": _kappa(
        of=lambda o, e: o - e / 1 - e
    ),
    "chance is that of one model alone. Multiply one's shares by the other's.": _kappa(seen=(0, 0)),
    "chance is that of both being right or both wrong. Count classes.": _chance_of_being_right,
}

_TESTS = [_rights(1, 3, 0, 1), _rights(1, 1, 1, 2), _rights(1, 1, 4, 1), _rights(30, 14, 5, 11)]
_MODELS = (
    [[0, 1, 1, 0, 1], [0, 2, 1, 2, 0]],
    [[0, 2, 2, 0], [1, 1, 2, 1], [2, 2, 0, 0]],  # one of them is never right
    [[1, 0, 2, 2, 2, 2, 0], [1, 2, 0, 0, 2, 0, 2], [1, 0, 1, 0, 0, 0, 2], [1, 0, 2, 1, 2, 0, 1]],
)
_SETS = [
    (np.array(models), np.array([0, 1, 1, 2, 2, 0, 1][: len(models[0])])) for models in _MODELS
]
_LISTS = [
    tuple(part.split() for part in text.split("/"))
    for text in (
        "awe awe fear joy/awe fear fear joy/awe awe fear fear",  # joy is no label
        "awe awe awe awe awe fear fear joy/awe awe awe joy fear fear joy joy/"
        "awe awe fear awe fear awe fear joy",
        "fear fear fear awe sadness/fear awe fear awe fear/fear sadness fear fear sadness",
    )
]

EXERCISES = (
    *LOOKING,
    Exercise("6.4", "McNemar's exact test", calls(*_TESTS), _of_cells(_exact), _MCNEMAR),
    Exercise("6.5", "The oracle of many models", calls(*_SETS), _oracle, _ORACLE),
    Exercise("6.6", "Kappa from two lists of answers", calls(*_LISTS), _kappa(), _KAPPA),
)
