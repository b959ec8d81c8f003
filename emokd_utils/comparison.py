"""Two models compared by every measure of `complementarity`, with intervals, on slices of the data.

Slices are images of one emotion or one cue: where two models complement each other is as telling
as how much (lesson 6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .complementarity import combinations, mcnemar_exact, measures
from .errors import InputError
from .evidence import LEVEL, NAN, RESAMPLES, Estimate, percentile_interval, resampled_counts
from .predictions import Predictions

WHOLE = "all"


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
            f"[..]: {LEVEL:.0%} paired bootstrap intervals, {RESAMPLES} resamples; "
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
    a: Predictions, b: Predictions, by: str | pd.Series | Mapping[str, object] | None = None
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
    a, b = a.aligned(b)
    rows = []
    for name, image_ids in _slices(a, by):
        part_a, part_b = a.select(image_ids), b.select(image_ids)
        kinds, counts = combinations(part_a, part_b)
        observed = measures(kinds, counts[None])
        drawn = measures(kinds, resampled_counts(counts))
        for measure, (value,) in observed.items():
            ends = (NAN, NAN) if np.isnan(value) else percentile_interval(drawn[measure])
            rows.append((name, measure, len(part_a), value, *ends))
        rows.append((name, "mcnemar_p", len(part_a), mcnemar_exact(part_a, part_b), NAN, NAN))
    table = pd.DataFrame(rows, columns=["slice", "measure", "n", "value", "low", "high"])
    return Comparison(table, tuple(str(x.provenance.get("model", "?")) for x in (a, b)))


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


def _cell(measure: str, value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "undefined"
    if measure == "mcnemar_p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if measure in ("cohen_kappa", "yules_q"):
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _slices(
    a: Predictions, by: str | pd.Series | Mapping[str, object] | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Name of each slice and the ids of the images in it, the whole first."""
    image_ids = np.array(a.ids, dtype=object)
    yield WHOLE, image_ids
    if by is None:
        return
    if isinstance(by, str):
        by = pd.Series(pd.Categorical(a.labels, a.classes), a.ids)
    values = by if isinstance(by, pd.Series) else pd.Series(dict(by), dtype=object)
    known = values.dropna()
    missing = [image_id for image_id in a.ids if image_id not in known.index]
    if missing:
        raise InputError(
            f"by has no value for {len(missing)} images, {missing[0]} the first: give them one, "
            "or leave them out with select"
        )
    of_image = known[list(a.ids)].astype(str).to_numpy()
    categorical = isinstance(values.dtype, pd.CategoricalDtype)
    names = values.cat.categories.astype(str) if categorical else sorted(set(of_image))
    if WHOLE in names:
        raise InputError(f"a slice is called {WHOLE!r}, which stands for the whole: rename it")
    for name in names:
        yield name, image_ids[of_image == name]
