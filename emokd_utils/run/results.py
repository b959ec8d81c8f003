"""The final table, what it shows, and ``runs/<profile>/report.md`` (lesson 9).

Accuracy is averaged over the seeds; its interval resamples the images (percentile bootstrap, all
seeds of an image together). A claim is printed with its evidence, and says so when this run does
not support it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..complementarity import four_way, macro_f1, mcnemar_exact
from ..costs import EMOVLM_KD, TOGETHER, VLM_ALONE
from ..evidence import RESAMPLES, Claim, Estimate, bootstrap
from ..predictions import (
    BOTH_RUN,
    HEAD,
    HEAD_PLAIN,
    ORACLE,
    PUBLISHED,
    TUNED,
    VISION,
    ZERO_SHOT,
    Predictions,
    gate_name,
)
from .pipeline import Pipeline


class Results:
    """The test predictions of every model for one or more seeds, and what follows from them."""

    def __init__(self, pipeline: Pipeline, seeds: Sequence[int] = (0,)):
        self.pipeline, self.seeds = pipeline, tuple(seeds)
        self.predictions: dict[int, dict[str, Predictions]] = {
            s: pipeline.predictions(s) for s in seeds
        }
        self.models = list(self.predictions[self.seeds[0]])
        first = self.predictions[self.seeds[0]][TUNED]
        self.ids = list(first.ids)
        cues = pipeline.cues
        self.cues = None if cues is None else cues.loc[self.ids].to_numpy()

    def correct(self, model: str) -> np.ndarray:
        """(seeds, n) bool: was the model right; ``ORACLE`` is right where VLM or vision model
        is."""
        if model == ORACLE:
            return self.correct(TUNED) | self.correct(VISION)
        return np.stack([self.predictions[s][model].correct for s in self.seeds])

    def table(self) -> pd.DataFrame:
        """One row per model: accuracy with its interval, macro F1, accuracy per cue, all in
        0..1."""
        rows = []
        for model in [*self.models, ORACLE]:
            right = self.correct(model)
            mean, low, high, _ = bootstrap(right.mean(0))
            row = {"model": model, "accuracy": mean, "low": low, "high": high}
            if model == ORACLE:
                row["macro F1"] = np.nan
            else:
                row["macro F1"] = float(
                    np.mean([macro_f1(self.predictions[s][model]) for s in self.seeds])
                )
            for cue in self._cue_names():
                row[cue] = float(right[:, self.cues == cue].mean())
            rows.append(row)
        return pd.DataFrame(rows).set_index("model")

    def per_seed(self) -> pd.DataFrame:
        """Accuracy (0..1) of each model, a column per seed."""
        table = {f"seed {s}": [] for s in self.seeds}
        names = [*self.models, ORACLE]
        for model in names:
            for s, value in zip(self.seeds, self.correct(model).mean(1), strict=True):
                table[f"seed {s}"].append(value)
        return pd.DataFrame(table, index=pd.Index(names, name="model"))

    def difference(
        self, a: str, b: str, where: np.ndarray | None = None
    ) -> tuple[float, float, float]:
        """Accuracy of ``a`` minus that of ``b`` on the same images, with its interval."""
        paired = (self.correct(a).astype(float) - self.correct(b)).mean(0)
        return bootstrap(paired if where is None else paired[where])[:3]

    def disagreement(self) -> pd.DataFrame:
        """Tuned VLM against vision model, per seed, as a whole and per cue: the four-way table and
        McNemar's p."""
        rows = []
        for k, s in enumerate(self.seeds):
            a, b = self.correct(TUNED)[k], self.correct(VISION)[k]
            for part in ["all", *self._cue_names()]:
                here = np.ones(len(a), bool) if part == "all" else self.cues == part
                cells = four_way(a[here], b[here])
                rows.append(
                    {
                        "seed": s,
                        "images": part,
                        "n": int(here.sum()),
                        "both right": cells.both,
                        "only VLM": cells.only_a,
                        "only vision model": cells.only_b,
                        "neither": cells.neither,
                        "McNemar p": mcnemar_exact(a[here], b[here]),
                    }
                )
        return pd.DataFrame(rows)

    def _cue_names(self) -> list[str]:
        if self.cues is None:
            return []
        order = {"content": 0, "atmosphere": 1, "both": 2}
        return sorted(set(self.cues), key=lambda cue: order.get(cue, 3))

    def teacher_gain(self) -> list[str]:
        """The distilled head minus the head without a teacher, in words, as a whole and per cue."""
        parts = [("all images", np.ones(len(self.ids), bool))]
        parts += [(f"{cue}-led images", self.cues == cue) for cue in self._cue_names()]
        return [
            f"{name}: {self._points(self.difference(HEAD, HEAD_PLAIN, here), int(here.sum()))}"
            for name, here in parts
        ]

    def gap_recovered(self) -> np.ndarray:
        """Per seed the share of the gap from the better single model to the oracle that EmoVLM-KD
        recovers."""
        tuned, vision = self.correct(TUNED).mean(1), self.correct(VISION).mean(1)
        best, top = np.maximum(tuned, vision), self.correct(ORACLE).mean(1)
        return (self.correct(self.final).mean(1) - best) / np.where(top > best, top - best, np.nan)

    @property
    def final(self) -> str:
        """EmoVLM-KD with the profile's first gate."""
        return gate_name(self.pipeline.profile.gates[0])

    # ------------------------------------------------------------------------------------------ claims

    def claims(self) -> list[Claim]:
        """What the method promises, checked on this run."""
        chance = 1 / len(self.pipeline.dataset.label_set)
        claims = []
        if self.cues is not None:
            content, atmosphere = self.cues == "content", self.cues == "atmosphere"
            mean, low, high, _ = bootstrap(self.correct(ZERO_SHOT).mean(0)[content])
            claims.append(
                Claim(
                    f"the untuned VLM is above chance ({chance:.1%}) on content-led images",
                    low > chance,
                    _percent(mean, low, high, int(content.sum())),
                )
            )
        gain = self.difference(TUNED, ZERO_SHOT)
        claims.append(
            Claim("instruction tuning adds 10 points or more", gain[0] >= 0.10, self._points(gain))
        )
        if self.cues is not None:
            for where, name, sign in ((content, "ahead of", 1), (atmosphere, "behind", -1)):
                cue = "content" if sign > 0 else "atmosphere"
                gap = self.difference(TUNED, VISION, where)
                part = self.disagreement().query("images == @cue")["McNemar p"]
                claims.append(
                    Claim(
                        f"the tuned VLM is {name} the vision model on {cue}-led images",
                        bool(sign * gap[0] > 0 and (part < 0.01).all()),
                        f"{self._points(gap, int(where.sum()))}; "
                        f"largest McNemar p over seeds {part.max():.2g}",
                    )
                )
        better = max((TUNED, VISION), key=lambda m: self.correct(m).mean())
        room = self.difference(ORACLE, better)
        claims.append(
            Claim(
                f"the oracle is 10 points or more above the {better}",
                room[0] >= 0.10,
                self._points(room),
            )
        )
        gain = self.difference(HEAD, HEAD_PLAIN)
        claims.append(
            Claim(
                "the distilled head beats the head without a teacher",
                gain[1] > 0,
                self._points(gain),
            )
        )
        for other, words in (
            (TUNED, "tuned VLM"),
            (VISION, "vision model"),
            (HEAD, "distilled head"),
        ):
            gain = self.difference(self.final, other)
            each = self.correct(self.final).mean(1) - self.correct(other).mean(1)
            enough = gain[1] > 0 if other != HEAD else gain[0] > 0
            claims.append(
                Claim(
                    f"EmoVLM-KD is ahead of the {words} in every seed",
                    bool(enough and (each > 0).all()),
                    f"{self._points(gain)}; least over seeds {100 * each.min():+.1f}",
                )
            )
        short = self.difference(BOTH_RUN, self.final)
        claims.append(
            Claim(
                "EmoVLM-KD is within 2 points of running both models",
                short[0] <= 0.02,
                self._points(short),
            )
        )
        share = self.gap_recovered()
        claims.append(
            Claim(
                "EmoVLM-KD recovers half of the gap to the oracle or more",
                bool(np.nanmean(share) >= 0.5),
                f"{np.nanmean(share):.0%} on average, "
                f"{np.nanmin(share):.0%} to {np.nanmax(share):.0%} over seeds",
            )
        )
        return claims

    def _points(self, triple: tuple[float, float, float], n: int | None = None) -> str:
        mean, low, high = (100 * x for x in triple)
        count = len(self.ids) if n is None else n
        return (
            f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}], n = {count}, {len(self.seeds)} seed(s)"
        )


