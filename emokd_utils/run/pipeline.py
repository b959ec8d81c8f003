"""EmoVLM-KD from images to the final table, each costly step kept and found again (lesson 9).

    images -> Predictions of each model -> complementarity, gate -> EmoVLM-KD's Predictions

``Pipeline(profile)`` has one method per stage; a stage calls those before it. What is already in
``runs/<profile>/`` under the same key is loaded, so notebooks and the command share one set of
results.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from ..costs import Part, compare, count_parameters
from ..data import ImageDataset, load_dataset
from ..distillation import TrainedHead, train_head
from ..errors import InputError
from ..families import FAMILIES, family_of
from ..files import fingerprint, load_rows, save_rows
from ..gates import gate_inputs
from ..gating import TrainedGate, train_gate
from ..instructions import answer_for, categorical_prompt, write_instructions
from ..maps import Explanation, load_explanations, save_explanations
from ..predictions import (
    BOTH_RUN,
    HEAD,
    HEAD_PLAIN,
    PUBLISHED,
    TUNED,
    VISION,
    ZERO_SHOT,
    Predictions,
    further_name,
    gate_name,
    versions,
)
from ..processes import finish, first
from ..profiles import MINI, Profile, project_root, reduced
from ..scale.ask import load_written
from ..scan import ScanReport, listing_fingerprint, scan
from ..tuning import instruction_tune
from ..vision import VisionModel, fine_tune
from ..vlm import VLM, read_config, recompute_layers
from ..world import scenes
from .environment import asked_profile, named_profile
from .store import Artefact, NotMadeError, Store

EXPLAINED, MISSED = 40, 150
"""Test images of each cue that are explained, and at most so many missed ones that get reasons too."""


class Recompute(TrainerCallback):
    """Has the model's layers compute their inside anew, once the adapter is there: peft, told
    before, would have gradients flow through the visual encoder."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Tell the model."""
        recompute_layers(model.get_base_model())


