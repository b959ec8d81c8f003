"""A kept run made in a second: made-up predictions under the keys that a real run has, no model."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from emokd_utils.files import save_rows, save_tensors
from emokd_utils.predictions import Predictions
from emokd_utils.profiles import MINI
from emokd_utils.run import looks, stages
from emokd_utils.run.card import CARD, CARD_FORMAT, portable_profile
from emokd_utils.run.run import Run
from emokd_utils.run.sources import ArchiveSource
from emokd_utils.run.store import Artefact, Store

CLASSES = ("anger", "awe", "fear", "sadness")
COSTS = {
    "parameters": [6_110_848, 11_037_440, 6_382_352],
    "ms per image": [14.4, 18.4, 15.1],
    "added parameters": [0, 4_926_592, 271_504],
    "added ms": [0.0, 4.0, 0.7],
}


def kept_run(folder: Path, seeds=(0,), each: int = 40, cues: bool = True) -> Run:
    """A run of `each` val and test images: content-led ones on which the VLM tends to be right, and
    atmosphere-led ones on which the vision model does. It has results and no models."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), 2 * each)
    splits = ["test"] * each + ["val"] * each
    ids = [
        f"{split}/{CLASSES[y]}/{k}.png"
        for k, (split, y) in enumerate(zip(splits, labels, strict=True))
    ]
    content = np.arange(2 * each) % 2 == 0
    columns = {"split": splits, "label": [CLASSES[y] for y in labels]}
    if cues:
        columns["cue"] = ["content" if led else "atmosphere" for led in content]
    write_card(folder, seeds, ids, columns)
    run = Run(ArchiveSource(folder), folder, lambda line: None, progress=False)

    def logits(right_on, strength=2.5):
        drawn = rng.normal(size=(2 * each, len(CLASSES))).astype(np.float32)
        drawn[right_on, labels[right_on]] += strength
        return drawn

    def answers(to, drawn, wanted=None):
        said = Predictions(
            tuple(ids),
            tuple(splits),
            tuple(columns["label"]),
            CLASSES,
            softmax(drawn.astype(float), axis=1),
            answers=tuple(f"{{'emotion': '{CLASSES[k]}'}}" for k in drawn.argmax(1)),
            provenance={"model": "tiny_vlm", "prompt": "Which emotion?"},
        )
        (said if wanted is None else said.split(wanted)).save(to / "predictions.csv")

    def keep(artefact, make):
        store = Store(folder, lambda line: None)
        recipe = replace(artefact.recipe, make=make, load=lambda at: at)
        return Artefact(store, artefact.stage, recipe).value

    def rows(artefact, drawn):
        keep(artefact, lambda to: save_rows(to / "logits.safetensors", ids, drawn))

    vlm = {seed: logits(content) for seed in seeds}
    keep(run.artefact(stages.zero_shot, "score"), lambda to: answers(to, logits(content, 1.0)))
    for seed in seeds:
        vision, head = logits(~content), logits(~content, 2.0)
        tuned = run.artefact(stages.tuned, seed, "score")
        keep(tuned, lambda to, seed=seed: answers(to, vlm[seed]))
        generated = run.artefact(stages.tuned, seed, "generate")
        keep(generated, lambda to, seed=seed: answers(to, vlm[seed], "test"))
        rows(run.artefact(stages.teacher_logits, seed, ""), vision)
        rows(run.artefact(stages.head_logits, seed, *run.head_settings()), head)
        rows(run.artefact(stages.head_logits, seed, *run.head_settings(alpha=0.0)), head * 0.5)
        gates = [(*run.gate_settings(kind), "head") for kind in MINI.gates]
        gates += [(*run.gate_settings(), "vision")]
        gates += [("concat_linear", "logits_onehot", "train", "head")]
        for settings in gates:
            side = vision if settings[-1] == "vision" else head
            both = softmax(side, axis=1) + softmax(vlm[seed], axis=1)
            shares = np.full((2 * each, 2), 0.5, np.float32)

            def gate(to, both=both, shares=shares):
                save_rows(to / "logits.safetensors", ids, both.astype(np.float32))
                save_rows(to / "shares.safetensors", ids, shares)

            keep(run.artefact(stages.gate, seed, *settings), about_gate(settings, each))
            keep(run.artefact(stages.gate_logits, seed, *settings), gate)
        keep(run.artefact(looks.cost_table, seed), write_costs)
    return Run(ArchiveSource(folder), folder, lambda line: None, progress=False, make=False)


def about_gate(settings, rows):
    """A gate's file without a gate in it: what the report reads is beside the weights."""
    _, mode, split, _ = settings
    about = {
        "settings": {"inputs": mode},
        "rows": rows,
        "trained_on": split,
        "passed_through": None,
    }
    return lambda to: save_tensors(to / "gate.safetensors", {}, about, "emokd-gate-1")


def write_costs(to: Path) -> None:
    names = ["VLM alone", "VLM and vision model together", "EmoVLM-KD"]
    (to / "costs.csv").write_text(pd.DataFrame(COSTS, names).to_csv())


def write_card(folder: Path, seeds, ids, columns) -> None:
    folder.mkdir(parents=True, exist_ok=True)
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
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")
