"""Kept runs made in a second: made-up predictions under the keys that real ones have, no model."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import softmax

from emokd_utils.files import save_rows, save_tensors
from emokd_utils.predictions import Predictions
from emokd_utils.profiles import MINI, reduced
from emokd_utils.run import stages
from emokd_utils.run.card import CARD, CARD_FORMAT, portable_profile
from emokd_utils.run.run import Run
from emokd_utils.run.sources import ArchiveSource, FolderSource
from emokd_utils.run.store import Artefact, Store

CLASSES = ("calm", "eerie", "festive", "tense")
COSTS = {
    "parameters": [6_110_848, 11_037_440, 6_382_352],
    "ms per image": [14.4, 18.4, 15.1],
    "added parameters": [0, 4_926_592, 271_504],
    "added ms": [0.0, 4.0, 0.7],
}
SET_UPS = ["VLM alone", "VLM and vision model together", "EmoVLM-KD"]


def kept_run(folder: Path, seeds=(0,), each: int = 40, cues: bool = True) -> Run:
    """A run without images and models, as from an archive, of `each` val and test images."""
    labels = np.random.default_rng(0).integers(0, len(CLASSES), 2 * each)
    splits = ["test"] * each + ["val"] * each
    names = [CLASSES[y] for y in labels]
    ids = [f"{s}/{c}/{k}.png" for k, (s, c) in enumerate(zip(splits, names, strict=True))]
    columns = {"split": splits, "label": names}
    if cues:
        columns["cue"] = ["content" if k % 2 == 0 else "atmosphere" for k in range(2 * each)]
    card = {
        "format": CARD_FORMAT,
        "profile": asdict(portable_profile(MINI)),
        "seeds": list(seeds),
        "keys": {"vlm": "0" * 16, "data": "1" * 16, "metadata": "2" * 16},
        "files": {},
        "data": "made-up",
        "built_in": False,
        "labels": list(CLASSES),
        "ids": ids,
        "columns": columns,
        "pictures": "none",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")
    fill(Run(ArchiveSource(folder), folder, lambda line: None, progress=False), seeds)
    return Run(ArchiveSource(folder), folder, lambda line: None, progress=False, make=False)


def folder_run(home: Path, seeds=(0,), each: int = 3) -> Run:
    """A run on a folder of small images, with a caption each, that has its results already."""
    root, rows = home / "photos", []
    for split, count in (("train", each), ("val", each), ("test", 2 * each)):
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            for k in range(count):
                shade = (len(rows) * 7 % 256, 120, 40)
                image_id = f"{split}/{label}/{k}.png"
                Image.new("RGB", (40, 30), shade).save(root / image_id)
                rows.append({"file": image_id, "caption": f"a colour, number {len(rows)}"})
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    profile = reduced(MINI).changed(images_per_split=0)
    source = FolderSource(profile, root, home / "runs" / "checksums.json", False, None)
    run = Run(source, home / "runs" / "mini-photos", lambda line: None, progress=False)
    fill(run, seeds, heads=False)
    for seed in seeds:
        run.predictions(seed)  # heads and gates are trained, in a second
    return run


def fill(run: Run, seeds, heads: bool = True) -> None:
    """Keep results of every stage: the VLM tends to be right on images of even number, the vision
    model on the others."""
    rng, data = np.random.default_rng(0), run.dataset
    ids, labels, even = list(data.ids), data.label_index, np.arange(len(data)) % 2 == 0

    def keep(artefact, make):
        recipe = replace(artefact.recipe, make=make, load=lambda at: at, needs=())
        Artefact(Store(run.folder, lambda line: None), artefact.stage, recipe).value  # noqa: B018

    def logits(right_on, strength=2.5):
        drawn = rng.normal(size=(len(ids), len(data.label_set))).astype(np.float32)
        drawn[right_on, labels[right_on]] += strength
        return drawn

    def answers(artefact, drawn, *splits):
        kept = artefact.recipe.inputs["data"]
        part = run.part(*splits) if splits else data
        assert part.fingerprint == kept, "the images that the stage is about"
        rows = [ids.index(image_id) for image_id in part.ids]
        written = Predictions(
            part.ids,
            tuple(part.table["split"]),
            part.labels,
            tuple(data.label_set),
            softmax(drawn[rows].astype(float), axis=1),
            answers=tuple(
                f"{{'emotion': '{list(data.label_set)[k]}'}}" for k in drawn[rows].argmax(1)
            ),
            provenance={"model": "tiny_vlm", "prompt": "Which emotion?"},
        )
        keep(artefact, lambda to: written.save(to / "predictions.csv"))

    def rows(artefact, drawn, name="logits"):
        keep(artefact, lambda to: save_rows(to / f"{name}.safetensors", ids, drawn))

    rows(
        run.artefact(stages.features), rng.normal(size=(len(ids), 6)).astype(np.float32), "features"
    )
    answers(run.artefact(stages.zero_shot, "score"), logits(even, 1.0), "val", "test")
    for seed in seeds:
        vlm, vision, head = logits(even), logits(~even), logits(~even, 2.0)
        answers(run.artefact(stages.tuned, seed, "score"), vlm)
        answers(run.artefact(stages.tuned, seed, "generate"), vlm, "test")
        rows(run.artefact(stages.teacher_logits, seed, ""), vision)
        for alpha, drawn in ((None, head), (0.0, head * 0.5)) if heads else ():
            rows(run.artefact(stages.head_logits, seed, *run.head_settings(alpha)), drawn)
        for settings in gates_of(run) if heads else ():
            side = vision if settings[-1] == "vision" else head
            both = softmax(side, axis=1) + softmax(vlm, axis=1)
            keep(run.artefact(stages.gate, seed, *settings), about_gate(settings))
            keep(run.artefact(stages.gate_logits, seed, *settings), answers_of_gate(ids, both))
        keep(run.artefact(stages.cost_table, seed), write_costs)
        keep(run.artefact(stages.adapter, seed), write_log)
        keep(run.artefact(stages.vision_model, seed, ""), write_history)


def gates_of(run: Run) -> list[tuple]:
    gates = [(*run.gate_settings(kind), "head") for kind in run.profile.gates]
    published = ("concat_linear", "logits_onehot", "train", "head")
    return [*gates, (*run.gate_settings(), "vision"), published]


def answers_of_gate(ids, logits):
    def make(to: Path) -> None:
        save_rows(to / "logits.safetensors", ids, logits.astype(np.float32))
        save_rows(to / "shares.safetensors", ids, np.full((len(ids), 2), 0.5, np.float32))
        (to / "gate.txt").write_text("a gate")

    return make


def about_gate(settings):
    """A gate's file without a gate in it."""
    return lambda to: save_tensors(to / "gate.safetensors", {}, list(settings), "no gate")


def write_costs(to: Path) -> None:
    (to / "costs.csv").write_text(pd.DataFrame(COSTS, SET_UPS).to_csv())


def write_log(to: Path) -> None:
    (to / "tuning.json").write_text(json.dumps({"log": [{"step": 25, "loss": 1.5}]}))


def write_history(to: Path) -> None:
    epochs = [{"epoch": k, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5} for k in (1, 2)]
    (to / "model.json").write_text(json.dumps({"history": epochs, "best_epoch": 2}))
