"""Checks of lesson 6: McNemar's test, the oracle, kappa (6.4 to 6.6), beside those of `looking`."""

from math import comb, erfc, sqrt

import numpy as np

from ..checks import Exercise, calls
from .looking import EXERCISES as LOOKING
from .looking import mistakes

# ------------------------------------------------------------------------------ 6.4 McNemar's test


def _rights(both, only_a, only_b, neither, seed):
    """Two arrays of what is right with these counts, in a mixed order."""
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    order = np.random.default_rng(seed).permutation(len(a))
    return a[order], b[order]


def _of_cells(measure):
    """A test of two arrays from a measure of the counts both, only a, only b, neither."""

    def test(a, b):
        a, b = np.asarray(a, bool), np.asarray(b, bool)
        return measure(*(int(cell.sum()) for cell in (a & b, a & ~b, ~a & b, ~a & ~b)))

    return test


def _tail(k, m):
    """P(X <= k) of a binomial count of m tosses of a fair coin."""
    return sum(comb(m, j) for j in range(k + 1)) / 2**m


def _two_sided(x, y):
    return min(1.0, 2 * _tail(min(x, y), x + y))


def _normal(z):
    """Two-sided p of a standard normal value."""
    return erfc(abs(z) / sqrt(2))


def _chi_square(x, y, correction=0):
    return _normal((abs(x - y) - correction) / sqrt(x + y))


def _two_samples(a, b):
    n, p, q = len(a), np.mean(a), np.mean(b)
    pooled = (p + q) / 2
    return _normal((p - q) / sqrt(2 * pooled * (1 - pooled) / n))


MCNEMAR = Exercise(
    "6.4",
    "McNemar's exact test",
    calls(*(_rights(*cells) for cells in [(30, 14, 5, 11, 0), (22, 3, 9, 6, 1), (12, 4, 4, 7, 2)])),
    _of_cells(lambda both, x, y, neither: _two_sided(x, y)),
    mistakes(
        {
            "the test is on both right and neither right. On those images the two models did "
            "equally well. Which images say that one of them is "
            "better?": _of_cells(lambda both, x, y, neither: _two_sided(both, neither)),
            "the numbers of right answers are compared. The images that both got right are in both "
            "numbers and only dilute them. Which are in one of them "
            "only?": _of_cells(lambda both, x, y, neither: _two_sided(both + x, both + y)),
            "the test is one-sided. You did not know beforehand which model would win. An outcome "
            "as uneven the other way would have surprised you as "
            "much.": _of_cells(lambda both, x, y, neither: _tail(min(x, y), x + y)),
            "the probability goes above 1. When both counts are equal, the two tails share the "
            "middle. What can a probability be at "
            "most?": _of_cells(lambda both, x, y, neither: 2 * _tail(min(x, y), x + y)),
            "it is the chi-square approximation. The exact test counts tosses of a coin. The "
            "approximation is for large "
            "counts.": _of_cells(lambda both, x, y, neither: _chi_square(x, y)),
            "it is the chi-square approximation with a correction. The correction brings it nearer "
            "to the exact test, which needs "
            "none.": _of_cells(lambda both, x, y, neither: _chi_square(x, y, 1)),
            "every image is a toss of the coin. The coin is tossed where exactly one model is "
            "right, and nowhere else. How many tosses are that?": _of_cells(
                lambda *cells: min(1.0, 2 * _tail(min(cells[1:3]), sum(cells)))
            ),
            "the tail is the wrong one. Of the smaller count you want the outcomes at least as "
            "small. Yours are at least as large.": _of_cells(
                lambda both, x, y, neither: min(1.0, 2 - 2 * _tail(min(x, y) - 1, x + y))
            ),
            "the tail is always that of the first model. Exchange the two models: p should stay. "
            "Which of the counts should begin the "
            "tail?": _of_cells(lambda both, x, y, neither: min(1.0, 2 * _tail(x, x + y))),
            "the observed outcome is left out of the tail. At least as extreme: what was observed "
            "is itself one of "
            "these.": _of_cells(lambda both, x, y, neither: 2 * _tail(min(x, y) - 1, x + y)),
            "it is the probability of this one outcome. A p-value adds up all outcomes that are at "
            "least as "
            "extreme.": _of_cells(lambda both, x, y, neither: comb(x + y, x) / 2 ** (x + y)),
            "the pairs are taken for two separate samples. Both models saw the same images. Your "
            "test would be right if each had its own.": _two_samples,
        }
    ),
    atol=1e-6,
)


# ------------------------------------------------------------------------------------ 6.5 oracle


def _several():
    draw = np.random.default_rng(62)
    cases = []
    for images, shares in ((20, (0.6, 0.5, 0.4)), (12, (0.4, 0.3)), (15, (0.3,) * 4)):
        labels = draw.integers(0, 5, images)
        named = [
            np.where(draw.random(images) < share, labels, (labels + 1 + k) % 5)
            for k, share in enumerate(shares)
        ]
        cases.append((np.stack(named), labels))
    return cases


def _of_hits(measure):
    """A measure of bool (models, images): who is right where."""
    return lambda predicted, labels: measure(np.asarray(predicted) == np.asarray(labels))