# ------------------------------------------------------------------------------- repeated splits


class Repeated:
    """One data set divided anew several times: for data too small for one test split to say much.

    Each division (`Pipeline(resplit=k)`) has its own training, with seed k. The unit is the image:
    its value is the share of the divisions that tested it in which the model was right, so an image
    that is tested twice counts once, and intervals resample images.
    """

    def __init__(self, pipelines: Sequence[Pipeline]):
        self.pipelines = list(pipelines)
        found = [p.predictions(p.resplit) for p in self.pipelines]
        self.right: dict[str, pd.DataFrame] = {}  # (images, divisions), nan where not tested
        for model in found[0]:
            self.right[model] = pd.concat(
                [pd.Series(f[model].correct, index=list(f[model].ids), dtype=float) for f in found],
                axis=1,
            )
        either = [self.right[TUNED].fillna(0), self.right[VISION].fillna(0)]
        self.right[ORACLE] = np.maximum(*either).where(self.right[TUNED].notna())
        self.final = gate_name(self.pipelines[0].profile.gates[0])

    def table(self) -> pd.DataFrame:
        """A row per model: accuracy with its interval over images, and the least and the greatest
        accuracy of a division, all in 0..1."""
        rows = {}
        for model, right in self.right.items():
            each = right.mean()
            rows[model] = (*bootstrap(right.mean(axis=1).to_numpy())[:3], each.min(), each.max())
        return pd.DataFrame.from_dict(
            rows, "index", columns=["accuracy", "low", "high", "least", "greatest"]
        ).rename_axis("model")

    def difference(self, a: str, b: str) -> Estimate:
        """Accuracy of ``a`` minus that of ``b`` on the same images of the same divisions."""
        paired = (self.right[a] - self.right[b]).mean(axis=1).to_numpy()
        return bootstrap(paired)


