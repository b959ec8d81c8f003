"""Made-up pictures and predictions, and runs that have them under real keys: no model, a second."""

import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import softmax

from emokd_utils.files import save_rows
from emokd_utils.predictions import EMOVLM_KD, TOGETHER, VLM_ALONE, Predictions
from emokd_utils.profiles import MINI, reduced
from emokd_utils.run import stages
from emokd_utils.run.run import Run
from emokd_utils.run.sources import FolderSource
from emokd_utils.run.store import Artefact, Recipe, Store

PROFILE = reduced(MINI).changed(images_per_split=0)
CLASSES = ("calm", "eerie", "festive", "tense")
COSTS = pd.DataFrame(
    {
        "parameters": [6_110_848, 11_037_440, 6_382_352],
        "ms per image": [14.4, 18.4, 15.1],
        "added parameters": [0, 4_926_592, 271_504],
        "added ms": [0.0, 4.0, 0.7],
    },
    [VLM_ALONE, TOGETHER, EMOVLM_KD],
)
LOG = {"log": [{"step": 25, "loss": 1.5}]}
EPOCHS = [{"epoch": k, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5} for k in (1, 2)]
HISTORY = {"history": EPOCHS, "best_epoch": 2}


def noise(seed, size=(8, 6)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def picture(path: Path, seed: int | None = None, **options) -> Path:
    """Noise saved at ``path``; without a seed one that no other of a data set has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = zlib.crc32("/".join(path.parts[-3:]).encode()) if seed is None else seed
    noise(own).save(path, **options)
    return path


def made(predicted, labels, confidence=1.0, classes=CLASSES, ids=None) -> Predictions:
    """Predictions of these classes ('' for an invalid answer), all equally confident."""
    rest = (1 - confidence) / (len(classes) - 1)
    named = np.array(predicted, dtype=str)[:, None] == list(classes)
    rows, invalid = np.where(named, confidence, rest), ~named.any(axis=1)
    rows[invalid] = 1 / len(classes)
    ids = ids or [f"{k}.png" for k in range(len(labels))]
    return Predictions(ids, ["test"] * len(ids), labels, classes, rows, invalid=invalid)


def folder_run(home: Path, seeds=(0,), each: int = 3, cues: bool = False) -> Run:
    """A run on a folder of small images, with a caption each, that has its results already."""
    root, rows = home / "photos", []
    for split, count in (("train", each), ("val", each), ("test", 2 * each)):
        for label in CLASSES:
            for k in range(count):
                image_id = f"{split}/{label}/{k}.png"
                picture(root / image_id)
                rows.append({"file": image_id, "caption": f"a colour, number {len(rows)}"})
                if cues:
                    rows[-1]["cue"] = ("content", "atmosphere")[k % 2]
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    source = FolderSource(PROFILE, root, home / "runs" / "checksums.json", False, None)
    run = Run(source, home / "runs" / "mini-photos", lambda line: None, progress=False)
    fill(run, seeds)
    for seed in seeds:
        run.predictions(seed)  # heads and gates are trained, in a second
    return run


def fill(run: Run, seeds) -> None:
    """Keep results of every stage that needs a model: the VLM tends to be right on images of even
    number, the vision model on the others."""
    rng, data = np.random.default_rng(0), run.dataset
    ids, labels, even = list(data.ids), data.label_index, np.arange(len(data)) % 2 == 0

    def keep(artefact, make):
        recipe = Recipe(artefact.header["inputs"], make, lambda at: at, artefact.recipe.label)
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

    def text(artefact, name, content):
        keep(artefact, lambda to: (to / name).write_text(content))

    def rows(artefact, drawn, name="logits"):
        keep(artefact, lambda to: save_rows(to / f"{name}.safetensors", ids, drawn))

    features = rng.normal(size=(len(ids), 6)).astype(np.float32)
    rows(run.artefact(stages.features), features, "features")
    answers(run.artefact(stages.zero_shot, "score"), logits(even, 1.0), "val", "test")
    for seed in seeds:
        vlm, vision = logits(even), logits(~even)
        answers(run.artefact(stages.tuned, seed, "score"), vlm)
        answers(run.artefact(stages.tuned, seed, "generate"), vlm, "test")
        rows(run.artefact(stages.teacher_logits, seed, ""), vision)
        text(run.artefact(stages.cost_table, seed), "costs.csv", COSTS.to_csv())
        text(run.artefact(stages.adapter, seed), "tuning.json", json.dumps(LOG))
        text(run.artefact(stages.vision_model, seed, ""), "model.json", json.dumps(HISTORY))
