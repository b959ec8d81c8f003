"""The run that comes with the course: what the built-in run has kept, so far as it is small.

``ship`` packs it into ``data/mini_run``, a zip for each artefact, from which `run.store` unpacks what
is asked for. The vision models stay behind (lesson 2 trains one), and what takes a moment: the logits
of the gates that no lesson opens with, and heads of which only the logits are shown."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ..files import write_text
from ..predictions import versions
from ..run import stages
from ..run.run import Run
from ..run.sources import SHIPPED
from ..run.store import CAME, MANIFEST, Artefact

SEEDS = (0, 1, 2)


def ship(run: Run, seeds: Sequence[int] = SEEDS, folder: Path = SHIPPED) -> Path:
    """Make what is missing of a run's results and pack them into a folder; those that are there under
    the same key stay as they are, older ones go. Returns the folder."""
    first, *_ = seeds
    for seed in seeds:
        run.predictions(seed)
    run.costs(first), run.tuned(first, "generate"), run.explanations(first), run.reasons(first)
    head = run.artefact(stages.head, first, *run.head_settings())
    opened = [
        run.artefact(stages.gate_logits, seed, *run.gate_settings(), side)
        for seed in seeds
        for side in ("head", "vision")
    ]
    chosen = {
        f"{artefact.folder.name}.zip": artefact
        for artefact in run.artefacts.values()
        if artefact.is_kept
        and artefact.stage not in (stages.scanned, stages.vision_model)
        and (artefact.stage is not stages.head or artefact is head)
        and (artefact.stage is not stages.gate_logits or artefact in opened)
    }
    folder.mkdir(parents=True, exist_ok=True)
    for old in {path.name for path in folder.glob("*.zip")} - chosen.keys():
        (folder / old).unlink()
    fresh = {name: artefact for name, artefact in chosen.items() if not (folder / name).exists()}
    if fresh:
        made = f"of {date.today()}, {_machine()}"
        for name, artefact in fresh.items():
            _pack(artefact, made, folder / name)
        write_text(folder / "README.md", _readme(run, seeds, made))
    return folder


def _pack(artefact: Artefact, made: str, to: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "whole"
        shutil.copytree(artefact.folder, copy)
        manifest = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
        write_text(copy / MANIFEST, json.dumps(manifest | {CAME: made}, indent=1) + "\n")
        shutil.make_archive(str(to.with_suffix("")), "zip", copy)


def _machine() -> str:
    return f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"


def _readme(run: Run, seeds: Sequence[int], made: str) -> str:
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"""# The run that comes with the course

Results of the profile `{run.profile.name}` on {run.source.name}, seeds {", ".join(map(str, seeds))}:
predictions, features, logits of the vision models, adapters, a head, gates, costs, maps and reasons.
Each is a zip, unpacked when a lesson asks for it and `runs/` holds nothing of the kind. Not in it are
the vision models' weights (lesson 2 trains one) and the images (EmoScenes draws them).

The newest {made}, with {used};
`artefact.json` in each zip says how it was made.

    python -m emokd_utils run --shipped    # its table
    python -m emokd_utils run --seeds 3    # trains anew, and compares
    python -m emokd_utils ship             # writes this folder, as a new version of a stage demands
"""
