"""Complementarity: what two models get right together that neither gets right alone.

Everything here is read off one table, in which each image is counted by whether A, B, both or
neither is right. Measures take two `Predictions`, matched by id, or two boolean arrays (n,) of what
A and what B got right. Those of no images, and those whose definition divides by zero, are nan.
`comparison` has every measure with its interval, on slices of the data."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import bdtr

from .errors import InputError
from .evidence import LEVEL, NAN, Estimate, Interval, percentile_interval, resampled_counts, wilson
from .predictions import Predictions

Outcome = Predictions | np.ndarray  # the latter boolean (n,): True where the model is right


@dataclass(frozen=True)
class FourWay:
    """Images that both models, only A, only B and neither got right; of resamples, four arrays."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def n(self) -> int:
        """Number of images."""
        return sum(vars(self).values())

    @property
    def measures(self) -> dict[str, np.ndarray]:
        """Every measure that the four counts determine, by name, in their shape."""
        both, only_a, only_b, neither = (np.asarray(count) for count in vars(self).values())
        n, same, different = both + only_a + only_b + neither, both * neither, only_a * only_b
        with np.errstate(invalid="ignore"):
            return {
                "accuracy_a": (both + only_a) / n,
                "accuracy_b": (both + only_b) / n,
                "accuracy_difference": (only_a - only_b) / n,
                "both": both / n,
                "only_a": only_a / n,
                "only_b": only_b / n,
                "neither": neither / n,
                "oracle_accuracy": (n - neither) / n,
                "oracle_gain": np.minimum(only_a, only_b) / n,
                "double_fault": neither / n,
                "yules_q": (same - different) / (same + different),
            }

    @property
    def shares(self) -> dict[str, float]:
        """The four counts by name, each over n: in [0, 1], nan for no images."""
        return {name: float(self.measures[name]) for name in vars(self)}

    def table(self) -> pd.DataFrame:
        """The counts as two rows (A right, A wrong) and two columns (B right, B wrong)."""
        counts = [[self.both, self.only_a], [self.only_b, self.neither]]
        return pd.DataFrame(counts, ["A right", "A wrong"], ["B right", "B wrong"])


def four_way(a: Outcome, b: Outcome) -> FourWay:
    """Who is right, counted; InputError for what does not match, or arrays not boolean."""
    right_a, right_b = _right(a, b)
    cell = 3 - 2 * right_a - right_b  # 0 both right, 1 only A, 2 only B, 3 neither
    return FourWay(*np.bincount(cell, minlength=4).tolist())


def oracle_accuracy(a: Outcome, b: Outcome) -> float:
    """Share of images that a model got right: the most that picking answers can reach."""
    return float(four_way(a, b).measures["oracle_accuracy"])


def double_fault(a: Outcome, b: Outcome) -> float:
    """Share of images that both got wrong (Kuncheva & Whitaker 2003, as in `yules_q`)."""
    return float(four_way(a, b).measures["double_fault"])


def yules_q(a: Outcome, b: Outcome) -> float:
    """Yule's Q in [-1, 1] (Kuncheva & Whitaker 2003, doi 10.1023/A:1022859003006): 0 where the
    models are right independently, positive where on the same images, negative where on different
    ones. (both x neither - only A x only B) / (both x neither + only A x only B)."""
    return float(four_way(a, b).measures["yules_q"])


def mcnemar_exact(a: Outcome, b: Outcome) -> float:
    """Two-sided exact p-value of McNemar's test (1947, doi 10.1007/BF02295996): were an image that
    one model only got right as likely A's as B's, the count of A's would be binomial with
    probability one half. Twice the smaller tail, at most 1."""
    counted = four_way(a, b)
    fewer, discordant = min(counted.only_a, counted.only_b), counted.only_a + counted.only_b
    return min(1.0, 2 * float(bdtr(fewer, discordant, 0.5)))


def cohen_kappa(a: Predictions, b: Predictions) -> float:
    """Cohen's kappa of the predicted classes (1960, doi 10.1177/001316446002000104), at most 1:
    (agreement - chance) / (1 - chance), the chance that of these frequencies of classes."""
    return float(measures(*a.aligned(b))["cohen_kappa"][0])


def macro_f1(predictions: Predictions) -> float:
    """Mean, over the classes among labels or predictions, of the F1 score, in [0, 1]. An invalid
    answer is a miss for its label's class and a false alarm for none."""
    labels, predicted = predictions.label_index, predictions.predicted_index
    classes = np.setdiff1d(np.union1d(labels, predicted), [-1])[:, None]
    labelled, named = labels == classes, predicted == classes  # (classes, n)
    f1 = 2 * (labelled & named).sum(1) / (labelled.sum(1) + named.sum(1))
    return float(f1.mean()) if len(f1) else NAN


def accuracy_interval(outcome: Outcome) -> Interval:
    """Wilson's interval of one model's accuracy, in [0, 1]."""
    right = outcome.correct if isinstance(outcome, Predictions) else outcome
    return wilson(int(np.sum(right)), len(right))


def accuracy_difference(a: Outcome, b: Outcome, *, level: float = LEVEL) -> Estimate:
    """Accuracy of A minus that of B, in [-1, 1], with its paired bootstrap interval."""
    counted = four_way(a, b)
    drawn = FourWay(*resampled_counts(np.array(list(vars(counted).values()))).T)
    ends = percentile_interval(drawn.measures["accuracy_difference"], level)
    return Estimate(float(counted.measures["accuracy_difference"]), *ends, counted.n)


def measures(a: Predictions, b: Predictions) -> dict[str, np.ndarray]:
    """Every measure but McNemar's p, of the same images in the same order, each (1 + RESAMPLES,):
    the value, and then its resampled values. All depend on how often each of the K combinations of
    label, A's class and B's class occurs."""
    categories = range(len(a.classes) + 1)  # the last is no class, an invalid answer
    answered = [x.predicted_index % len(categories) for x in (a, b)]
    triples = np.stack([a.label_index, *answered])  # (3, n)
    (label, class_a, class_b), counts = np.unique(triples, axis=1, return_counts=True)
    counts = np.vstack([counts, resampled_counts(counts)])  # (1 + RESAMPLES, K)
    counts = counts.astype(np.float64)  # whole numbers all the same, and fast to multiply

    def totals(kinds: np.ndarray, wanted: Iterable[int]) -> np.ndarray:  # (len(wanted), R)
        return np.stack([counts @ (kinds == kind).astype(np.float64) for kind in wanted])

    cells = totals(3 - 2 * (class_a == label) - (class_b == label), range(4))
    n, (same,) = cells.sum(axis=0), totals(class_a == class_b, [True])
    by_chance = (totals(class_a, categories) * totals(class_b, categories)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        kappa = (n * same - by_chance) / (n * n - by_chance)
        return FourWay(*cells).measures | {"agreement": same / n, "cohen_kappa": kappa}


def _right(a: Outcome, b: Outcome) -> list[np.ndarray]:
    if isinstance(a, Predictions) and isinstance(b, Predictions):
        return [x.correct for x in a.aligned(b)]
    right = [np.asarray(x) for x in (a, b)]
    if any(x.dtype != bool or x.shape != (right[0].size,) for x in right):
        raise InputError("give two Predictions, or two arrays of booleans for the same images")
    return right
