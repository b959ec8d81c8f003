"""When does it pay? The mini pipeline over worlds and conditions, one dial at a time (appendix A2).

A condition changes one thing of the base: what leads the images, how many there are, how wrong their
labels are, how good each of the two models is, or what both fail to learn. One condition more is of
the vision model alone (lesson 2). Each point has a folder of images and a run of its own below one
folder, kept and resumed like any run. Points are made side by
side, since training a small model does not fill two cores. The table is kept too: a point whose key
is in it is not made again, so the one that came with the course goes on where it ends."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..evidence import RESAMPLES, Estimate, bootstrap, percentile_interval
from ..files import fingerprint, write_text
from ..forecast import BETTER, BOTH_GAIN, GAIN, LEAD, TABLE, better_of, lead, sweep_table
from ..lazy import lazy
from ..predictions import (
    AVERAGE,
    BOTH_RUN,
    HEAD,
    HEAD_PLAIN,
    ORACLE,
    PROBE,
    PUBLISHED,
    REGRESSION,
    TUNED,
    VISION,
    versions,
)
from ..profiles import MINI, Profile
from ..run import stages
from ..run.results import Results
from ..run.run import Run
from ..run.sources import FolderSource
from ..run.store import Stage
from ..world.files import ensure_scenes
from ..world.scenes import SEED, World

training = lazy("training")

TRAIN, VAL, TEST = 400, 400, 800
PRETRAINED = replace(MINI.vision.of("tf_efficientnet_lite0@package"), image_size=112, epochs=8)
COLUMNS = "condition value key quantity estimate low high n seeds".split()
STAGES = {name: stage.version for name, stage in vars(stages).items() if isinstance(stage, Stage)}


@dataclass(frozen=True)
class Point:
    """One setting of one dial. train: number of training images. changes: of the profile `mini`."""

    condition: str
    value: str
    world: World = World()
    train: int = TRAIN
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        """`mini` with one gate, and what the point changes."""
        return MINI.changed(name="sweep", gates=("concat_linear",), **self.changes)

    def key(self, seeds: Sequence[int]) -> str:
        """By which its rows are known: of all that they depend on."""
        made_by = [asdict(self), asdict(self.profile), STAGES, VAL, TEST, list(seeds)]
        return fingerprint(made_by)[:12]

    def run(self, runs: Path) -> Run:
        """The point's run; its images are drawn where they are not there."""
        world = self.world
        name = f"content{world.content:g}-{world.learnt_content}-noise{world.label_noise:g}"
        sizes = {"train": self.train, "val": VAL, "test": TEST}
        root = ensure_scenes(
            runs / "worlds" / f"{name}-{self.train}", SEED, sizes, lambda line: None, world
        )
        source = FolderSource(self.profile, root, runs / "checksums.json", False, None)
        return Run(source, runs / root.name, lambda line: None, progress=False)


def points() -> Iterator[Point]:
    """All points: the base, and each dial turned while the others stay; the longest last."""
    yield Point("base", "")
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        yield Point("content", f"{share:g}", World(content=share))
    for noise in (0.0, 0.1, 0.2, 0.3):
        yield Point("label noise", f"{noise:g}", World(label_noise=noise))
    for epochs in (1, 4, 8, 40):
        yield Point("vision epochs", str(epochs), changes={"vision": {"epochs": epochs}})
    yield Point("VLM", "untuned", changes={"tuning": {"lr": 1e-9, "epochs": 1}})
    yield Point("VLM", "categorical", changes={"tuning": {"kinds": ("categorical",)}})
    yield Point("learnt content", "1", World(learnt_content=1.0))
    yield Point("learnt content", "0", World(learnt_content=0.0))
    for count in (100, 200, 400, 800, 1600):
        changes = {"vision": asdict(PRETRAINED)}
        yield Point("pretrained vision model", str(count), train=count, changes=changes)
    for count in (200, 800, 1600, 3200):
        yield Point("train images", str(count), train=count)


def measured(point: Point, runs: Path, seeds: Sequence[int], threads: int = 0) -> pd.DataFrame:
    """Rows of the table for one point. Trains what is not kept.

    Of all seeds together, with intervals over images: the accuracy of every model, the shares of the
    four-way table, differences on the same images, and "gap recovered", the share of the gap to the
    oracle. Of each seed: LEAD and BETTER on val, GAIN and BOTH_GAIN over the model that is better on
    val, and "<model> on test". Of a pretrained vision model: its accuracy and its probe's alone."""
    with training.seeded(0, threads):
        run = point.run(runs)
        if point.profile.vision.weights:
            parts = [(_joined(seeds), _fine_tuning(run, seeds))]
        else:
            results = Results(run, seeds)
            singles = [(str(seed), _single(run, results, seed)) for seed in seeds]
            parts = [(_joined(seeds), _pooled(results)), *singles]
    table = pd.DataFrame(
        [(quantity, *ends, of) for of, made in parts for quantity, ends in made.items()],
        columns=COLUMNS[3:],
    )
    about = {"condition": point.condition, "value": point.value, "key": point.key(seeds)}
    return table.assign(**about)[COLUMNS]


def _joined(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))