class Pipeline:
    """Every stage of EmoVLM-KD for one profile and one data set.

    ``data``: the root of an ImageFolder, by default the profile's. ``runs``: where artefacts are
    kept. ``say`` gets one line for each stage. ``make`` False: what is not kept there is not made,
    and asking for it raises NotMadeError. ``resplit``: a seed by which all images are divided anew
    (`ImageDataset.resplit`).

    Where ``data``, or without it the environment variable EMOKD_RUN, names a run that was imported,
    this is an `imported.ImportedRun`.
    """

    def __new__(cls, profile=None, data=None, runs=None, *more, **options):
        """The class that opens what is named."""
        from .imported import ImportedRun, find_run

        return super().__new__(ImportedRun if find_run(data, runs) else cls)

    def __init__(
        self,
        profile: Profile | str | None = None,
        data: Path | str | None = None,
        runs: Path | str | None = None,
        skip_bad: bool = False,
        say: Callable[[str], object] = print,
        progress: bool = True,
        make: bool = True,
        resplit: int | None = None,
    ):
        self.resplit = resplit
        self.profile = profile if isinstance(profile, Profile) else named_profile(profile)
        self.root = Path(data) if data is not None else self.profile.path(self.profile.data)
        self.built_in = self.root.resolve() == scenes.HOME.resolve()
        self.skip_bad, self.progress = skip_bad, progress
        self.say = say if first() else lambda line: None
        folder = Path(runs) if runs is not None else project_root() / "runs"
        name = (
            self.profile.name
            if self.built_in
            else f"{self.profile.name}-{self.root.resolve().name}"
        )
        self.folder = folder / name
        self.store = Store(self.folder, self.say, make)

    # ------------------------------------------------------------------------------------------ the data

    @functools.cached_property
    def dataset(self) -> ImageDataset:
        """The images; EmoScenes is made on first use, and every data set is scanned once."""
        if self.built_in:
            scenes.ensure_scenes(self.root, say=self.say)
        if not self.root.is_dir():
            raise InputError(
                f"{self.root} is no folder; give the folder that holds train/ and test/"
            )
        report = self.store.step(
            "scan",
            {"listing": listing_fingerprint(self.root)},
            lambda to: (to / "scan.json").write_text(scan(self.root).to_json(), encoding="utf-8"),
            lambda at: ScanReport.from_json((at / "scan.json").read_text(encoding="utf-8")),
        ).value
        dataset = load_dataset(self.root, skip_bad=self.skip_bad, report=report)
        if self.resplit is not None:
            dataset = dataset.resplit(self.resplit)
        if count := self.profile.images_per_split:
            ids = []
            for split in ("train", "val", "test"):
                part = dataset.split(split)
                order = np.random.default_rng(0).permutation(len(part))[:count]
                ids += [part.ids[k] for k in sorted(order)]
            dataset = dataset.select(ids)
        return dataset

    @property
    def cues(self) -> pd.Series | None:
        """The cue of each image, where the data set tells it (EmoScenes does)."""
        return self.dataset.table["cue"] if "cue" in self.dataset.table else None

    # ---------------------------------------------------------------------------------- the two models

    @functools.cached_property
    def workbench(self) -> Pipeline:
        """The pipeline whose models a lesson takes apart: this one. Where its VLM is not of the
        Qwen2-VL family, for which the lessons' code is written, the built-in one."""
        if family_of(read_config(self._vlm_source)) is FAMILIES["Qwen2-VL"]:
            return self
        return self._built_in(f"{self.profile.vlm.name} is built otherwise than Qwen2-VL")

    def _built_in(self, why: str) -> Pipeline:
        self.say(f"[workbench] {why}: what is taken apart is the built-in models, on EmoScenes")
        runs = self.folder.parent
        return Pipeline(MINI, scenes.HOME, runs, say=self.say, progress=self.progress)

    @functools.cached_property
    def base(self) -> VLM:
        """The VLM before tuning."""
        return self._load_vlm()

    def _load_vlm(self, adapter: Path | None = None, tuning: bool = False) -> VLM:
        kind = self.profile.vlm.quantize
        if kind == "nf4-tuning":
            kind = "nf4" if tuning else ""
        options = {"pixels": self.profile.vlm.pixels, "batch_size": self.profile.vlm.batch_size}
        if torch.cuda.is_available():  # a GPU holds one at a time
            self.__dict__.pop("base", None)
            Pipeline.tuned_vlm.cache_clear()
        return VLM.load(self._vlm_source, adapter, quantize=kind, **options)

    @property
    def _vlm_source(self) -> str:
        local = self.profile.path(self.profile.vlm.name)
        return str(local) if local.is_dir() else self.profile.vlm.name

    @functools.cached_property
    def _vlm_key(self) -> str:
        """What the VLM is: a hub id, or for a folder the checksum of its files' contents; and how it
        is used, where that is not as published."""
        folder, parts = Path(self._vlm_source), {}
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.suffix in (".json", ".jinja", ".safetensors"):
                parts[path.name] = _checksum(path)
        key = fingerprint(parts) if folder.is_dir() else self._vlm_source
        if pixels := self.profile.vlm.pixels:
            key += f" {pixels} pixels"
        return key + " nf4" * (self.profile.vlm.quantize == "nf4")

    def zero_shot(self, method: str = "score") -> Predictions:
        """The untuned VLM's predictions for val and test, by label scoring or by generate and
        parse."""
        part = self._part("val", "test")
        return self._predictions(f"zero-shot-{method}", {}, part, lambda: self.base, method).value

    def features(self) -> np.ndarray:
        """(n, width) float32: the frozen visual encoder's mean-pooled output of every image,
        once."""
        return self._features.value

    @functools.cached_property
    def _features(self) -> Artefact[np.ndarray]:
        ids = list(self.dataset.ids)
        return self.store.step(
            "features",
            {"vlm": self._vlm_key, "data": self.dataset.fingerprint},
            lambda to: save_rows(
                to / "features.safetensors",
                ids,
                self.base.dataset_features(self.dataset, self.progress),
            ),
            lambda at: load_rows(at / "features.safetensors", ids),
            together=True,
        )

    @functools.cache
    def _vision(self, seed: int, further: str = "") -> Artefact[VisionModel]:
        settings = self.profile.vision
        if further:
            name, _, weights = further.partition("@")
            settings = replace(settings, name=name, weights=weights)
        inputs = {"settings": asdict(settings), "data": self.dataset.fingerprint, "seed": seed}
        if settings.weights not in ("", "timm", "package"):
            file = self.profile.path(settings.weights)
            settings = replace(settings, weights=str(file))
            inputs["settings"]["weights"] = _checksum(file) if file.is_file() else str(file)
        return self.store.step(
            f"vision-seed{seed}",
            inputs,
            lambda to: fine_tune(self.dataset, settings, seed, self.progress).save(to),
            VisionModel.load,
        )

    def vision(self, seed: int = 0) -> VisionModel:
        """The fine-tuned vision model: a competitor, and the teacher of the head."""
        return self._vision(seed).value

    @functools.cache
    def _teacher(self, seed: int, further: str = "") -> Artefact[np.ndarray]:
        ids, vision = list(self.dataset.ids), self._vision(seed, further)
        return self.store.step(
            f"teacher-seed{seed}",
            {"vision": vision.key},
            lambda to: save_rows(to / "logits.safetensors", ids, vision.value.logits(self.dataset)),
            lambda at: load_rows(at / "logits.safetensors", ids),
        )

    def vision_history(self, seed: int = 0) -> tuple[list[dict[str, float]], int]:
        """What the vision model's training noted of each epoch, and which epoch was kept."""
        text = (self._vision(seed).folder / "model.json").read_text(encoding="utf-8")
        about = json.loads(text)
        return about["history"], about["best_epoch"]

    def vision_predictions(self, seed: int = 0, further: str = "") -> Predictions:
        """The vision model's predictions for every image."""
        logits = self._teacher(seed, further).value
        return self._from_logits(logits, further or self.profile.vision.name, seed=seed)

    def teacher_logits(self, seed: int = 0) -> np.ndarray:
        """(n, C) float32 logits of the vision model for every image, in the data set's order."""
        return self._teacher(seed).value

    @functools.cache
    def _adapter(self, seed: int) -> Artefact[tuple[Path, list[dict]]]:
        settings = self.profile.tuning
        named = self.profile.tuning.instructions
        journal = self.profile.path(named) if named else None

        def make(to: Path) -> None:
            train = self.dataset.split("train")
            if journal is None:
                instructions, counts = write_instructions(train, settings.kinds, seed)
            else:
                instructions, counts = load_written(journal, train, settings.kinds, seed)
            log = instruction_tune(
                self._load_vlm(tuning=True),
                train,
                instructions,
                settings,
                seed,
                to,
                callbacks=[Recompute()] * self.profile.tuning.recompute,
                progress=self.progress,
                checkpoints=checkpoints,
                checkpoint_steps=self.profile.tuning.checkpoint_steps,
            )
            note = {"counts": counts, "log": log}
            (to / "tuning.json").write_text(json.dumps(note, indent=1), encoding="utf-8")

        def load(at: Path) -> tuple[Path, list[dict]]:
            return at, json.loads((at / "tuning.json").read_text(encoding="utf-8"))["log"]

        inputs = {
            "settings": asdict(settings),
            "vlm": self._vlm_key + " nf4" * (self.profile.vlm.quantize == "nf4-tuning"),
            "data": self.dataset.fingerprint,
            "metadata": self._metadata_key,
            "seed": seed,
        }
        if journal is not None:
            if not journal.is_file():
                raise InputError(f"{journal} is no journal of instructions: give the file's path")
            inputs["instructions"] = _checksum(journal)
        checkpoints = self.folder / f".tuning-{fingerprint(inputs)}"
        adapter = self.store.step(f"adapter-seed{seed}", inputs, make, load, together=True)
        if first():
            shutil.rmtree(checkpoints, ignore_errors=True)
        return adapter

    @functools.cached_property
    def _metadata_key(self) -> str:
        return fingerprint(self.dataset.table.astype(str).fillna("").to_dict("list"))

    @functools.lru_cache(maxsize=1)
    def tuned_vlm(self, seed: int = 0) -> VLM:
        """The VLM with its adapter."""
        return self._load_vlm(self._adapter(seed).value[0])

    def tuning_log(self, seed: int = 0) -> list[dict]:
        """What the Trainer logged: step, epoch, loss, learning rate."""
        return self._adapter(seed).value[1]

    @functools.cache
    def _tuned(self, seed: int, method: str = "score") -> Artefact[Predictions]:
        part = self.dataset if method == "score" else self._part("test")
        adapter = {"adapter": self._adapter(seed).key}
        return self._predictions(
            f"tuned-seed{seed}-{method}", adapter, part, lambda: self.tuned_vlm(seed), method
        )

    def tuned(self, seed: int = 0, method: str = "score") -> Predictions:
        """The tuned VLM's predictions: every image by label scoring, the test split by generate and
        parse."""
        return self._tuned(seed, method).value

    # -------------------------------------------------------------------------------- head and gate

    @functools.cache
    def _head(
        self, seed: int, alpha: float, temperature: float, depth: int
    ) -> Artefact[TrainedHead]:
        settings = replace(self.profile.head, alpha=alpha, temperature=temperature, depth=depth)

        def make(to: Path) -> None:
            train, val = self.rows("train"), self.rows("val")
            x, y = self.features(), self.dataset.label_index
            teacher = self.teacher_logits(seed)[train] if alpha else None
            head = train_head(
                x[train],
                y[train],
                teacher,
                val_features=x[val],
                val_labels=y[val],
                num_classes=len(self.dataset.label_set),
                settings=settings,
                seed=seed,
            )
            head.save(to / "head.safetensors")

        inputs = {"settings": asdict(settings), "features": self._features.key, "seed": seed}
        if alpha:
            inputs["teacher"] = self._teacher(seed).key
        return self.store.step(
            f"head-alpha{alpha:g}-seed{seed}",
            inputs,
            make,
            lambda at: TrainedHead.load(at / "head.safetensors"),
        )

    def head(
        self,
        seed: int = 0,
        alpha: float | None = None,
        temperature: float | None = None,
        depth: int | None = None,
    ) -> TrainedHead:
        """The head on the visual features; what is not given is the profile's. alpha 0: no
        teacher."""
        return self._head(seed, *self._head_settings(alpha, temperature, depth)).value

    def _head_settings(self, alpha=None, temperature=None, depth=None) -> tuple[float, float, int]:
        return (
            self.profile.head.alpha if alpha is None else alpha,
            self.profile.head.temperature if temperature is None else temperature,
            self.profile.head.depth if depth is None else depth,
        )

    def _gate_inputs(self, seed: int, mode: str, side: str) -> tuple[np.ndarray, np.ndarray]:
        vlm = self.tuned(seed)
        logits = (
            self.teacher_logits(seed)
            if side == "vision"
            else self.head(seed).logits(self.features())
        )
        return gate_inputs(logits, vlm.probabilities, vlm.one_hot(), mode)

    @functools.cache
    def _gate(
        self, seed: int, kind: str, mode: str, split: str, side: str
    ) -> Artefact[TrainedGate]:
        settings = replace(self.profile.gate, kind=kind, inputs=mode)

        def make(to: Path) -> None:
            student, vlm = self._gate_inputs(seed, mode, side)
            rows = self.rows(split)
            gate = train_gate(
                student[rows],
                vlm[rows],
                self.dataset.label_index[rows],
                num_classes=len(self.dataset.label_set),
                settings=settings,
                seed=seed,
                trained_on=split,
            )
            gate.save(to / "gate.safetensors")

        first = (
            self._teacher(seed) if side == "vision" else self._head(seed, *self._head_settings())
        )
        inputs = {
            "settings": asdict(settings),
            "split": split,
            "side": side,
            "first": first.key,
            "vlm": self._tuned(seed).key,
            "seed": seed,
        }
        return self.store.step(
            f"gate-{kind}-{side}-seed{seed}",
            inputs,
            make,
            lambda at: TrainedGate.load(at / "gate.safetensors"),
        )

    def gate(
        self,
        seed: int = 0,
        kind: str | None = None,
        inputs: str | None = None,
        split: str | None = None,
        side: str = "head",
    ) -> TrainedGate:
        """A gate; what is not given is the profile's. ``side`` "vision" puts the vision model
        itself in the head's place: the two models run together."""
        return self._gate(seed, *self._gate_settings(kind, inputs, split), side).value

    def _gate_settings(self, kind=None, inputs=None, split=None) -> tuple[str, str, str]:
        profile = self.profile
        return (
            kind or profile.gates[0],
            inputs or profile.gate.inputs,
            split or profile.gate_split,
        )

    def emovlm_kd(self, seed: int = 0, side: str = "head", **gate) -> Predictions:
        """EmoVLM-KD's predictions for every image."""
        trained = self.gate(seed, side=side, **gate)
        student, vlm = self._gate_inputs(seed, trained.settings.inputs, side)
        return self._from_logits(
            trained.logits(student, vlm), "EmoVLM-KD", seed=seed, gate=repr(trained), side=side
        )

    @functools.cache
    def costs(self, seed: int = 0) -> pd.DataFrame:
        """What an answer costs on this machine: `costs.compare` on one test image at a time."""
        gate, head, adapter = (
            self._gate(seed, *self._gate_settings(), "head"),
            self.head(seed),
            self._adapter(seed),
        )

        def make(to: Path) -> None:
            vlm, vision, classes = self.tuned_vlm(seed), self.vision(seed), self.dataset.label_set
            part = self._part("test")
            image = part.open(part.ids[0])
            prompt, answers = categorical_prompt(classes), [answer_for(label) for label in classes]
            features = vlm.features([image])

            def head_and_gate() -> None:
                known = np.full((1, len(classes)), 1 / len(classes))
                inputs = gate_inputs(head.logits(features), known, np.eye(len(classes))[:1], mode)
                gate.value.logits(*inputs)

            mode = gate.value.settings.inputs
            table = compare(
                Part(
                    lambda: vlm.score([image], prompt, answers),
                    (vlm.model,),
                    count_parameters(vlm.model, trained="lora_").trained,
                ),
                Part(lambda: vision.image_logits([image]), (vision.network,)),
                Part(head_and_gate, (head.head, gate.value.gate)),
            )
            table.to_csv(to / "costs.csv")

        inputs = {"gate": gate.key, "adapter": adapter.key, "vision": self._vision(seed).key}
        return self.store.step(
            f"costs-seed{seed}", inputs, make, lambda at: pd.read_csv(at / "costs.csv", index_col=0)
        ).value

    def explanations(self, seed: int = 0) -> dict[str, dict[str, Explanation]]:
        """Test image -> name -> map (`explanations.explain`, of the image's label): 40 images of
        each cue, or of all where there are no cues, drawn at random."""
        from ..explanations import explain

        part, chosen = self._part("test"), self._explained()

        def make(to: Path) -> None:
            vlm, vision, classes = self.tuned_vlm(seed), self.vision(seed), part.label_set
            steps = tqdm(chosen, "explanations", unit="image", disable=not self.progress)
            found = {
                name: explain(part.open(name), part.table.loc[name, "label"], vlm, vision, classes)
                for name in steps
            }
            save_explanations(to / "maps.safetensors", found)

        def load(at: Path) -> dict[str, dict[str, Explanation]]:
            return load_explanations(at / "maps.safetensors")

        of = {"vision": self._vision(seed).key, "images": fingerprint(chosen)}
        return self._of_test("explanations", seed, of, make, load)

    def _explained(self) -> list[str]:
        part = self._part("test")
        rng, ids = np.random.default_rng(0), np.array(part.ids)
        cues = np.zeros(len(ids)) if self.cues is None else self.cues.loc[list(ids)].to_numpy()
        chosen = []
        for cue in dict.fromkeys(cues):
            chosen += sorted(rng.permutation(ids[cues == cue])[:EXPLAINED].tolist())
        return chosen

    def reasons(self, seed: int = 0) -> dict[str, str]:
        """Test image -> the tuned VLM's reasons, in its words: for the images of `explanations`, and
        for up to 150 that it gets wrong (led by content, where the cues are told)."""
        part, answers = self._part("test"), self.tuned(seed).split("test")
        missed = np.array(answers.ids)[~answers.correct]
        if self.cues is not None:
            missed = missed[self.cues.loc[list(missed)] == "content"]
        missed = missed[:: -(-len(missed) // MISSED) or 1]
        chosen = list(dict.fromkeys([*missed.tolist(), *self._explained()]))

        def make(to: Path) -> None:
            vlm, size, found = self.tuned_vlm(seed), self.profile.vlm.batch_size, {}
            starts = range(0, len(chosen), size)
            for k in tqdm(starts, "reasons", unit="batch", disable=not self.progress):
                some = chosen[k : k + size]
                said = vlm.reasons([part.open(name) for name in some])
                found |= {n: " ".join(text.split()) for n, text in zip(some, said, strict=True)}
            (to / "reasons.json").write_text(json.dumps(found, indent=1), encoding="utf-8")

        def load(at: Path) -> dict[str, str]:
            return json.loads((at / "reasons.json").read_text(encoding="utf-8"))

        of = {"vlm": self._vlm_key, "images": fingerprint(chosen)}
        return self._of_test("reasons", seed, of, make, load)

    def _of_test(self, kind: str, seed: int, of: dict, make: Callable, load: Callable):
        """What the tuned VLM gave for some test images, and what else it was made of."""
        data = self._part("test").fingerprint
        inputs = {"adapter": self._adapter(seed).key, "data": data, **of}
        return self.store.step(f"{kind}-seed{seed}", inputs, make, load).value

    # ------------------------------------------------------------------------------------ together

    def predictions(self, seed: int = 0) -> dict[str, Predictions]:
        """The test predictions of every row of the table, by its name, in the table's order."""
        head, plain = (self.head(seed, a).logits(self.features()) for a in (None, 0.0))
        found = {
            ZERO_SHOT: self.zero_shot(),
            TUNED: self.tuned(seed),
            VISION: self.vision_predictions(seed),
            **{
                further_name(name): self.vision_predictions(seed, name)
                for name in self.profile.further_vision
            },
            HEAD_PLAIN: self._from_logits(plain, HEAD_PLAIN, seed=seed, alpha=0.0),
            HEAD: self._from_logits(head, HEAD, seed=seed, alpha=self.profile.head.alpha),
        }
        for kind in self.profile.gates:
            found[gate_name(kind)] = self.emovlm_kd(seed, kind=kind)
        found[PUBLISHED] = self.emovlm_kd(
            seed, kind="concat_linear", inputs="logits_onehot", split="train"
        )
        found[BOTH_RUN] = self.emovlm_kd(seed, side="vision")
        return {name: predictions.split("test") for name, predictions in found.items()}

    def is_kept(self, seed: int = 0) -> bool:
        """Whether all that `predictions` needs for a seed is there already; nothing is made."""
        try:
            return bool(self.kept().predictions(seed))
        except NotMadeError:
            return False

    def kept(self) -> Pipeline:
        """This pipeline over again, silent and making nothing."""
        return Pipeline(
            self.profile,
            self.root,
            self.folder.parent,
            self.skip_bad,
            say=lambda line: None,
            make=False,
            resplit=self.resplit,
        )

    def rows(self, split: str) -> np.ndarray:
        """The places, in the data set's order, of the images of a split."""
        return np.flatnonzero(self.dataset.table["split"].to_numpy() == split)

    def _part(self, *splits: str) -> ImageDataset:
        inside = self.dataset.table["split"].isin(splits)
        return self.dataset.select(list(self.dataset.table.index[inside]))

    def _predictions(
        self, kind: str, inputs: dict, part: ImageDataset, vlm: Callable[[], VLM], method: str
    ) -> Artefact[Predictions]:
        def make(to: Path) -> None:
            vlm().predict(
                part,
                method,
                max_new_tokens=self.profile.vlm.max_new_tokens,
                progress=self.progress,
            ).save(to / "predictions.csv")

        inputs = inputs | {"vlm": self._vlm_key, "data": part.fingerprint, "method": method}
        return self.store.step(
            f"predictions-{kind}",
            inputs,
            make,
            lambda at: Predictions.load(at / "predictions.csv"),
            together=True,
        )

    def _from_logits(self, logits: np.ndarray, model: str, **provenance) -> Predictions:
        data = self.dataset
        return Predictions.from_logits(
            logits,
            ids=tuple(data.ids),
            splits=tuple(data.table["split"]),
            labels=tuple(data.labels),
            classes=tuple(data.label_set.labels),
            provenance={
                "model": model,
                "data": data.fingerprint,
                "versions": versions(),
                **provenance,
            },
        )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(args) -> int:
    """The command ``run``: every stage for one or more seeds, the table and the report."""
    from .results import Results, write_repeated, write_report

    profile = reduced(asked_profile(args)) if args.reduced else asked_profile(args)
    if args.splits:
        places = (profile, args.data, args.runs, args.skip_bad)
        told = write_repeated([Pipeline(*places, resplit=k) for k in range(args.splits)])
    else:
        pipeline = Pipeline(profile, args.data, args.runs, args.skip_bad)
        seeds = range(args.seeds) if args.seeds > 1 else [args.seed]
        results = Results(pipeline, seeds)
        pipeline.costs(seeds[0]), pipeline.tuned(seeds[0], "generate")  # in every process
        told = write_report(results) if first() else ""
    if first():
        print(f"\n{told}")
    finish()
    return 0
