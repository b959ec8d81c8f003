"""Two models compared by every measure of `complementarity`, with intervals, on slices of the data:
where two models complement each other is as telling as how much (lesson 6)."""

from dataclasses import dataclass

import pandas as pd

from .complementarity import mcnemar_exact, measures
from .errors import InputError
from .evidence import NAN, Estimate, percentile_interval
from .predictions import Predictions

WHOLE = "all"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models compared, in a table of a row for each slice and measure; columns slice ('all' for
    the whole), measure, n (images of the slice), value, low, high (nan without an interval)."""

    table: pd.DataFrame

    def value(self, measure: str, slice: str = WHOLE) -> Estimate:
        """One measure of one slice; InputError names the measures and slices there are."""
        row = self.table[(self.table["measure"] == measure) & (self.table["slice"] == slice)]
        if row.empty:
            known = f"measures: {', '.join(self.table['measure'].unique())}"
            known += f"; slices: {', '.join(self.slices)}"
            raise InputError(f"no measure {measure!r} of slice {slice!r}; {known}")
        return Estimate(*row[list(Estimate._fields)].astype(object).iloc[0])

    @property
    def slices(self) -> tuple[str, ...]:
        """Names of the slices, the whole first."""
        return tuple(self.table["slice"].unique())


def compare(a: Predictions, b: Predictions, by: pd.Series | None = None) -> Comparison:
    """Every measure of two models, on the whole and on each slice, with bootstrap intervals. by:
    image id -> the name of its slice. Slices come in the order of a categorical Series' categories,
    or else of their names; each is resampled within itself. Raises InputError for predictions that
    do not match, and images without a value in `by`."""
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
    return Comparison(pd.DataFrame(rows, columns="slice measure n value low high".split()))
