"""Two models compared by every measure of `complementarity`, with intervals, on slices of the data:
where two models complement each other is as telling as how much (lesson 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from .complementarity import mcnemar_exact, measures
from .errors import InputError
from .evidence import LEVEL, NAN, RESAMPLES, Estimate, percentile_interval
from .predictions import Predictions

WHOLE = "all"
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
    "yules_q": "Yule's Q (-1..1)",
    "agreement": "same class",
    "cohen_kappa": "Cohen's kappa (-1..1)",
    "mcnemar_p": "McNemar's exact p",
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models compared on the whole data and on slices of it.

    table: a row for each slice and measure, in the columns slice ('all' for the whole), measure,
    n (images of the slice), value, low, high (ends of the interval; nan where there is none).
    names: of A and of B.
    """

    table: pd.DataFrame
    names: tuple[str, str]

    def value(self, measure: str, slice: str = WHOLE) -> Estimate:
        """One measure of one slice; InputError names the measures and slices there are."""
        row = self.table[(self.table["measure"] == measure) & (self.table["slice"] == slice)]
        if row.empty:
            known = f"measures: {', '.join(_TITLES)}; slices: {', '.join(self.slices)}"
            raise InputError(f"no measure {measure!r} of slice {slice!r}; {known}")
        return Estimate(*row[list(Estimate._fields)].astype(object).iloc[0])

    @property
    def slices(self) -> tuple[str, ...]:
        """Names of the slices, the whole first."""
        return tuple(self.table["slice"].unique())

    def __str__(self) -> str:
        columns = {
            f"{name} (n = {n})": [_cell(row) for row in part.itertuples()]
            for (name, n), part in self.table.groupby(["slice", "n"], sort=False)
        }
        shown = pd.DataFrame(columns, index=list(_TITLES.values()))
        head = (
            f"A: {self.names[0]}\nB: {self.names[1]}\n"
            f"[..]: {LEVEL:.0%} paired bootstrap intervals, {RESAMPLES} resamples; "
            "% of images unless stated"
        )
        blocks = [shown.iloc[:, i : i + 4].to_string() for i in range(0, shown.shape[1], 4)]
        return "\n\n".join([head, *blocks])


def compare(a: Predictions, b: Predictions, by: pd.Series | None = None) -> Comparison:
    """Every measure of two models, on the whole and on each slice, with bootstrap intervals.

    by: image id -> the name of its slice, such as its cue. Slices come in the order of a
    categorical Series' categories, or else of their names; each is resampled within itself.

    Raises InputError for predictions that do not match, and images without a value in `by`.
    """
    a, b = a.aligned(b)
    slices = [(WHOLE, a.ids)]
    if by is not None:
        by = by.reindex(list(a.ids))
        if (missing := by.isna()).any():
            raise InputError(f"by has no value for {missing.sum()} images: {missing.idxmax()}, ...")
        names = by.astype("category").cat.categories
        slices += [(str(name), by.index[by == name]) for name in names]
    rows = []
    for name, image_ids in slices:
        pair = a.select(image_ids), b.select(image_ids)
        for measure, values in measures(*pair).items():
            ends = percentile_interval(values[1:])
            rows.append((name, measure, len(image_ids), values[0], *ends))
        rows.append((name, "mcnemar_p", len(image_ids), mcnemar_exact(*pair), NAN, NAN))
    table = pd.DataFrame(rows, columns=["slice", "measure", "n", "value", "low", "high"])
    return Comparison(table, tuple(str(x.provenance.get("model", "?")) for x in (a, b)))


def _cell(row: NamedTuple) -> str:
    if np.isnan(row.value):
        return "undefined"
    if row.measure == "mcnemar_p":
        return "< 0.001" if row.value < 0.001 else f"{row.value:.3f}"
    if row.measure in ("cohen_kappa", "yules_q"):
        return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
    return f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