def write_repeated(pipelines: Sequence[Pipeline]) -> str:
    """Write ``repeated.md`` to the pipelines' folder; returns the text to print."""
    results = Repeated(pipelines)
    first, table = results.pipelines[0], results.table()
    tested = len(results.right[TUNED])
    shown = pd.DataFrame(
        {
            "accuracy %": [
                f"{100 * r.accuracy:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]"
                for r in table.itertuples()
            ],
            "single divisions": [
                f"{100 * r.least:.1f} to {100 * r.greatest:.1f}" for r in table.itertuples()
            ],
        },
        index=table.index,
    )
    others = [TUNED, VISION, HEAD, BOTH_RUN]
    gains = [f"- minus {name}: {results.difference(results.final, name).points}" for name in others]
    text = f"""# EmoVLM-KD on {first.root.name}, {len(pipelines)} divisions

{_about(first)}

Each division draws train, val and test anew from all images, class by class, and trains every part
again. {tested} images were tested at least once; intervals (95 %, bootstrap) are over these images.

{markdown(shown)}

{results.final}

{chr(10).join(gains)}
"""
    (first.folder / "repeated.md").write_text(text, encoding="utf-8")
    printed = [shown.to_string(), "", results.final, *gains]
    return "\n".join([*printed, "", f"The report: {first.folder / 'repeated.md'}"])


def _percent(mean: float, low: float, high: float, n: int) -> str:
    return f"{mean:.1%} [{low:.1%}, {high:.1%}], n = {n}"


