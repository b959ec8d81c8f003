"""The run that comes with the course: what the built-in run has kept, so far as it is small.

``ship`` packs it into ``data/mini_run``, a zip for each artefact, from which `run.store` unpacks what
is asked for. The vision models stay behind (lesson 2 trains one), what takes a moment (logits of the
gates that no lesson opens with, the regression), and of all seeds but the first the models that only
their answers are shown of: adapter and head."""

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

SEEDS = (0, 1, 2, 3, 4)


def ship(run: Run, seeds: Sequence[int] = SEEDS, folder: Path = SHIPPED) -> Path:
    """Make what is missing of a run's results and pack them into a folder; those that are there under
    the same key stay as they are, older ones go. Returns the folder."""
    first, *_ = seeds
    for seed in seeds:
        run.predictions(seed)
    run.costs(first), run.tuned(first, "generate"), run.explanations(first), run.reasons(first)
    whole = [
        run.artefact(stages.adapter, first),
        run.artefact(stages.head, first, *run.head_settings()),
        *(run.artefact(stages.gate_logits, s, *run.gate_settings(), "head") for s in seeds),
    ]
    behind = {stages.scanned, stages.vision_model, stages.regression}
    some = {artefact.stage for artefact in whole}
    names = {f"{artefact.folder.name}.zip": artefact for artefact in run.artefacts.values()}
    chosen = {
        name: artefact
        for name, artefact in names.items()
        if artefact.is_kept or (folder / name).exists()
        if artefact.stage not in behind and (artefact.stage not in some or artefact in whole)
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
    python -m emokd_utils run --seeds 5    # trains anew, and compares
    python -m emokd_utils ship             # writes this folder, as a new version of a stage demands
"""
