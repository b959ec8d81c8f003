"""Complementarity: what two models get right together that neither gets right alone.

Two models with the same accuracy may fail on the same images, and then nothing is won by combining
them, or on different ones. Everything here is read off one table, in which each image is counted
by whether A, B, both or neither is right.

Plain measures take two `Predictions`, matched by id, or two boolean arrays (n,) of what A and what
B got right. Measures of no images, and those whose definition divides by zero, are nan.

Intervals are paired bootstrap intervals (`evidence`): an image is drawn with what both models say
about it. All measures depend on how often each combination of label, A's class and B's class
occurs, so whole resamples are drawn at once as multinomial counts of the combinations.
`comparison` has every measure with its interval, on slices of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import bdtr

from .errors import InputError
from .evidence import (
    LEVEL,
    NAN,
    Estimate,
    Interval,
    percentile_interval,
    resampled_counts,
    wilson,
)
from .predictions import Predictions

Outcome = Predictions | np.ndarray
"""Predictions, or a boolean array (n,): True where the model is right."""


@dataclass(frozen=True)
class FourWay:
    """Images that both models, only A, only B and neither got right: four counts that sum to n."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def n(self) -> int:
        """Number of images."""
        return sum(vars(self).values())

    @property
    def shares(self) -> dict[str, float]:
        """The four counts by name, each over n: in [0, 1], nan for no images."""
        return {name: float(_divide(count, self.n)) for name, count in vars(self).items()}

    def table(self) -> pd.DataFrame:
        """The counts as two rows (A right, A wrong) and two columns (B right, B wrong)."""
        counts = [[self.both, self.only_a], [self.only_b, self.neither]]
        return pd.DataFrame(counts, ["A right", "A wrong"], ["B right", "B wrong"])

    def __str__(self) -> str:
        return (
            f"both right {self.both}, only A {self.only_a}, only B {self.only_b}, "
            f"neither {self.neither} (n = {self.n})"
        )


def four_way(a: Outcome, b: Outcome) -> FourWay:
    """How many images both models, only A, only B and neither got right.

    Raises InputError for predictions that do not match, or arrays that are not boolean (n,).
    """
    return FourWay(*(int(cell.sum()) for cell in _cells(*_right(a, b))))


def oracle_accuracy(a: Outcome, b: Outcome) -> float:
    """Share of images that at least one model got right.

    It bounds what picking one of the two answers for each image can reach.
    """
    return _of_counts(four_way(a, b))["oracle_accuracy"]


def double_fault(a: Outcome, b: Outcome) -> float:
    """Share of images that both got wrong (Kuncheva & Whitaker 2003, as in `yules_q`)."""
    return _of_counts(four_way(a, b))["double_fault"]


def yules_q(a: Outcome, b: Outcome) -> float:
    """Yule's Q in [-1, 1] (Kuncheva & Whitaker 2003, doi 10.1023/A:1022859003006).

    (both x neither - only A x only B) / (both x neither + only A x only B): 0 where the models are
    right independently, positive where on the same images, negative where on different ones.
    nan where both products are zero.
    """
    return _of_counts(four_way(a, b))["yules_q"]


def mcnemar_exact(a: Outcome, b: Outcome) -> float:
    """Two-sided exact p-value of McNemar's test (1947, doi 10.1007/BF02295996).

    The null hypothesis: an image that one model only got right is as likely A's as B's. The count
    of A's is then binomial with probability one half; p is twice the smaller tail, at most 1.
    Without such images p is 1.
    """
    counted = four_way(a, b)
    fewer, discordant = min(counted.only_a, counted.only_b), counted.only_a + counted.only_b
    return min(1.0, 2 * float(bdtr(fewer, discordant, 0.5)))


def agreement(a: Predictions, b: Predictions) -> float:
    """Share of images to which both models give the same class, right or wrong.

    'No class' (an invalid answer) is here a category of its own. Raises InputError for arrays of
    what is right: from these it cannot be known.
    """
    return _observed(a, b)["agreement"]


def cohen_kappa(a: Predictions, b: Predictions) -> float:
    """Cohen's kappa of the predicted classes (1960, doi 10.1177/001316446002000104), at most 1.

    (agreement - chance) / (1 - chance), chance being the agreement of two models that keep their
    frequencies of classes but choose independently. nan where both give every image the same
    single class. Categories and errors are those of `agreement`.
    """
    return _observed(a, b)["cohen_kappa"]