def _fine_tuning(run: Run, seeds: Sequence[int]) -> dict[str, Estimate]:
    tuned, probe = (
        np.mean([run.vision_predictions(s, name).split("test").correct for s in seeds], axis=0)
        for name in ("", PROBE)
    )
    pairs = {VISION: tuned, PROBE: probe, f"{VISION} minus its probe": tuned - probe}
    return {name: bootstrap(values) for name, values in pairs.items()}


def _pooled(results: Results) -> dict[str, Estimate]:
    rows = {model: bootstrap(results.correct(model).mean(0)) for model in [*results.models, ORACLE]}
    tuned, vision = results.correct(TUNED), results.correct(VISION)  # (seeds, n) each
    cells = {"both": tuned & vision, "only_a": tuned & ~vision, "only_b": vision & ~tuned}
    for name, inside in (cells | {"neither": ~(tuned | vision)}).items():
        rows[f"share {name}"] = bootstrap(inside.mean(0))
    rows |= {name: bootstrap(paired) for name, paired in _differences(results).items()}
    return rows | {"gap recovered": _gap_recovered(results)}


def _single(run: Run, results: Results, seed: int) -> dict[str, Estimate]:
    val = run.tuned(seed).split("val"), run.vision_predictions(seed).split("val")
    test, better = results.predictions[seed], better_of(*val)
    name = TUNED if better is val[0] else VISION
    right = {model: test[model].correct.astype(float) for model in test}
    rows = {LEAD: lead(*val), BETTER: bootstrap(better.correct)}
    for gain, model in ((GAIN, results.final), (BOTH_GAIN, BOTH_RUN)):
        rows[gain] = bootstrap(right[model] - right[name])
    shown = (TUNED, VISION, HEAD, results.final)
    return rows | {f"{model} on test": bootstrap(right[model]) for model in shown}


def _differences(results: Results) -> dict[str, np.ndarray]:
    """Of each image (n,), the mean over seeds of one model right minus another right; the better of
    two is that of the seed."""
    right = {model: results.correct(model).astype(float) for model in results.models}  # (seeds, n)

    def better(*models: str) -> np.ndarray:
        sides = np.stack([right[model] for model in models])  # (models, seeds, n)
        return sides[sides.mean(2).argmax(0), np.arange(sides.shape[1])]

    final = right[results.final]
    pairs = {
        "gate minus its better side": (final, better(HEAD, TUNED)),
        "EmoVLM-KD minus the better model": (final, better(TUNED, VISION)),
        "EmoVLM-KD minus the average": (final, right[AVERAGE]),
        "EmoVLM-KD minus the regression": (final, right[REGRESSION]),
        "EmoVLM-KD minus both run": (final, right[BOTH_RUN]),
        "head minus head without a teacher": (right[HEAD], right[HEAD_PLAIN]),
        "gate trained on train minus gate trained on val": (right[PUBLISHED], final),
    }
    return {name: (a - b).mean(0) for name, (a, b) in pairs.items()}


def _gap_recovered(results: Results) -> Estimate:
    tuned, vision = results.correct(TUNED), results.correct(VISION)  # (seeds, n) each
    final, top = results.correct(results.final), tuned | vision
    n = tuned.shape[1]

    def gap(images: np.ndarray | slice) -> float:
        better = np.maximum(tuned[:, images].mean(1), vision[:, images].mean(1))
        room = top[:, images].mean(1) - better
        shares = (final[:, images].mean(1) - better) / np.where(room > 0, room, np.nan)
        return float(np.mean(shares))

    draws = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    ends = percentile_interval(np.array([gap(images) for images in draws]))
    return Estimate(gap(slice(None)), *ends, n)


def kept(seeds: Sequence[int], to: Path) -> dict[int, pd.DataFrame]:
    """The rows of a table that are still those of a point, by the point's number."""
    if not to.is_file():
        return {}
    by_key = dict(list(sweep_table(to).groupby("key", sort=False)))
    keys = {number: point.key(seeds) for number, point in enumerate(points())}
    return {number: by_key[key] for number, key in keys.items() if key in by_key}


def sweep(runs: Path, seeds: Sequence[int], processes: int, to: Path = TABLE) -> pd.DataFrame:
    """Every point, several at a time, into a CSV file after each one, with a .json beside that says
    what made it."""
    chosen, done = list(points()), kept(seeds, to)
    threads = max(1, training.torch.get_num_threads() // processes)
    command = f"python -m emokd_utils sweep --seeds {len(seeds)}"
    sizes = {"train": TRAIN, "val": VAL, "test": TEST}
    about = {"command": command, "images": sizes, "stages": STAGES, "versions": versions()}
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        left = [number for number in range(len(chosen)) if number not in done]
        tasks = {pool.submit(measured, chosen[k], runs, seeds, threads): k for k in left}
        for task in as_completed(tasks):
            number = tasks[task]
            done[number] = task.result()
            table = pd.concat([done[k] for k in sorted(done)])
            write_text(to, table.round(4).to_csv(index=False))
            write_text(to.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
            point = chosen[number]
            print(f"[{len(done)}/{len(chosen)}] {point.condition} {point.value}", flush=True)
    return pd.concat([done[number] for number in sorted(done)])
