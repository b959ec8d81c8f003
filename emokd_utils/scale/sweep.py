"""When does it pay? The mini pipeline over worlds and conditions, one dial at a time (appendix A2).

A condition changes one thing of the base: what leads the images, how many there are, how wrong their
labels are, how good each of the two models is, or what both fail to learn. Each has a folder of images
and a run of its own below one folder, kept and resumed like any run; points of several conditions are
made side by side, since training a small model does not fill two cores."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..complementarity import four_way
from ..evidence import bootstrap, percentile_interval
from ..files import write_text
from ..lazy import lazy
from ..predictions import ORACLE, TUNED, VISION
from ..profiles import MINI, Profile, project_root
from ..run.results import Results
from ..run.run import Run
from ..run.sources import FolderSource
from ..world.files import ensure_scenes
from ..world.scenes import SEED, World

training = lazy("training")

TABLE = project_root() / "data" / "sweep.csv"
TRAIN, VAL, TEST = 800, 400, 1200
COLUMNS = "condition value quantity estimate low high n seeds".split()


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
    """All points: the base, and each dial turned while the others stay."""
    yield Point("base", "")
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        yield Point("content", f"{share:g}", World(content=share))
    for count in (200, 400, 1600, 3200):
        yield Point("train images", str(count), train=count)
    for noise in (0.0, 0.1, 0.2, 0.3):
        yield Point("label noise", f"{noise:g}", World(label_noise=noise))
    for epochs in (1, 4, 8, 40):
        yield Point("vision epochs", str(epochs), changes={"vision": {"epochs": epochs}})
    yield Point("VLM", "untuned", changes={"tuning": {"lr": 1e-9, "epochs": 1}})
    yield Point("VLM", "categorical", changes={"tuning": {"kinds": ("categorical",)}})
    yield Point("learnt content", "1", World(learnt_content=1.0))
    yield Point("learnt content", "0", World(learnt_content=0.0))


def measured(point: Point, runs: Path, seeds: Sequence[int], threads: int = 0) -> pd.DataFrame:
    """Rows of the table for one point: accuracy of every model, shares of the four-way table and the
    share of the gap that EmoVLM-KD recovers, each with its interval over images (of the gap: and
    seeds together). Trains what is not kept."""
    with training.seeded(0, threads):
        results = Results(point.run(runs), seeds)
    rows = [(m, *bootstrap(results.correct(m).mean(0))[:3]) for m in [*results.models, ORACLE]]
    tuned, vision = results.correct(TUNED), results.correct(VISION)  # (seeds, n)
    for name, cell in vars(four_way(tuned.ravel(), vision.ravel())).items():
        rows.append((f"share {name}", cell / tuned.size, np.nan, np.nan))
    final, top = results.correct(results.final), tuned | vision
    draws = np.random.default_rng(0).integers(0, tuned.shape[1], (2000, tuned.shape[1]))

    def gap(images: np.ndarray | slice) -> float:
        better = np.maximum(tuned[:, images].mean(1), vision[:, images].mean(1))
        room = top[:, images].mean(1) - better
        return float(
            np.mean((final[:, images].mean(1) - better) / np.where(room > 0, room, np.nan))
        )

    shares = np.array([gap(images) for images in draws])
    rows.append(("gap recovered", gap(slice(None)), *percentile_interval(shares)[:2]))
    table = pd.DataFrame(rows, columns=COLUMNS[2:6])
    table.insert(0, "value", point.value)
    table.insert(0, "condition", point.condition)
    return table.assign(n=tuned.shape[1], seeds=len(seeds))


def sweep(runs: Path, seeds: Sequence[int], processes: int, to: Path = TABLE) -> pd.DataFrame:
    """Every point, several at a time, and the table of all into a CSV file."""
    chosen, done = list(points()), {}
    cores = training.torch.get_num_threads()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        threads = max(1, cores // processes)
        tasks = {pool.submit(measured, p, runs, seeds, threads): k for k, p in enumerate(chosen)}
        for task in as_completed(tasks):
            number = tasks[task]
            done[number] = task.result()
            point = chosen[number]
            print(f"[{len(done)}/{len(chosen)}] {point.condition} {point.value}", flush=True)
    table = pd.concat([done[number] for number in range(len(chosen))])
    write_text(to, table.round(4).to_csv(index=False))
    return table
