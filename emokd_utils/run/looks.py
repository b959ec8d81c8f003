"""Stages that show what was trained: what an answer costs, where the models looked, and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import maps
from ..files import fingerprint, write_text
from ..lazy import lazy
from . import stages
from .store import Artefact, Recipe, stage

costs = lazy("costs")
explanations = lazy("explanations")
gates = lazy("gates")
instructions = lazy("instructions")


def tuned_and_vision(run, seed: int) -> tuple[Artefact, Artefact]:
    """What both models are: the VLM's adapter, and the vision model."""
    return run.artefact(stages.adapter, seed), run.artefact(stages.vision_model, seed, "")


@stage(1, "costs.csv")
def cost_table(run, seed: int) -> Recipe[pd.DataFrame]:
    """What an answer costs on this machine: `costs.compare` on one test image at a time."""
    trained = run.artefact(stages.gate, seed, *run.gate_settings(), "head")

    def make(to: Path) -> None:
        vlm, model, classes = run.tuned_vlm(seed), run.vision(seed), run.dataset.label_set
        part = run.part("test")
        image, prompt = part.open(part.ids[0]), instructions.categorical_prompt(classes)
        seen, known = vlm.features([image]), np.full((1, len(classes)), 1 / len(classes))
        distilled, mode = run.head(seed), trained.value.settings.inputs

        def head_and_gate() -> None:
            one_hot = np.eye(len(classes))[:1]
            trained.value.logits(*gates.gate_inputs(distilled.logits(seen), known, one_hot, mode))

        table = costs.compare(
            costs.Part(
                lambda: vlm.score([image], prompt, [*map(instructions.answer_for, classes)]),
                (vlm.model,),
                costs.count_parameters(vlm.model, trained="lora_").trained,
            ),
            costs.Part(lambda: model.image_logits([image]), (model.network,)),
            costs.Part(head_and_gate, (distilled.head, trained.value.gate)),
        )
        write_text(to / "costs.csv", table.to_csv())

    def load(at: Path) -> pd.DataFrame:
        return pd.read_csv(at / "costs.csv", index_col=0)

    needs = (trained, *tuned_and_vision(run, seed))
    names = ("gate", "adapter", "vision")
    inputs = {name: need.key for name, need in zip(names, needs, strict=True)}
    return Recipe(inputs, make, load, f"seed{seed}", needs)


@stage(1, "maps.safetensors")
def explained(run, seed: int) -> Recipe[dict]:
    """Test image -> name -> map of where a model looked for the image's label."""
    part, chosen = run.part("test"), run.explained_ids()

    def make(to: Path) -> None:
        vlm, model, classes = run.tuned_vlm(seed), run.vision(seed), part.label_set
        bar = tqdm(chosen, "explanations", unit="image", disable=not run.progress)
        by_image = {
            image_id: explanations.explain(
                part.open(image_id), part.table.loc[image_id, "label"], vlm, model, classes
            )
            for image_id in bar
        }
        maps.save_explanations(to / "maps.safetensors", by_image)

    def load(at: Path) -> dict:
        return maps.load_explanations(at / "maps.safetensors")

    adapter, vision = tuned_and_vision(run, seed)
    inputs = {"adapter": adapter.key, "vision": vision.key}
    inputs |= {"data": part.fingerprint, "images": fingerprint(chosen)}
    return Recipe(inputs, make, load, f"seed{seed}", (adapter, vision))


@stage(1, "reasons.json")
def reasons(run, seed: int) -> Recipe[dict[str, str]]:
    """Test image -> the tuned VLM's reasons, in its words."""
    part, chosen = run.part("test"), run.reasoned_ids(seed)

    def make(to: Path) -> None:
        vlm, size, written = run.tuned_vlm(seed), run.profile.vlm.batch_size, {}
        starts = range(0, len(chosen), size)
        for start in tqdm(starts, "reasons", unit="batch", disable=not run.progress):
            batch = chosen[start : start + size]
            texts = vlm.reasons([part.open(image_id) for image_id in batch])
            written |= {k: " ".join(text.split()) for k, text in zip(batch, texts, strict=True)}
        write_text(to / "reasons.json", json.dumps(written, indent=1))

    def load(at: Path) -> dict[str, str]:
        return json.loads((at / "reasons.json").read_text(encoding="utf-8"))

    adapter, _ = tuned_and_vision(run, seed)
    inputs = {"adapter": adapter.key, "vlm": run.source.vlm_key}
    inputs |= {"data": part.fingerprint, "images": fingerprint(chosen)}
    return Recipe(inputs, make, load, f"seed{seed}", (adapter,))
