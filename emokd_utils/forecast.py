"""A forecast: is EmoVLM-KD worth it for two models, before anything is distilled (appendix A2)?

Both models answer the same labelled val images. Stacking (Wolpert 1992, doi
10.1016/S0893-6080(05)80023-1) their answers, cross-fitted, gives the *lead*: how far both together are
ahead of the better one. What EmoVLM-KD keeps of a lead is read off a line through the worlds of the
sweep, whose lead and gain are known. Accuracies, leads and gains are shares of images, 0..1 or -1..1."""

from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from .errors import InputError
from .evidence import LEVEL, Estimate, bootstrap
from .predictions import Predictions
from .profiles import project_root

TABLE = project_root() / "data" / "sweep.csv"
LEAD, BETTER = "lead on val", "better model on val"
GAIN, BOTH_GAIN = "gain on test", "gain of both run on test"
FOLDS = 5
MARGIN = 0.01  # a gain of a point is worth a head and a gate
WORTH = "Worth it: EmoVLM-KD will be more than a point ahead of the better model."
NOT_WORTH = "Not worth it: EmoVLM-KD will not be more than a point ahead of the better model."
UNCLEAR = "It cannot be told from {n:,} images whether EmoVLM-KD will be more than a point ahead."


def stacked(a: Predictions, b: Predictions) -> np.ndarray:
    """Where both models together are right, bool (n,): a logistic regression on both models'
    log-probabilities, fitted on four fifths of the images at a time, answers about the fifth."""
    sides = [np.log(side.probabilities.clip(1e-6)) for side in (a, b)]
    x, y = np.hstack(sides), a.label_index  # (n, 2 C), (n,)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(LogisticRegression(C=0.1, max_iter=2000), x, y, cv=folds) == y


def better_of(a: Predictions, b: Predictions) -> Predictions:
    """The one that is right more often; the first of equals."""
    return a if a.accuracy >= b.accuracy else b


def lead(a: Predictions, b: Predictions) -> Estimate:
    """How far both together are ahead of the better one, with its interval over images. Raises
    InputError for fewer images than folds of some class."""
    return bootstrap(_paired(a, b)[1])


