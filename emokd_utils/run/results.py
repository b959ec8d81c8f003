"""The final table of a run and what it shows (lesson 9).

Accuracy is averaged over the seeds; its interval resamples the images (percentile bootstrap, all
seeds of an image together). A claim is printed with its evidence, and says so when this run does
not support it."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ..complementarity import four_way, macro_f1, mcnemar_exact
from ..evidence import Claim, Estimate, bootstrap
from ..figures.base import slices_of
from ..predictions import (
    AVERAGE,
    BOTH_RUN,
    HEAD,
    HEAD_PLAIN,
    ORACLE,
    REGRESSION,
    TUNED,
    VISION,
    ZERO_SHOT,
    Predictions,
    gate_name,
)
from .run import Run

FEW = 20  # images, of which fewer tell nothing


class Results:
    """The test predictions of every model for one or more seeds, and what follows from them."""

    def __init__(self, run: Run, seeds: Sequence[int] = (0,)):
        self.run, self.seeds = run, tuple(seeds)
        self.predictions: dict[int, dict[str, Predictions]] = {
            seed: run.predictions(seed) for seed in seeds
        }
        self.models = list(self.predictions[self.seeds[0]])
        self.ids = list(self.predictions[self.seeds[0]][TUNED].ids)
        self.cues = None if run.cues is None else run.cues.loc[self.ids].to_numpy()

    @property
    def final(self) -> str:
        """EmoVLM-KD with the profile's first gate."""
        return gate_name(self.run.profile.gates[0])

    @property
    def cue_names(self) -> list[str]:
        """The cues that lead the images; none where the data set does not tell them."""
        return [] if self.cues is None else list(slices_of(pd.Series(self.cues)))

    def correct(self, model: str) -> np.ndarray:
        """(seeds, n) bool: was the model right; ORACLE is where VLM or vision model is."""
        if model == ORACLE:
            return self.correct(TUNED) | self.correct(VISION)
        return np.stack([self.predictions[seed][model].correct for seed in self.seeds])

    def table(self) -> pd.DataFrame:
        """A row per model: accuracy with its interval, macro F1, accuracy per cue, in 0..1."""
        rows = {}
        for model in [*self.models, ORACLE]:
            right = self.correct(model)
            f1 = [macro_f1(self.predictions[s][model]) for s in self.seeds if model != ORACLE]
            by_cue = [float(right[:, self.cues == cue].mean()) for cue in self.cue_names]
            mean_f1 = float(np.mean(f1)) if f1 else np.nan
            rows[model] = (*bootstrap(right.mean(0))[:3], mean_f1, *by_cue)
        columns = ["accuracy", "low", "high", "macro F1", *self.cue_names]
        return pd.DataFrame.from_dict(rows, "index", columns=columns).rename_axis("model")

    def per_seed(self) -> pd.DataFrame:
        """Accuracy (0..1) of each model, a column per seed."""
        rows = {model: self.correct(model).mean(1) for model in [*self.models, ORACLE]}
        columns = [f"seed {seed}" for seed in self.seeds]
        return pd.DataFrame.from_dict(rows, "index", columns=columns).rename_axis("model")

    def difference(self, a: str, b: str, where: np.ndarray | None = None) -> Estimate:
        """Accuracy of ``a`` minus that of ``b`` on the same images, with its interval."""
        paired = (self.correct(a).astype(float) - self.correct(b)).mean(0)
        return bootstrap(paired if where is None else paired[where])

    def disagreement(self) -> pd.DataFrame:
        """Tuned VLM against vision model, per seed and cue: four-way table and McNemar's p."""
        rows = []
        for seed, *sides in zip(self.seeds, self.correct(TUNED), self.correct(VISION), strict=True):
            for part, here in self._parts().items():
                a, b = (right[here] for right in sides)
                cells = four_way(a, b)
                rows.append((seed, part, cells.n, *vars(cells).values(), mcnemar_exact(a, b)))
        columns = ["seed", "images", "n", "both right", "only VLM", "only vision model", "neither"]
        return pd.DataFrame(rows, columns=[*columns, "McNemar p"])

    def _parts(self) -> dict[str, np.ndarray]:  # (n,) bool each
        led = {cue: self.cues == cue for cue in self.cue_names}
        return {"all": np.ones(len(self.ids), bool)} | led

    def teacher_gain(self) -> list[str]:
        """The distilled head minus the head without a teacher, in words, as a whole and per cue."""
        lines = []
        for part, here in self._parts().items():
            gain = self._over_seeds(self.difference(HEAD, HEAD_PLAIN, here))
            lines.append(f"{part if part == 'all' else f'{part}-led'} images: {gain}")
        return lines

    def gap_recovered(self) -> np.ndarray:
        """(seeds,) of the gap from the better single model to the oracle EmoVLM-KD's share."""
        tuned, vision = self.correct(TUNED).mean(1), self.correct(VISION).mean(1)
        best, top = np.maximum(tuned, vision), self.correct(ORACLE).mean(1)
        return (self.correct(self.final).mean(1) - best) / np.where(top > best, top - best, np.nan)

    def claims(self) -> list[Claim]:
        """What the method promises, checked on this run."""
        tuning, teacher = self.difference(TUNED, ZERO_SHOT), self.difference(HEAD, HEAD_PLAIN)
        better = max((TUNED, VISION), key=lambda model: self.correct(model).mean())
        room, short = self.difference(ORACLE, better), self.difference(BOTH_RUN, self.final)
        above = f"the oracle is 10 points or more above the {better}"
        taught = "the distilled head beats the head without a teacher"
        within = "EmoVLM-KD is within 2 points of running both models"
        return [
            *self._above_chance(),
            self._claim("instruction tuning adds 10 points or more", tuning.value >= 0.10, tuning),
            *self._each_ahead_on_its_cue(),
            self._claim(above, room.value >= 0.10, room),
            self._claim(taught, teacher.low > 0, teacher),
            *self._ahead_of_each(),
            self._claim(within, short.value <= 0.02, short),
            self._gap_is_recovered(),
        ]

    def _above_chance(self) -> Iterator[Claim]:
        if self.cues is not None:
            chance = 1 / len(self.run.dataset.label_set)
            right = bootstrap(self.correct(ZERO_SHOT).mean(0)[self.cues == "content"])
            text = f"the untuned VLM is above chance ({chance:.1%}) on content-led images"
            yield Claim(text, _told(right.low > chance, right), right.percent)

    def _each_ahead_on_its_cue(self) -> Iterator[Claim]:
        if self.cues is None:
            return
        cells = self.disagreement()
        for cue, name, sign in (("content", "ahead of", 1), ("atmosphere", "behind", -1)):
            gap = self.difference(TUNED, VISION, self.cues == cue)
            p_values = cells.loc[cells["images"] == cue, "McNemar p"]
            text = f"the tuned VLM is {name} the vision model on {cue}-led images"
            holds = sign * gap.value > 0 and (p_values < 0.01).all()
            more = f"; largest McNemar p over seeds {p_values.max():.2g}" * bool(gap.n)
            yield self._claim(text, holds, gap, more)

    def _ahead_of_each(self) -> Iterator[Claim]:
        words = {TUNED: "tuned VLM", VISION: "vision model", HEAD: "distilled head"}
        words |= {name: name for name in (AVERAGE, REGRESSION)}
        for other, name in words.items():
            gain = self.difference(self.final, other)
            each = self.correct(self.final).mean(1) - self.correct(other).mean(1)
            enough = gain.low > 0 or other in (AVERAGE, REGRESSION)
            text = f"EmoVLM-KD is ahead of the {name} in every seed"
            more = f"; least over seeds {100 * each.min():+.1f}"
            yield self._claim(text, enough and (each > 0).all(), gain, more)

    def _gap_is_recovered(self) -> Claim:
        text = "EmoVLM-KD recovers 55 % of the gap to the oracle or more"
        known = self.gap_recovered()
        known = known[np.isfinite(known)]
        if not len(known) or len(self.ids) < FEW:
            return Claim(text, None, "no gap, or too few images")
        ends = f"{known.min():.0%} to {known.max():.0%} over seeds"
        return Claim(text, bool(known.mean() >= 0.55), f"{known.mean():.0%} on average, {ends}")

    def _claim(self, text: str, holds: object, gain: Estimate, more: str = "") -> Claim:
        return Claim(text, _told(holds, gain), self._over_seeds(gain) + more)

    def _over_seeds(self, gain: Estimate) -> str:
        return f"{gain.points}, {len(self.seeds)} seed(s)"


