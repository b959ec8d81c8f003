"""Complementarity: what two models get right together that neither gets right alone.

Two models with the same accuracy may fail on the same images, and then nothing is won by combining
them, or on different ones. Everything here is read off one table, in which each image is counted
by whether A, B, both or neither is right.

Plain measures take two `Predictions`, matched by id, or two boolean arrays (n,) of what A and what
B got right. Measures of no images, and those whose definition divides by zero, are nan.

Intervals are bootstrap percentile intervals (Efron & Tibshirani 1993, An Introduction to the
Bootstrap, chapter 13, doi 10.1201/9780429246593) over images drawn with replacement, paired: an
image is drawn with what both models say about it. All measures depend on how often each
combination of label, A's class and B's class occurs, so whole resamples are drawn at once as
multinomial counts of the combinations, which is the same distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar

from .errors import InputError
from .evidence import (
    LEVEL,
    RESAMPLES,
    Estimate,
    Interval,
    percentile_interval,
    resampled_counts,
    wilson,
)
from .predictions import Predictions

Outcome = Predictions | np.ndarray
"""Predictions, or a boolean array (n,): True where the model is right."""

WHOLE = "all"


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
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def shares(self) -> dict[str, float]:
        """The four counts by name, each over n: in [0, 1], nan for no images."""
        counts = {name: getattr(self, name) for name in ("both", "only_a", "only_b", "neither")}
        return {name: float(_divide(count, self.n)) for name, count in counts.items()}

    def table(self) -> pd.DataFrame:
        """The counts as two rows (A right, A wrong) and two columns (B right, B wrong)."""
        return pd.DataFrame(
            [[self.both, self.only_a], [self.only_b, self.neither]],
            index=["A right", "A wrong"],
            columns=["B right", "B wrong"],
        )

    def __str__(self) -> str:
        return (
            f"both right {self.both}, only A {self.only_a}, only B {self.only_b}, "
            f"neither {self.neither} (n = {self.n})"
        )


# ------------------------------------------------------------------------------------ measures


def four_way(a: Outcome, b: Outcome) -> FourWay:
    """How many images both models, only A, only B and neither got right.

    Raises InputError for predictions that do not match, or arrays that are not boolean (n,).
    """
    right_a, right_b = _right(a, b)
    return FourWay(
        int((right_a & right_b).sum()),
        int((right_a & ~right_b).sum()),
        int((~right_a & right_b).sum()),
        int((~right_a & ~right_b).sum()),
    )


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
    return _mcnemar(four_way(a, b))


def agreement(a: Predictions, b: Predictions) -> float:
    """Share of images to which both models give the same class, right or wrong.

    'No class' (an invalid answer) is here a category of its own. Raises InputError for arrays of
    what is right: from these it cannot be known.
    """
    return _of_classes(a, b)["agreement"]


def cohen_kappa(a: Predictions, b: Predictions) -> float:
    """Cohen's kappa of the predicted classes (1960, doi 10.1177/001316446002000104), at most 1.

    (agreement - chance) / (1 - chance), chance being the agreement of two models that keep their
    frequencies of classes but choose independently. nan where both give every image the same
    single class. Categories and errors are those of `agreement`.
    """
    return _of_classes(a, b)["cohen_kappa"]


def macro_f1(predictions: Predictions) -> float:
    """Mean over classes of the F1 score, in [0, 1]; nan for no images.

    The classes are those that occur among labels or predictions. An invalid answer is a miss for
    its label's class and a false alarm for none.
    """
    labels, predicted = predictions.label_index, predictions.predicted_index
    classes = np.setdiff1d(np.union1d(labels, predicted), [-1])
    if not len(classes):
        return float("nan")
    return float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0))


# ----------------------------------------------------------------------------------- intervals


def accuracy_interval(
    outcome: Outcome,
    method: str = "wilson",
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Confidence interval of one model's accuracy, in [0, 1].

    method: 'wilson', which needs no resampling, or 'bootstrap'. Raises InputError for another.
    """
    _check_settings(level, resamples)
    right = _right_of(outcome)
    if method == "wilson":
        return wilson(int(right.sum()), len(right), level)
    if method != "bootstrap":
        raise InputError(f"no method {method!r}: choose 'wilson' or 'bootstrap'")
    counts = np.array([right.sum(), (~right).sum()])
    drawn = resampled_counts(counts, resamples, seed)
    return percentile_interval(_divide(drawn[:, 0], drawn.sum(axis=1)), level)


