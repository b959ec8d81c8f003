"""The stages: what each depends on, how it is made, how it is loaded.

A stage is a function of a run and of arguments that gives a `Recipe`; with it go its version and
the files that may travel. Raise the version whenever what a stage computes changes: the numbers of
a small run, kept beside the tests, tell when that was forgotten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import maps, processes
from ..data import ImageDataset
from ..files import fingerprint, load_rows, save_rows, write_text
from ..folders import list_files
from ..lazy import lazy
from ..predictions import PROBE, Predictions
from ..scan import ScanReport, scan
from ..world.describe import describe_scene
from .store import Artefact, Recipe, stage

costs = lazy("costs")
distillation = lazy("distillation")
explanations = lazy("explanations")
gates = lazy("gates")
gating = lazy("gating")
instructions = lazy("instructions")
tuning = lazy("tuning")
vision = lazy("vision")

HOW_IT_IS_TUNED = ("recompute", "checkpoint_steps", "cache_megabytes", "instructions")
"""Fields of TuningSettings that do not change the result, or are in the key by content."""


@stage(1)
def scanned(run) -> Recipe[ScanReport]:
    """What is wrong with the folder of images."""
    return Recipe(
        {"listing": list_files(run.root).fingerprint},
        lambda to: write_text(to / "scan.json", scan(run.root).to_json()),
        lambda at: ScanReport.from_json((at / "scan.json").read_text(encoding="utf-8")),
    )


@stage(1, "features.safetensors", together=True)
def features(run) -> Recipe[np.ndarray]:
    """(n, d) float32: the frozen visual encoder's mean-pooled output of every image."""
    ids = run.dataset.ids

    def make(to: Path) -> None:
        rows = run.base.dataset_features(run.dataset, run.progress)
        save_rows(to / "features.safetensors", ids, rows)

    inputs = {"vlm": run.source.vlm_key, "data": run.dataset.fingerprint}
    return Recipe(inputs, make, lambda at: load_rows(at / "features.safetensors", ids))


@stage(1, "model.json", has_weights=True)
def vision_model(run, seed: int, further: str = "") -> Recipe:
    """The fine-tuned vision model: the teacher, or a further one, ``name`` or ``name@weights``; or
    `PROBE`, the teacher before it is fine-tuned."""
    settings = run.profile.vision
    if further == PROBE:
        settings = replace(settings, epochs=0)
    elif further:
        settings = settings.of(further)
    mark = run.source.mark_of(settings.weights)

    def make(to: Path) -> None:
        is_file = mark != settings.weights
        start = str(run.profile.path(settings.weights)) if is_file else settings.weights
        started = replace(settings, weights=start)
        vision.fine_tune(run.dataset, started, seed, run.progress).save(to)

    known = asdict(replace(settings, weights=mark))
    if not settings.weights:
        del known["layer_decay"]  # which then changes nothing
    inputs = {"settings": known, "seed": seed, "data": run.dataset.fingerprint}
    return Recipe(inputs, make, lambda at: vision.VisionModel.load(at), f"seed{seed}")


@stage(1, "logits.safetensors")
def teacher_logits(run, seed: int, further: str = "") -> Recipe[np.ndarray]:
    """(n, C) float32: the vision model's logits of every image."""
    model = run.artefact(vision_model, seed, further)
    return logits(run, seed, lambda: model.value.logits(run.dataset), vision=model)


def logits(run, seed: int, compute: Callable[[], np.ndarray], **needs: Artefact) -> Recipe:
    """Logits (n, C) of every image, computed from earlier results."""
    ids = run.dataset.ids
    return Recipe(
        {},
        lambda to: save_rows(to / "logits.safetensors", ids, compute()),
        lambda at: load_rows(at / "logits.safetensors", ids),
        f"seed{seed}",
        needs,
    )


def answers(
    run, part: ImageDataset, method: str, vlm: Callable, label: str, **needs: Artefact
) -> Recipe:
    """A VLM's predictions for some images, by label scoring or by generate and parse."""

    def make(to: Path) -> None:
        tokens = run.profile.vlm.max_new_tokens
        predictions = vlm().predict(part, method, max_new_tokens=tokens, progress=run.progress)
        predictions.save(to / "predictions.csv")

    inputs = {"vlm": run.source.vlm_key, "data": part.fingerprint, "method": method}
    return Recipe(inputs, make, lambda at: Predictions.load(at / "predictions.csv"), label, needs)