def macro_f1(predictions: Predictions) -> float:
    """Mean over classes of the F1 score, in [0, 1]; nan for no images.

    The classes are those that occur among labels or predictions. An invalid answer is a miss for
    its label's class and a false alarm for none.
    """
    labels, predicted = predictions.label_index, predictions.predicted_index
    classes = np.setdiff1d(np.union1d(labels, predicted), [-1])[:, None]
    labelled, named = labels == classes, predicted == classes  # (classes, n)
    f1 = 2 * (labelled & named).sum(1) / (labelled.sum(1) + named.sum(1))
    return float(f1.mean()) if len(f1) else NAN


def accuracy_interval(outcome: Outcome) -> Interval:
    """Wilson's interval of one model's accuracy, in [0, 1]."""
    right, _ = _right(outcome, outcome)
    return wilson(int(right.sum()), len(right))


def accuracy_difference(a: Outcome, b: Outcome, *, level: float = LEVEL) -> Estimate:
    """Accuracy of A minus that of B, in [-1, 1], with its paired bootstrap interval."""
    counted = four_way(a, b)
    counts = np.array(list(vars(counted).values()))
    drawn = _of_cells(*resampled_counts(counts).T)["accuracy_difference"]
    value = _of_counts(counted)["accuracy_difference"]
    return Estimate(value, *percentile_interval(drawn, level), counted.n)


def _cells(right_a: np.ndarray, right_b: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bool, as the arguments: both right, only A, only B, neither."""
    return right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b


def combinations(a: Predictions, b: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """The K different combinations of label, A's class and B's class, int64 (3, K), and how often
    each occurs, (K,), in predictions of the same images in the same order. A class is 0 to C - 1,
    or C for none."""
    none = len(a.classes)
    triples = np.stack([a.label_index, *(x.predicted_index % (none + 1) for x in (a, b))])  # (3, n)
    return np.unique(triples, axis=1, return_counts=True)


def measures(kinds: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Every measure but McNemar's p for counts (R, K) of K `combinations` (3, K): each (R,)."""
    label, class_a, class_b = kinds
    categories = np.unique(kinds[1:])
    counts = counts.astype(np.float64)  # whole numbers all the same, and fast to multiply

    def total(chosen: np.ndarray) -> np.ndarray:  # (K,) or (K, m) -> (R,) or (R, m)
        return counts @ chosen.astype(np.float64)

    n, same = counts.sum(axis=1), total(class_a == class_b)
    of_a = total(class_a[:, None] == categories)  # (R, categories)
    by_chance = (of_a * total(class_b[:, None] == categories)).sum(axis=1)
    return _of_cells(*map(total, _cells(class_a == label, class_b == label))) | {
        "agreement": _divide(same, n),
        "cohen_kappa": _divide(n * same - by_chance, n * n - by_chance),
    }


def _of_cells(
    both: np.ndarray, only_a: np.ndarray, only_b: np.ndarray, neither: np.ndarray
) -> dict[str, np.ndarray]:
    """Measures of what is right, from counts of any one shape."""
    n = both + only_a + only_b + neither
    same, different = both * neither, only_a * only_b
    return {
        "accuracy_a": _divide(both + only_a, n),
        "accuracy_b": _divide(both + only_b, n),
        "accuracy_difference": _divide(only_a - only_b, n),
        "both": _divide(both, n),
        "only_a": _divide(only_a, n),
        "only_b": _divide(only_b, n),
        "neither": _divide(neither, n),
        "oracle_accuracy": _divide(n - neither, n),
        "oracle_gain": _divide(np.minimum(only_a, only_b), n),
        "double_fault": _divide(neither, n),
        "yules_q": _divide(same - different, same + different),
    }


def _of_counts(counted: FourWay) -> dict[str, float]:
    return {name: float(value) for name, value in _of_cells(*vars(counted).values()).items()}


def _observed(a: Predictions, b: Predictions) -> dict[str, float]:
    a, b = _matched(a, b)
    kinds, counts = combinations(a, b)
    return {name: float(value) for name, (value,) in measures(kinds, counts[None]).items()}


def _divide(top: np.ndarray | int, bottom: np.ndarray | int) -> np.ndarray:
    """Quotient in float64, nan where the divisor is 0."""
    top, bottom = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom != 0)


def _right(a: Outcome, b: Outcome) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(a, Predictions) and isinstance(b, Predictions):
        a, b = a.aligned(b)
        return a.correct, b.correct
    right_a, right_b = (np.asarray(x, None if np.size(x) else bool) for x in (a, b))
    boolean = right_a.dtype == right_b.dtype == bool
    if not boolean or right_a.ndim != 1 or right_a.shape != right_b.shape:
        raise InputError(
            "give two Predictions, or two arrays of booleans (n,) for the same images in one order, "
            "True where the model is right"
        )
    return right_a, right_b


def _matched(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    if not (isinstance(a, Predictions) and isinstance(b, Predictions)):
        raise InputError("what the models answered is needed here: give two Predictions")
    return a.aligned(b)