def _told(holds: object, estimate: Estimate) -> bool | None:
    return bool(holds) if estimate.n >= FEW and np.isfinite(estimate.value) else None


class Repeated:
    """One data set divided anew several times: for data too small for one test split to say much.

    Each division (`open_run(resplit=k)`) has its own training, with seed k. The unit is the image:
    its value is the share of the divisions that tested it in which the model was right, so an image
    that is tested twice counts once, and intervals resample images."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = list(runs)
        self.final = gate_name(self.runs[0].profile.gates[0])
        tables = [run.predictions(run.source.resplit) for run in self.runs]
        self.right: dict[str, pd.DataFrame] = {}  # (images, divisions), nan where not tested
        for model in tables[0]:
            columns = [table[model].to_frame()["correct"].astype(float) for table in tables]
            self.right[model] = pd.concat(columns, axis=1, keys=range(len(tables)))
        either = [self.right[TUNED].fillna(0), self.right[VISION].fillna(0)]
        self.right[ORACLE] = np.maximum(*either).where(self.right[TUNED].notna())

    def table(self) -> pd.DataFrame:
        """A row per model: accuracy with its interval, least and greatest of a division, in 0..1."""
        rows = {}
        for model, right in self.right.items():
            each, accuracy = right.mean(), bootstrap(right.mean(axis=1).to_numpy())
            rows[model] = (*accuracy[:3], each.min(), each.max())
        columns = ["accuracy", "low", "high", "least", "greatest"]
        return pd.DataFrame.from_dict(rows, "index", columns=columns).rename_axis("model")

    def difference(self, a: str, b: str) -> Estimate:
        """Accuracy of ``a`` minus that of ``b`` on the same images of the same divisions."""
        return bootstrap((self.right[a] - self.right[b]).mean(axis=1).to_numpy())