@stage(1, "predictions.csv", "predictions.json", together=True)
def zero_shot(run, method: str) -> Recipe[Predictions]:
    """The untuned VLM's predictions for val and test."""
    return answers(run, run.part("val", "test"), method, lambda: run.base, method)


@stage(2, "tuning.json", has_weights=True, together=True)
def adapter(run, seed: int) -> Recipe[Path]:
    """The folder of the LoRA adapter; tuning.json beside it tells how training went."""
    settings, source = run.profile.tuning, run.source
    known = {k: v for k, v in asdict(settings).items() if k not in HOW_IT_IS_TUNED}
    inputs = {
        "settings": known,
        "vlm": source.vlm_key + " nf4" * (run.profile.vlm.quantize == "nf4-tuning"),
        "data": run.dataset.fingerprint,
        "metadata": source.metadata_key(run.dataset),
        "seed": seed,
    }
    if settings.instructions:
        inputs["instructions"] = source.mark_of(settings.instructions)

    def make(to: Path) -> None:
        train, kinds = run.part("train"), settings.kinds
        if not settings.instructions:
            texts, counts = instructions.write_instructions(train, kinds, seed, describe_scene)
        else:
            journal = run.profile.path(settings.instructions)
            texts, counts = instructions.read_instructions(journal, train, kinds, seed)
        vlm, state = run.load_vlm(tuning=True), run.folder / f".tuning-{fingerprint(inputs)}"
        how = {"progress": run.progress, "checkpoints": state}
        log = tuning.instruction_tune(vlm, train, texts, settings, seed, to, **how)
        write_text(to / "tuning.json", json.dumps({"counts": counts, "log": log}, indent=1))
        if processes.first():
            shutil.rmtree(state, ignore_errors=True)

    return Recipe(inputs, make, lambda at: at, f"seed{seed}")


@stage(1, "predictions.csv", "predictions.json", together=True)
def tuned(run, seed: int, method: str) -> Recipe[Predictions]:
    """The tuned VLM's predictions: every image by label scoring, the test split by generating."""
    part = run.dataset if method == "score" else run.part("test")
    label, needs = f"seed{seed}-{method}", {"adapter": run.artefact(adapter, seed)}
    return answers(run, part, method, lambda: run.tuned_vlm(seed), label, **needs)


@stage(1, "head.safetensors")
def head(run, seed: int, alpha: float, temperature: float, depth: int) -> Recipe:
    """The distilled head; alpha 0: without a teacher."""
    settings = replace(run.profile.head, alpha=alpha, temperature=temperature, depth=depth)
    needs = {"features": run.artefact(features)}
    if alpha:
        needs["teacher"] = run.artefact(teacher_logits, seed, "")

    def make(to: Path) -> None:
        train, val = run.rows("train"), run.rows("val")
        x, y = needs["features"].value, run.dataset.label_index
        trained = distillation.train_head(
            x[train],
            y[train],
            needs["teacher"].value[train] if alpha else None,
            val_features=x[val],
            val_labels=y[val],
            num_classes=len(run.dataset.label_set),
            settings=settings,
            seed=seed,
        )
        trained.save(to / "head.safetensors")

    def load(at: Path):
        return distillation.TrainedHead.load(at / "head.safetensors")

    inputs = {"settings": asdict(settings), "seed": seed}
    return Recipe(inputs, make, load, f"alpha{alpha:g}-seed{seed}", needs)


@stage(1, "logits.safetensors")
def head_logits(run, seed: int, *settings) -> Recipe[np.ndarray]:
    """(n, C) float32: a head's logits of every image."""
    trained, seen = run.artefact(head, seed, *settings), run.artefact(features)
    return logits(run, seed, lambda: trained.value.logits(seen.value), head=trained, features=seen)


def gate_sides(run, seed: int, mode: str, side: str) -> tuple[np.ndarray, np.ndarray]:
    """What a gate is given, (n, C) each; side "vision" puts the vision model in the head's place."""
    vlm = run.tuned(seed)
    first = run.teacher_logits(seed) if side == "vision" else run.head_logits(seed)
    return gates.gate_inputs(first, vlm.probabilities, vlm.one_hot(), mode)