def markdown(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table; the index is the first column."""
    frame = frame.reset_index()
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + " --- |" * len(frame.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The result table in per cent, with the interval beside the accuracy."""
    shown = pd.DataFrame(index=table.index)
    shown["accuracy %"] = [
        f"{100 * r.accuracy:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]"
        for r in table.itertuples()
    ]
    for column in table.columns.drop(["accuracy", "low", "high"]):
        shown[column] = ["" if pd.isna(v) else f"{100 * v:.1f}" for v in table[column]]
    return shown


# ------------------------------------------------------------------------------------------ the report


def write_report(results: Results) -> str:
    """Write ``report.md`` and its figures to the pipeline's folder; returns the text to print."""
    from .. import figures

    pipeline, seeds = results.pipeline, results.seeds
    folder = pipeline.folder
    table, claims = results.table(), results.claims()
    costs = pipeline.costs(seeds[0])
    shown = readable(table)
    names = results.predictions[seeds[0]]
    figures = {
        "four-way": figures.four_way_map(names[TUNED], names[VISION], (TUNED, VISION)),
        "oracle-gap": figures.oracle_gap(table, len(results.ids)),
        "confusion": figures.confusion_pair(names[TUNED], names[VISION], (TUNED, VISION))[0].figure,
        "cost": figures.cost_accuracy(
            _beside_costs(costs, table, results.final), n=len(results.ids)
        ),
    }
    if pipeline.cues is not None:
        chosen = {name: names[name] for name in (TUNED, VISION, HEAD, results.final)}
        figures["cues"] = figures.cue_bars(chosen, pipeline.cues)
    lines = []
    for name, axes in figures.items():
        figures.save(axes, folder / f"{name}.png")
        lines += [f"![{figures.alt_text(axes)}]({name}.png)", ""]
    generated = names[TUNED].provenance
    gates = [
        f"- {gate_name(kind)}: {made}, seed{'s' * (len(which) > 1)} {', '.join(map(str, which))}"
        for kind in pipeline.profile.gates
        for made, which in _grouped({s: repr(pipeline.gate(s, kind)) for s in seeds}).items()
    ]
    written = pipeline.tuned(seeds[0], "generate")
    shown = _with_costs(shown, costs, results)
    text = f"""# EmoVLM-KD on {pipeline.root.name}

{_about(results.pipeline)}

## Accuracy on the test split (n = {len(results.ids)}, seeds {", ".join(map(str, seeds))})

{markdown(shown)}

Accuracy in per cent with a 95 % interval (bootstrap over images, {RESAMPLES} resamples), averaged over seeds.
"{PUBLISHED}": raw logits and one-hot answers, gate trained on the train split.
Parameters and the median time for one image are of the whole set-up that gives the answer.

{markdown(results.per_seed().map(lambda v: f"{100 * v:.1f}"))}

## What it shows

{chr(10).join(f"- {claim}" for claim in claims)}

## What the teacher adds

The distilled head minus the head without a teacher, on the same images:

{chr(10).join(f"- {line}" for line in results.teacher_gain())}

## Where the two models disagree

{markdown(results.disagreement().set_index("seed").map(_short))}

## What it costs

{markdown(costs.map(_short))}

## How the answers were read

Label scoring gives the probabilities above. By *generate and parse* the tuned VLM (seed {seeds[0]})
is right on {written.accuracy:.1%} of n = {len(written)} test images, and {int(written.invalid.sum())} of its
answers name no label.
Prompt: `{generated["prompt"]}`

{chr(10).join(gates)}

## Figures

Where a figure shows single predictions (four-way map, confusion, cues) they are those of seed {seeds[0]}.

{chr(10).join(lines)}"""
    (folder / "report.md").write_text(text, encoding="utf-8")
    printed = [shown.to_string(), "", *map(str, claims), "", f"The report: {folder / 'report.md'}"]
    return "\n".join(printed)


def _grouped(of: dict[int, str]) -> dict[str, list[int]]:
    """The keys that share a value, by that value."""
    groups: dict[str, list[int]] = {}
    for key, value in of.items():
        groups.setdefault(value, []).append(key)
    return groups


def _models(final: str) -> dict[str, str]:
    """The row of the result table of each set-up of the cost table."""
    return {VLM_ALONE: TUNED, TOGETHER: BOTH_RUN, EMOVLM_KD: final}


def _with_costs(shown: pd.DataFrame, costs: pd.DataFrame, results: Results) -> pd.DataFrame:
    """The readable table with parameters and time of each set-up; the vision model's are what it
    adds to the VLM, since both were timed apart. A head alone is no set-up of its own."""
    models = {name: model for model, name in _models(results.final).items()}
    found = {
        model: (costs.loc[name, "parameters"], costs.loc[name, "ms per image"])
        for model, name in {ZERO_SHOT: VLM_ALONE, **models}.items()
    }
    found[VISION] = tuple(costs.loc[TOGETHER, ["added parameters", "added ms"]])
    return shown.assign(
        parameters=[f"{found[m][0]:,.0f}" if m in found else "" for m in shown.index],
        **{"ms per image": [f"{found[m][1]:.1f}" if m in found else "" for m in shown.index]},
    )


def _beside_costs(costs: pd.DataFrame, table: pd.DataFrame, final: str) -> pd.DataFrame:
    """The cost table with the accuracy and interval of the model that each set-up is."""
    models = _models(final)
    accuracy = table.loc[[models[name] for name in costs.index], ["accuracy", "low", "high"]]
    return pd.concat([costs, accuracy.set_axis(costs.index)], axis=1)


def _short(value) -> str:
    """A number as read in a table: three digits, thousands set apart."""
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _about(pipeline: Pipeline) -> str:
    data = pipeline.dataset
    counts = ", ".join(f"{len(data.split(s))} {s}" for s in ("train", "val", "test"))
    labels = ", ".join(data.label_set.labels)
    text = f"{counts} images; labels: {labels}. Profile `{pipeline.profile.name}`."
    if pipeline.built_in:
        return text + (
            " These are results on built-in, drawn data: they say nothing about photographs or people "
            "(see the datasheet in `data/emoscenes/`)."
        )
    return text + (
        " TinyVLM, where it is the VLM, was made for drawn scenes and knows no photographs: expect "
        "modest numbers; they show that the method runs, not what it can reach."
    )