def _vote(predicted, labels):
    named = [np.bincount(column).argmax() for column in np.asarray(predicted).T]
    return np.mean(np.array(named) == labels)


ORACLE = Exercise(
    "6.5",
    "The oracle of many models",
    calls(*_several()),
    _of_hits(lambda hits: hits.any(0).mean()),
    mistakes(
        {
            "accuracies are added. An image that two models get right is counted twice. Could your "
            "number be above 1?": _of_hits(lambda hits: hits.mean(1).sum()),
            "accuracies are added and cut off at 1. Cutting off hides that images are counted "
            "twice.": _of_hits(lambda hits: min(1.0, hits.mean(1).sum())),
            "it is the best single model. The oracle may choose another model for each image, not "
            "one for all.": _of_hits(lambda hits: hits.mean(1).max()),
            "all models have to be right. One that is right is enough.": _of_hits(
                lambda hits: hits.all(0).mean()
            ),
            "it is the mean accuracy. That is what a model drawn at random for each image would "
            "reach.": _of_hits(lambda hits: hits.mean()),
            "it is the majority's accuracy. A vote does not know the labels; the oracle "
            "does.": _vote,
            "the models are taken to err independently. A product of error rates holds if one "
            "model's error says nothing of the other's. Count on the images "
            "themselves.": _of_hits(lambda hits: 1 - np.prod(1 - hits.mean(1))),
            "it is taken over the wrong axis. Rows are models and columns images. Over which of "
            "the two should one be enough?": _of_hits(lambda hits: hits.any(1).mean()),
            "only the first two models are asked. There may be more of them.": _of_hits(
                lambda hits: hits[:2].any(0).mean()
            ),
        }
    ),
)


# ------------------------------------------------------------------------------------- 6.6 kappa


def _answers():
    draw = np.random.default_rng(63)
    names = np.array(["awe", "fear", "anger", "sadness"])
    cases = []
    for n, weights in ((40, (0.5, 0.25, 0.15, 0.1)), (30, (0.1, 0.2, 0.3, 0.4))):
        labels = draw.choice(names, n, p=weights)
        named = [
            np.where(draw.random(n) < share, labels, draw.choice(names[:k], n))
            for share, k in ((0.6, 4), (0.5, 3))
        ]
        cases.append(tuple([str(x) for x in column] for column in (*named, labels)))
    return cases


def _observed(a, b):
    return float(np.mean(np.asarray(a) == np.asarray(b)))


def _shares(answers, names):
    return np.array([np.mean(np.asarray(answers) == name) for name in names])


def _corrected(observed, chance):
    return (observed - chance) / (1 - chance)


def _by_chance(a, b):
    names = sorted({*a, *b})
    return float(_shares(a, names) @ _shares(b, names))


def _kappa(a, b, labels=None):
    return _corrected(_observed(a, b), _by_chance(a, b))


def _kappa_of_correctness(a, b, labels):
    right = [np.asarray(side) == np.asarray(labels) for side in (a, b)]
    return _kappa(right[0].tolist(), right[1].tolist())


def _pooled_chance(a, b, labels):
    names = sorted({*a, *b})
    mean = (_shares(a, names) + _shares(b, names)) / 2
    return _corrected(_observed(a, b), float(mean @ mean))


def _both_right(a, b, labels):
    hits = [x == y == z for x, y, z in zip(a, b, labels, strict=True)]
    return _corrected(float(np.mean(hits)), _by_chance(a, b))


def _chance_of_being_right(a, b, labels):
    p, q = _observed(a, labels), _observed(b, labels)
    return _corrected(_observed(a, b), p * q + (1 - p) * (1 - q))


_WITH_LABELS = "You compare a model with the labels. Whom does the model's answer have to equal?"

KAPPA = Exercise(
    "6.6",
    "Kappa from two lists of answers",
    calls(*_answers()),
    _kappa,
    mistakes(
        {
            "chance is not taken off. This is the agreement. Two models that answer the same class "
            "always agree wholly and share no knowledge.": lambda a, b, labels: _observed(a, b),
            "right and wrong are compared, not the classes. Two models that are both wrong agree "
            "only if they name the same class.": _kappa_of_correctness,
            f"accuracy stands in place of agreement. {_WITH_LABELS}": lambda a, b, labels: _kappa(
                a, labels
            ),
            "accuracy stands in place of agreement, for the second model. "
            f"{_WITH_LABELS}": lambda a, b, labels: _kappa(b, labels),
            "all classes are taken to be equally frequent. A model that likes one class agrees "
            "with another that likes it more often than that. Count how often each model gives "
            "each class.": lambda a, b, labels: _corrected(
                _observed(a, b), 1 / len({*a, *b, *labels})
            ),
            "it is not divided by what chance leaves open. Two models that always agree should "
            "come to 1.": lambda a, b, labels: _observed(a, b) - _by_chance(a, b),
            "both models have the same frequencies. You pooled the two. Each keeps its own; "
            "multiply one's by the other's.": _pooled_chance,
            "only right answers count as agreement. Two models that give the same wrong class "
            "agree as well.": _both_right,
            "chance is that of both being right or both wrong. Observed agreement is of classes. "
            "Then so is that by chance.": _chance_of_being_right,
        }
    ),
)

EXERCISES = (*LOOKING, MCNEMAR, ORACLE, KAPPA)