def accuracy_difference(
    a: Outcome,
    b: Outcome,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Accuracy of A minus that of B, in [-1, 1], with its paired bootstrap interval."""
    _check_settings(level, resamples)
    counted = four_way(a, b)
    observed = np.array([counted.both, counted.only_a, counted.only_b, counted.neither])
    drawn = resampled_counts(observed, resamples, seed)
    differences = _divide(drawn[:, 1] - drawn[:, 2], drawn.sum(axis=1))
    value = float(_divide(counted.only_a - counted.only_b, counted.n))
    return Estimate(value, *percentile_interval(differences, level), counted.n)


# ---------------------------------------------------------------------------------- comparison


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models compared on the whole data and on slices of it.

    table: a row for each slice and measure, in the columns slice ('all' for the whole), measure,
    n (images of the slice), value, low, high (ends of the interval; nan where there is none).
    names: of A and of B. level, resamples: of the intervals.
    """

    table: pd.DataFrame
    names: tuple[str, str]
    level: float
    resamples: int

    def value(self, measure: str, slice: str = WHOLE) -> Estimate:
        """One measure of one slice; InputError names the measures and slices there are."""
        row = self.table[(self.table["measure"] == measure) & (self.table["slice"] == slice)]
        if row.empty:
            raise InputError(
                f"no measure {measure!r} of slice {slice!r}; measures: "
                f"{', '.join(self.table['measure'].unique())}; slices: {', '.join(self.slices)}"
            )
        value, low, high, n = row[["value", "low", "high", "n"]].iloc[0]
        return Estimate(float(value), float(low), float(high), int(n))

    @property
    def slices(self) -> tuple[str, ...]:
        """Names of the slices, the whole first."""
        return tuple(self.table["slice"].unique())

    def __str__(self) -> str:
        head = (
            f"A: {self.names[0]}\nB: {self.names[1]}\n"
            f"[..]: {self.level:.0%} paired bootstrap intervals, {self.resamples} resamples; "
            "% of images unless stated"
        )
        blocks = [self._block(self.slices[i : i + 4]) for i in range(0, len(self.slices), 4)]
        return "\n\n".join([head, *blocks])

    def _block(self, slices: tuple[str, ...]) -> str:
        columns = {}
        for name in slices:
            rows = self.table[self.table["slice"] == name]
            columns[f"{name} (n = {rows['n'].iloc[0]})"] = [
                _cell(row.measure, row.value, row.low, row.high) for row in rows.itertuples()
            ]
        return pd.DataFrame(columns, index=list(_TITLES.values())).to_string()


def compare(
    a: Predictions,
    b: Predictions,
    by: str | pd.Series | Mapping[str, object] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Comparison:
    """Every measure of two models, on the whole and on each slice, with bootstrap intervals.

    by: what an image's slice is called: 'label' for its class, or a mapping or pandas Series from
    image id to a value such as its cue. Slices come in the order of the classes, of a categorical
    Series' categories, or else of their names; a class or category without images is kept.

    Each slice is resampled within itself. A measure that is undefined in some resamples takes its
    interval over the others. McNemar's p has no interval.

    Raises InputError for predictions that do not match, images without a value in `by`, and a
    slice called 'all'.
    """
    _check_settings(level, resamples)
    a, b = _matched(a, b)
    rows = []
    for name, inside in _slices(a, by):
        counted = _Combinations.of(a, b, inside)
        observed = counted.measures(counted.counts[None])
        drawn = counted.measures(resampled_counts(counted.counts, resamples, seed))
        p_value = _mcnemar(counted.four_way())
        for measure in _TITLES:
            if measure == "mcnemar_p":
                value, ends = p_value, Interval(float("nan"), float("nan"))
            else:
                value, ends = (
                    float(observed[measure][0]),
                    percentile_interval(drawn[measure], level),
                )
            if np.isnan(value):
                ends = Interval(float("nan"), float("nan"))
            rows.append((name, measure, int(inside.sum()), value, *ends))
    table = pd.DataFrame(rows, columns=["slice", "measure", "n", "value", "low", "high"])
    names = tuple(str(side.provenance.get("model", "?")) for side in (a, b))
    return Comparison(table, names, level, resamples)


_TITLES = {
    "accuracy_a": "accuracy of A",
    "accuracy_b": "accuracy of B",
    "accuracy_difference": "A minus B",
    "both": "both right",
    "only_a": "only A right",
    "only_b": "only B right",
    "neither": "neither right",
    "oracle_accuracy": "oracle",
    "oracle_gain": "oracle minus better",
    "double_fault": "double fault",
    "agreement": "same class",
    "cohen_kappa": "Cohen's kappa (-1..1)",
    "yules_q": "Yule's Q (-1..1)",
    "mcnemar_p": "McNemar's exact p",
}


def _cell(measure: str, value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "undefined"
    if measure == "mcnemar_p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if measure in ("cohen_kappa", "yules_q"):
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


# ------------------------------------------------------------------------------------ counting


@dataclass(frozen=True)
class _Combinations:
    """The K different combinations (label, A's class, B's class) and how often each occurs.

    label, a, b: int64 (K,); a class is 0 to C - 1, or C for none. counts: int64 (K,).
    """

    label: np.ndarray
    a: np.ndarray
    b: np.ndarray
    counts: np.ndarray
    num_classes: int

    @classmethod
    def of(cls, a: Predictions, b: Predictions, inside: np.ndarray) -> _Combinations:
        c = len(a.classes)
        triples = np.stack(
            [a.label_index, a.predicted_index % (c + 1), b.predicted_index % (c + 1)]
        )
        distinct, counts = np.unique(triples[:, inside], axis=1, return_counts=True)
        return cls(*distinct, counts, c)

    def four_way(self) -> FourWay:
        a, b = self.a == self.label, self.b == self.label
        return FourWay(*(int(self.counts[cell].sum()) for cell in (a & b, a & ~b, ~a & b, ~a & ~b)))

    def measures(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Every measure but McNemar's p for counts (R, K) of the combinations: each (R,)."""
        a, b = self.a == self.label, self.b == self.label
        categories = np.arange(self.num_classes + 1)
        counts = counts.astype(np.float64)  # whole numbers all the same, and fast to multiply
        cells = counts @ np.stack([a & b, a & ~b, ~a & b, ~a & ~b], axis=1).astype(np.float64)
        return _correctness_measures(*cells.T) | _class_measures(
            counts @ (self.a == self.b).astype(np.float64),
            counts @ (self.a[:, None] == categories).astype(np.float64),
            counts @ (self.b[:, None] == categories).astype(np.float64),
        )


def _correctness_measures(
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


def _class_measures(same: np.ndarray, of_a: np.ndarray, of_b: np.ndarray) -> dict[str, np.ndarray]:
    """Agreement and kappa from counts (R,) of equal classes and (R, C + 1) of each class."""
    n = of_a.sum(axis=1)
    by_chance = (of_a * of_b).sum(axis=1)
    return {
        "agreement": _divide(same, n),
        "cohen_kappa": _divide(n * same - by_chance, n * n - by_chance),
    }


def _of_counts(counted: FourWay) -> dict[str, float]:
    counts = (counted.both, counted.only_a, counted.only_b, counted.neither)
    found = _correctness_measures(*map(np.int64, counts))
    return {name: float(value) for name, value in found.items()}


def _of_classes(a: Predictions, b: Predictions) -> dict[str, float]:
    a, b = _matched(a, b)
    counted = _Combinations.of(a, b, np.ones(len(a), bool))
    return {name: float(value[0]) for name, value in counted.measures(counted.counts[None]).items()}


def _mcnemar(counted: FourWay) -> float:
    if counted.only_a == counted.only_b:
        return 1.0
    return float(mcnemar(counted.table().to_numpy(), exact=True).pvalue)


def _divide(top: np.ndarray | int, bottom: np.ndarray | int) -> np.ndarray:
    """Quotient in float64, nan where the divisor is 0."""
    top, bottom = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom != 0)


# --------------------------------------------------------------------------------------- input


def _right_of(outcome: Outcome) -> np.ndarray:
    if isinstance(outcome, Predictions):
        return outcome.correct
    right = np.asarray(outcome)
    if right.ndim != 1 or (right.dtype != bool and right.size):
        raise InputError(
            f"an array of {right.dtype} of shape {right.shape}: give Predictions, or booleans (n,) "
            "that are True where the model is right"
        )
    return right.astype(bool)


def _right(a: Outcome, b: Outcome) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(a, Predictions) != isinstance(b, Predictions):
        raise InputError("give two Predictions or two boolean arrays, not one of each")
    if isinstance(a, Predictions):
        a, b = a.aligned(b)
    right_a, right_b = _right_of(a), _right_of(b)
    if len(right_a) != len(right_b):
        raise InputError(
            f"A has {len(right_a)} images and B {len(right_b)}: give the same images in one order"
        )
    return right_a, right_b


def _matched(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    if not (isinstance(a, Predictions) and isinstance(b, Predictions)):
        raise InputError("what the models answered is needed here: give two Predictions")
    return a.aligned(b)


def _slices(
    a: Predictions, by: str | pd.Series | Mapping[str, object] | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Name of each slice and bool (n,) of the images in it, the whole first."""
    yield WHOLE, np.ones(len(a), bool)
    if by is None:
        return
    if isinstance(by, str):
        if by != "label":
            raise InputError(f"by is {by!r}: give 'label', or a mapping from image id to value")
        of_image, names = np.array(a.labels, dtype=object), list(a.classes)
    else:
        of_image, names = _values(a, by)
    if WHOLE in names:
        raise InputError(f"a slice is called {WHOLE!r}, which stands for the whole: rename it")
    for name in names:
        yield name, of_image == name


def _values(a: Predictions, by: pd.Series | Mapping[str, object]) -> tuple[np.ndarray, list[str]]:
    series = by if isinstance(by, pd.Series) else pd.Series(dict(by), dtype=object)
    if not series.index.is_unique:
        raise InputError("by has an image id twice: give each image one value")
    found = series.reindex(list(a.ids))
    missing = [image for image, gone in zip(a.ids, found.isna(), strict=True) if gone]
    if missing:
        raise InputError(
            f"by has no value for {len(missing)} images, {missing[0]} the first: give them one, "
            "or leave them out with select"
        )
    of_image = np.array([str(value) for value in found], dtype=object)
    if isinstance(series.dtype, pd.CategoricalDtype):
        return of_image, [str(category) for category in series.cat.categories]
    return of_image, sorted(set(of_image))


def _check_settings(level: float, resamples: int = 1) -> None:
    if not 0 < level < 1:
        raise InputError(f"level is {level}: choose a value in (0, 1) such as 0.95")
    if resamples < 1:
        raise InputError(f"resamples is {resamples}: choose 1 or more; 2,000 is usual")