@stage(1, "gate.safetensors")
def gate(run, seed: int, kind: str, mode: str, split: str, side: str) -> Recipe:
    """A gate, trained on one split."""
    settings = replace(run.profile.gate, kind=kind, inputs=mode)
    needs = {"first": run.artefact(teacher_logits, seed, "")}
    if side != "vision":
        needs["first"] = run.artefact(head_logits, seed, *run.head_settings())
    needs["vlm"] = run.artefact(tuned, seed, "score")

    def make(to: Path) -> None:
        student, vlm = gate_sides(run, seed, mode, side)
        rows = run.rows(split)
        trained = gating.train_gate(
            student[rows],
            vlm[rows],
            run.dataset.label_index[rows],
            num_classes=len(run.dataset.label_set),
            settings=settings,
            seed=seed,
            trained_on=split,
        )
        trained.save(to / "gate.safetensors")

    def load(at: Path):
        return gating.TrainedGate.load(at / "gate.safetensors")

    inputs = {"settings": asdict(settings), "split": split, "side": side, "seed": seed}
    return Recipe(inputs, make, load, f"{kind}-{side}-seed{seed}", needs)


@stage(1, "logits.safetensors", "shares.safetensors", "gate.txt")
def gate_logits(run, seed: int, *settings) -> Recipe[tuple[np.ndarray, np.ndarray]]:
    """A gate's logits (n, C) of every image, and the shares (n, 2) of its two sides; float32."""
    trained, ids = run.artefact(gate, seed, *settings), run.dataset.ids
    *_, mode, _, side = settings

    def make(to: Path) -> None:
        sides = gate_sides(run, seed, mode, side)
        save_rows(to / "logits.safetensors", ids, trained.value.logits(*sides))
        save_rows(to / "shares.safetensors", ids, trained.value.weights(*sides))
        write_text(to / "gate.txt", repr(trained.value))

    def load(at: Path) -> tuple[np.ndarray, np.ndarray]:
        return tuple(load_rows(at / f"{name}.safetensors", ids) for name in ("logits", "shares"))

    return Recipe({}, make, load, f"{settings[0]}-{side}-seed{seed}", {"gate": trained})


@stage(1, "logits.safetensors")
def regression(run, seed: int) -> Recipe[np.ndarray]:
    """(n, C) float32: `gating.regression` on what the gate is given, fitted on the gate's split."""
    settings, rows = run.profile.gate, run.rows(run.profile.gate_split)
    needs = {
        "head": run.artefact(head_logits, seed, *run.head_settings()),
        "vlm": run.artefact(tuned, seed, "score"),
    }

    def compute() -> np.ndarray:
        sides = gate_sides(run, seed, settings.inputs, "head")
        data = run.dataset
        return gating.regression(*sides, data.label_index, rows, len(data.label_set))

    recipe = logits(run, seed, compute, **needs)
    return replace(recipe, inputs={"inputs": settings.inputs, "split": run.profile.gate_split})


def tuned_and_vision(run, seed: int) -> dict[str, Artefact]:
    """What both models are: the VLM's adapter, and the vision model."""
    return {"adapter": run.artefact(adapter, seed), "vision": run.artefact(vision_model, seed, "")}


@stage(1, "costs.csv")
def cost_table(run, seed: int) -> Recipe[pd.DataFrame]:
    """What an answer costs on this machine: `costs.compare` on one test image at a time."""
    trained = run.artefact(gate, seed, *run.gate_settings(), "head")
    needs = {"gate": trained} | tuned_and_vision(run, seed)

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

    return Recipe({}, make, load, f"seed{seed}", needs)


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

    inputs = {"data": part.fingerprint, "images": fingerprint(chosen)}
    return Recipe(inputs, make, load, f"seed{seed}", tuned_and_vision(run, seed))


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

    inputs = {"vlm": run.source.vlm_key, "data": part.fingerprint, "images": fingerprint(chosen)}
    return Recipe(inputs, make, load, f"seed{seed}", {"adapter": run.artefact(adapter, seed)})
