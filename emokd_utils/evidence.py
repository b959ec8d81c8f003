"""Evidence: a measured value with its interval, and a sentence with the numbers that carry it.

Shares have Wilson's interval. Everything else has bootstrap percentile intervals (Efron &
Tibshirani 1993, An Introduction to the Bootstrap, chapter 13, doi 10.1201/9780429246593) over
images drawn with replacement: an image is drawn with all that is known of it, so that what two
models say about it stays paired. What no images are there for is nan."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

RESAMPLES = 2000
LEVEL = 0.95
NAN = float("nan")


class Interval(NamedTuple):
    """Ends of a confidence interval, in the unit of what it is about; nan where undefined."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A value measured on n images, with the ends of its interval."""

    value: float
    low: float
    high: float
    n: int

    @property
    def points(self) -> str:
        """A difference of shares as text: ``+3.1 points [+0.7, +5.4], n = 1,200``."""
        value, low, high = (f"{100 * x:+.1f}" if self.n else "?" for x in self[:3])
        return f"{value} points [{low}, {high}], n = {self.n:,}"

    @property
    def percent(self) -> str:
        """A share as text: ``64.6 % [61.9, 67.2], n = 1,200``."""
        value, low, high = (f"{100 * x:.1f}" if self.n else "?" for x in self[:3])
        return f"{value} % [{low}, {high}], n = {self.n:,}"


class Claim(NamedTuple):
    """A sentence about the results, whether this run supports it (None: cannot be told), and the
    numbers."""

    text: str
    holds: bool | None
    evidence: str

    def __str__(self) -> str:
        verdict = {True: "holds", False: "DOES NOT HOLD", None: "cannot be told"}[self.holds]
        return f"[{verdict}] {self.text}: {self.evidence}"


def wilson(right: int, n: int) -> Interval:
    """Wilson's score interval of a share, `right` of n (1927, doi 10.1080/01621459.1927.10502953)."""
    if n == 0:
        return Interval(NAN, NAN)
    return Interval(*map(float, binomtest(right, n).proportion_ci(LEVEL, "wilson")))


def share(count: int | np.ndarray, n: int | None = None) -> Estimate:
    """`count` of n, or the share of True in a boolean array, in [0, 1] with Wilson's interval."""
    if n is None:
        right = np.asarray(count)  # a tensor too
        count, n = right.sum(), right.size
    return Estimate(count / n if n else NAN, *wilson(int(count), int(n)), int(n))


def bootstrap(values: np.ndarray) -> Estimate:
    """The mean of `values` (n,), one an image, with its interval over resampled images."""
    if not (n := len(values)):
        return Estimate(NAN, NAN, NAN, 0)
    draws = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    return Estimate(float(np.mean(values)), *percentile_interval(values[draws].mean(1)), n)


def resampled_counts(counts: np.ndarray) -> np.ndarray:
    """Counts (RESAMPLES, K) of images drawn with replacement from counts (K,) of each kind."""
    if not (n := int(counts.sum())):
        return np.zeros((RESAMPLES, len(counts)), dtype=np.int64)
    return np.random.default_rng(0).multinomial(n, counts / n, size=RESAMPLES)


def percentile_interval(values: np.ndarray, level: float = LEVEL) -> Interval:
    """The middle `level` of resampled values (R,), those that are nan left out."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(NAN, NAN)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