def _paired(a: Predictions, b: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Of each image (n,): is the better one right, and the stacked minus that."""
    a, b = a.aligned(b)
    counts = pd.Series(a.labels).value_counts()
    if len(counts) < 2 or counts.iloc[-1] < FOLDS:
        there = ", ".join(f"{n} of {name!r}" for name, n in counts.items()) or "none"
        raise InputError(
            f"a forecast needs two classes or more with {FOLDS} labelled images each; there are: {there}"
        )
    better = better_of(a, b).correct.astype(float)
    return better, stacked(a, b) - better


@dataclass(frozen=True)
class Law:
    """gain = intercept + slope * lead, by least squares over the worlds of a sweep.

    covariance: (2, 2) of slope and intercept. own: the variance of a gain about the line that drawing
    images does not explain. freedom: of Student's t, conditions - 2, since points of one dial are
    alike, and what is asked is how another dial would do."""

    slope: float
    intercept: float
    covariance: np.ndarray
    own: float
    freedom: int

    @classmethod
    def learnt(cls, rows: pd.DataFrame, gain: str = GAIN) -> "Law":
        """From `leads_and_gains`; gain: GAIN of EmoVLM-KD, BOTH_GAIN of a gate on both models."""
        x, y = rows[LEAD], rows[gain]
        line, covariance = np.polyfit(x, y, 1, cov=True)
        about = np.sum((y - np.polyval(line, x)) ** 2) / (len(rows) - 2)
        drawn = rows[f"{gain} variance"] + line[0] ** 2 * rows[f"{LEAD} variance"]
        freedom = rows["condition"].nunique() - 2
        return cls(*line.tolist(), covariance, max(0.0, about - drawn.mean()), freedom)

    def gain(self, lead: float) -> float:
        """The gain to expect of a lead."""
        return self.intercept + self.slope * lead

    def reach(self, lead: float, drawn: float) -> float:
        """Half the width of the interval of a gain. drawn: the variance from drawing images."""
        at = np.array([lead, 1.0])
        return self._widths * sqrt(self.own + at @ self.covariance @ at + drawn)

    @property
    def _widths(self) -> float:
        return float(t.ppf((1 + LEVEL) / 2, self.freedom))

    def enough(self, lead: Estimate) -> int | None:
        """How many val images make a lead's sentence clear, were it to stay; None: no number does."""
        of_one = self.slope**2 * variance(lead) * lead.n
        room = ((self.gain(lead.value) - MARGIN) / self._widths) ** 2
        room -= (self.reach(lead.value, 0.0) / self._widths) ** 2
        return ceil(of_one / room) if room > 0 else None


def variance(estimate: Estimate) -> float:
    """The sampling variance that an interval stands for, were it normal."""
    return ((estimate.high - estimate.low) / (2 * 1.96)) ** 2


def verdict(low: float, high: float) -> str:
    """One of the three sentences, for the ends of a gain."""
    return WORTH if low > MARGIN else NOT_WORTH if high <= MARGIN else UNCLEAR


@dataclass(frozen=True)
class Forecast:
    """What to expect on new images like these val images. better: accuracy of the better model.
    lead: see `lead`. gate: accuracy of a gate on both models. emovlm_kd: accuracy, and gain: ahead of
    the better model, of EmoVLM-KD. enough: see `Law.enough`. verdict: one of three sentences."""

    better: Estimate
    lead: Estimate
    gate: Estimate
    emovlm_kd: Estimate
    gain: Estimate
    enough: int | None
    verdict: str

    def __str__(self) -> str:
        images = "no number of" if self.enough is None else f"about {self.enough:,}"
        return "\n".join(
            [
                f"the better model on val:             {self.better.percent}",
                f"both, stacked, are ahead of it by:   {self.lead.points}",
                f"a gate on both models will reach:    {self.gate.percent}",
                f"EmoVLM-KD will reach:                {self.emovlm_kd.percent}",
                f"and be ahead of the better model by: {self.gain.points}",
                f"{self.verdict} With this lead, {images} val images would make it clear.",
            ]
        )


def forecast(a: Predictions, b: Predictions, table: pd.DataFrame) -> Forecast:
    """What EmoVLM-KD would gain over two models, from their answers about the same labelled val images
    and a sweep's table. Raises InputError for other images or classes, or too few images."""
    rows = leads_and_gains(table)
    better, ahead = _paired(a, b)  # (n,) each
    n, led = len(better), bootstrap(ahead)
    law, both = Law.learnt(rows), Law.learnt(rows, BOTH_GAIN)

    def with_ends(law: Law, start: np.ndarray | float) -> Estimate:
        each = start + law.slope * ahead  # (n,)
        value, reach = each.mean() + law.intercept, law.reach(led.value, each.var() / n)
        return Estimate(*(float(min(end, 1.0)) for end in (value, value - reach, value + reach)), n)

    gain = with_ends(law, 0.0)
    accuracies = bootstrap(better), led, with_ends(both, better), with_ends(law, better)
    sentence = verdict(gain.low, gain.high).format(n=n)
    return Forecast(*accuracies, gain, law.enough(led), sentence)


def sweep_table(path: Path = TABLE) -> pd.DataFrame:
    """The table that ``python -m emokd_utils sweep`` wrote: a row a point of the sweep and quantity,
    with its estimate and ends; seeds "0 1": of several seeds together, "0": of one."""
    return pd.read_csv(
        path, dtype={"value": str, "seeds": str}, keep_default_na=False, na_values=[""]
    )


def leads_and_gains(table: pd.DataFrame) -> pd.DataFrame:
    """A row a point of the sweep and seed: condition, value, LEAD, GAIN, BOTH_GAIN and of each, as
    "... variance", its sampling variance."""
    wanted = table[table["quantity"].isin([LEAD, GAIN, BOTH_GAIN])].fillna({"value": ""})
    drawn = wanted.assign(
        estimate=variance(wanted), quantity=wanted["quantity"].map("{} variance".format)
    )
    keys = ["condition", "value", "seeds"]
    both = pd.concat([wanted, drawn])
    return both.pivot(index=keys, columns="quantity", values="estimate").reset_index()


def held_out(table: pd.DataFrame) -> pd.DataFrame:
    """How the forecast does where it has not been: each condition is foretold from the others.

    A row a point and seed: LEAD, GAIN as measured on test, the expected gain with the ends that a
    measured one should lie in, covered, the verdict (of the ends without the test's sampling), and
    wrong: it says worth it or not, and the measured gain says otherwise."""
    rows, parts = leads_and_gains(table), []
    for condition, those in rows.groupby("condition", sort=False):
        law = Law.learnt(rows[rows["condition"] != condition])
        parts += [_foretold(law, row) for _, row in those.iterrows()]
    return pd.DataFrame(parts)


def _foretold(law: Law, row: pd.Series) -> dict:
    drawn = law.slope**2 * row[f"{LEAD} variance"]
    expected, truth = law.gain(row[LEAD]), row[GAIN]
    reach, wide = (law.reach(row[LEAD], v) for v in (drawn, drawn + row[f"{GAIN} variance"]))
    said = verdict(expected - reach, expected + reach)
    wrong = said in (WORTH, NOT_WORTH) and (said == WORTH) != (truth > MARGIN)
    known = {name: row[name] for name in ("condition", "value", "seeds", LEAD, GAIN)}
    ends = {"expected": expected, "low": expected - wide, "high": expected + wide}
    return (
        known | ends | {"covered": abs(truth - expected) <= wide, "verdict": said, "wrong": wrong}
    )
