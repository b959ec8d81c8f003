"""A run: one profile on one data set, and every result of it by name (lesson 9).

    images -> Predictions of each model -> complementarity, gate -> EmoVLM-KD's Predictions

`open_run` gives it. Each method asks a stage (`stages`) for its result; what is already kept under
the same key is read, so notebooks and the command share one set of results."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from ..data import ImageDataset
from ..errors import InputError
from ..lazy import lazy
from ..predictions import (
    AVERAGE,
    BOTH_RUN,
    HEAD,
    HEAD_PLAIN,
    PROBE,
    PUBLISHED,
    REGRESSION,
    TUNED,
    VISION,
    ZERO_SHOT,
    Predictions,
    further_name,
    gate_name,
    versions,
)
from ..profiles import MINI, PROFILES, Profile
from ..world import files as world
from . import stages
from .environment import imported_run, join_processes, named_profile, runs_folder
from .sources import ArchiveSource, FolderSource
from .store import Artefact, NotMadeError, Stage, Store

emovlm_kd = lazy("emovlm_kd")
loading = lazy("loading")
training = lazy("training")
vision = lazy("vision")
vlm = lazy("vlm")

IN_A_MOMENT = "scanned head_logits gate_logits regression".split()  # from what is kept
EXPLAINED, MISSED = 40, 150  # test images of each cue with maps; missed ones with reasons, at most


def open_run(
    profile: Profile | str | None = None,
    data: Path | str | None = None,
    runs: Path | str | None = None,
    *,
    skip_bad: bool = False,
    say: Callable[[str], object] = print,
    progress: bool = True,
    make: bool = True,
    resplit: int | None = None,
    shipped: bool = True,
) -> Run:
    """The run of a profile on a data set; what is kept is read, or else what came with the course,
    and the rest is made when asked for.

    profile: by default that in EMOKD_PROFILE. data: the root of an ImageFolder, by default the
    profile's; or the folder of an imported run, by default that in EMOKD_RUN, whose own profile
    counts, whichever known one is asked for. runs: where results are kept, by default EMOKD_RUNS,
    else ``runs/``. skip_bad: go on without unusable images. say: gets one line for each result.
    progress: bars with the time left. make False: asking for what is not kept, and is not there in a
    moment, raises NotMadeError. resplit: a seed by which all images are divided anew
    (`ImageDataset.resplit`). shipped False: what came with the course is left alone."""
    join_processes()
    runs = Path(runs) if runs is not None else runs_folder()
    archive = imported_run(data, runs)
    if archive is not None:
        if resplit is not None:
            raise InputError("an imported run has one division into splits, that of its results")
        known = not isinstance(profile, Profile) or profile in PROFILES.values()
        source = ArchiveSource(archive, None if known else profile)
        folder = archive
    else:
        profile = profile if isinstance(profile, Profile) else named_profile(profile)
        root = Path(data) if data is not None else profile.path(profile.data)
        source = FolderSource(profile, root, runs / "checksums.json", skip_bad, resplit)
        folder = runs / "-".join([profile.name, *([] if source.built_in else [source.name])])
    return Run(source, folder, say, progress, make, shipped)


def built_in_run(runs: Path, say: Callable[[str], object], progress=False, make=True) -> Run:
    """The run of the profile ``mini`` on EmoScenes, whatever the environment names."""
    source = FolderSource(MINI, world.HOME, runs / "checksums.json", False, None)
    return Run(source, runs / MINI.name, say, progress, make)


class Run:
    """Every result of one profile on one data set, by name; `open_run` gives it. source: a
    FolderSource or an ArchiveSource. folder: of the results. Else as of `open_run`."""

    def __init__(
        self, source, folder: Path, say=print, progress=True, make=True, shipped=True
    ) -> None:
        self.source, self.folder, self.progress = source, folder, progress
        self.profile, self.root = source.profile, source.root
        may_make = source.may_make if make else lambda stage: stage.name in IN_A_MOMENT
        came = source.shipped if shipped else None
        self.store = Store(folder, say, may_make, source.without_weights, came)
        self.artefacts: dict[tuple, Artefact] = {}  # asked for so far, made or not
        self._tuned_vlms: dict[int, vlm.VLM] = {}

    def artefact(self, stage: Stage, *arguments) -> Artefact:
        """A stage's result for these arguments: its key at once, its value when asked for."""
        name = (stage.name, *arguments)
        if name not in self.artefacts:
            self.artefacts[name] = Artefact(self.store, stage, stage.recipe(self, *arguments))
        return self.artefacts[name]

    @functools.cached_property
    def dataset(self) -> ImageDataset:
        """The images; EmoScenes is made on first use, and every data set is scanned once."""
        return self.source.dataset(self)

    @property
    def cues(self) -> pd.Series | None:
        """The cue of each image, where the data set tells it (EmoScenes does)."""
        return self.dataset.table["cue"] if "cue" in self.dataset.table else None

    def rows(self, split: str) -> np.ndarray:
        """The places, in the data set's order, of the images of a split."""
        return np.flatnonzero(self.dataset.table["split"].to_numpy() == split)

    def part(self, *splits: str) -> ImageDataset:
        """The images of some splits, in the data set's order."""
        inside = self.dataset.table["split"].isin(splits)
        return self.dataset.select(list(self.dataset.table.index[inside]))

    @functools.cached_property
    def base(self) -> vlm.VLM:
        """The VLM before tuning."""
        return self.load_vlm()

    def tuned_vlm(self, seed: int = 0) -> vlm.VLM:
        """The VLM with its adapter; one is held at a time."""
        if seed not in self._tuned_vlms:
            self._tuned_vlms = {seed: self.load_vlm(self.artefact(stages.adapter, seed).value)}
        return self._tuned_vlms[seed]

    def load_vlm(self, adapter: Path | None = None, tuning: bool = False) -> vlm.VLM:
        """A VLM of the profile, with an adapter or to be tuned. Raises NotMadeError where the run
        was imported."""
        if self.source.without_weights:
            raise NotMadeError(f"{self.source.without_weights}, so the VLM is not here")
        settings = self.profile.vlm
        quantized = settings.quantize == "nf4" or (tuning and settings.quantize == "nf4-tuning")
        self.__dict__.pop("base", None)  # one is held at a time
        self._tuned_vlms.clear()
        options = {"pixels": settings.pixels, "revision": self.source.revision}
        options["quantize"] = "nf4" if quantized else ""
        return vlm.VLM.load(self.source.vlm, adapter, settings.batch_size, **options)

    def vision(self, seed: int = 0) -> vision.VisionModel:
        """The fine-tuned vision model: a competitor, and the teacher of the head."""
        return self.artefact(stages.vision_model, seed, "").value

    @functools.cached_property
    def workbench(self) -> Run:
        """The run whose models a lesson takes apart: this one, or where its VLM is not built like
        Qwen2-VL, for which lessons are written, or did not come along, the built-in one."""
        why = self.source.without_weights and f"{self.source.name} was imported without weights"
        if not why:
            config = loading.read_config(self.source.vlm, self.source.revision)
            if config.model_type in ("qwen2_vl", "qwen2_5_vl"):
                return self
            why = f"{self.profile.vlm.name} is built otherwise than Qwen2-VL"
        what = "what is taken apart is the built-in models, on EmoScenes"
        self.store.say(f"[workbench] {why}: {what}")
        return built_in_run(self.folder.parent, self.store.say, self.progress)

    def vision_history(self, seed: int = 0) -> tuple[list[dict[str, float]], int]:
        """What the vision model's training noted of each epoch, and which epoch was kept."""
        path = self.artefact(stages.vision_model, seed, "").path("model.json")
        about = json.loads(path.read_text(encoding="utf-8"))
        return about["history"], about["best_epoch"]

    def tuning_log(self, seed: int = 0) -> list[dict]:
        """What the Trainer logged: step, epoch, loss, learning rate."""
        path = self.artefact(stages.adapter, seed).path("tuning.json")
        return json.loads(path.read_text(encoding="utf-8"))["log"]

    def zero_shot(self, method: str = "score") -> Predictions:
        """The untuned VLM's predictions for val and test; method: "score" or "generate"."""
        return self.artefact(stages.zero_shot, method).value

    def tuned(self, seed: int = 0, method: str = "score") -> Predictions:
        """The tuned VLM's predictions; by label scoring of all images, by generating of test."""
        return self.artefact(stages.tuned, seed, method).value

    def features(self) -> np.ndarray:
        """(n, d) float32: the frozen visual encoder's mean-pooled output of every image."""
        return self.artefact(stages.features).value

    def teacher_logits(self, seed: int = 0) -> np.ndarray:
        """(n, C) float32 logits of the vision model for every image, in the data set's order."""
        return self.artefact(stages.teacher_logits, seed, "").value

    def vision_predictions(self, seed: int = 0, further: str = "") -> Predictions:
        """The vision model's predictions for every image; ``further``: of another vision model."""
        logits = self.artefact(stages.teacher_logits, seed, further).value
        return self._from_logits(logits, further or self.profile.vision.name, seed=seed)

    def head_settings(self, alpha=None, temperature=None, depth=None) -> tuple[float, ...]:
        """Alpha, temperature and depth; what is not given is the profile's."""
        usual = (self.profile.head.alpha, self.profile.head.temperature, self.profile.head.depth)
        given = (alpha, temperature, depth)
        return tuple(u if g is None else g for u, g in zip(usual, given, strict=True))

    def head(self, seed: int = 0, **settings):
        """The `distillation.TrainedHead`; settings as of `head_settings`. alpha 0: no teacher."""
        return self.artefact(stages.head, seed, *self.head_settings(**settings)).value

    def head_logits(self, seed: int = 0, **settings) -> np.ndarray:
        """(n, C) float32 logits of `head` for every image."""
        return self.artefact(stages.head_logits, seed, *self.head_settings(**settings)).value

    def gate_settings(self, kind: str = "", inputs: str = "", split: str = "") -> tuple[str, ...]:
        """Kind, inputs and split; what is not given is the profile's."""
        usual = self.profile
        return kind or usual.gates[0], inputs or usual.gate.inputs, split or usual.gate_split

    def gate(self, seed: int = 0, side: str = "head", **settings):
        """A `gating.TrainedGate`; settings as of `gate_settings`. side "vision": the vision model
        itself in the head's place, so that the two models run together."""
        return self.artefact(stages.gate, seed, *self.gate_settings(**settings), side).value

    def emovlm_kd(self, seed: int = 0, side: str = "head", **settings) -> Predictions:
        """EmoVLM-KD's predictions for every image; arguments as of `gate`."""
        chosen = self.gate_settings(**settings)
        logits, _ = self.artefact(stages.gate_logits, seed, *chosen, side).value
        about = dict(zip(("gate", "inputs", "trained on"), chosen, strict=True))
        return self._from_logits(logits, "EmoVLM-KD", seed=seed, side=side, **about)

    def gate_parts(
        self, seed: int = 0, split: str = "test", **settings
    ) -> tuple[Predictions, Predictions, Predictions, np.ndarray]:
        """For `explorer.GateView`: predictions of EmoVLM-KD, head and VLM, and their shares (n, 2)."""
        chosen = self.gate_settings(**settings)
        _, shares = self.artefact(stages.gate_logits, seed, *chosen, "head").value
        head = self._from_logits(self.head_logits(seed), HEAD, seed=seed)
        sides = (self.emovlm_kd(seed, **settings), head, self.tuned(seed))
        return (*(side.split(split) for side in sides), shares[self.rows(split)])

    def assembled(self, seed: int = 0, kind: str = "") -> emovlm_kd.EmoVLMKD:
        """EmoVLM-KD as one model that answers about images."""
        parts = self.tuned_vlm(seed), self.head(seed), self.gate(seed, kind=kind)
        return emovlm_kd.EmoVLMKD(*parts, self.dataset.label_set)

    def costs(self, seed: int = 0) -> pd.DataFrame:
        """What an answer costs on this machine: a row for each set-up (`costs.compare`)."""
        return self.artefact(stages.cost_table, seed).value

    def explanations(self, seed: int = 0) -> dict:
        """Test image -> name -> map (`explanations.explain`, of the image's label)."""
        return self.artefact(stages.explained, seed).value

    def explained_ids(self) -> list[str]:
        """Forty test images of each cue, or of all where there are no cues, drawn at random."""
        ids, rng = np.array(self.part("test").ids), np.random.default_rng(0)
        cues = np.zeros(len(ids)) if self.cues is None else self.cues.loc[list(ids)].to_numpy()
        chosen = []
        for cue in dict.fromkeys(cues):
            chosen += sorted(rng.permutation(ids[cues == cue])[:EXPLAINED].tolist())
        return chosen

    def reasons(self, seed: int = 0) -> dict[str, str]:
        """Test image -> the tuned VLM's reasons, in its words."""
        return self.artefact(stages.reasons, seed).value

    def reasoned_ids(self, seed: int) -> list[str]:
        """The test images that get reasons: those of `explanations`, and up to 150 that the tuned
        VLM gets wrong (led by content, where the cues are told)."""
        answers = self.tuned(seed).split("test")
        missed = np.array(answers.ids)[~answers.correct]
        if self.cues is not None:
            missed = missed[self.cues.loc[list(missed)] == "content"]
        missed = missed[:: -(-len(missed) // MISSED) or 1]
        return list(dict.fromkeys([*missed.tolist(), *self.explained_ids()]))

    def predictions(self, seed: int = 0) -> dict[str, Predictions]:
        """The test predictions of every row of the table, by its name, in the table's order."""
        profile = self.profile
        self.source.check(self.dataset)
        rows = {ZERO_SHOT: self.zero_shot(), TUNED: self.tuned(seed)}
        rows[VISION] = self.vision_predictions(seed)
        if profile.vision.weights:
            rows[PROBE] = self.vision_predictions(seed, PROBE)
        for name in profile.further_vision:
            rows[further_name(name)] = self.vision_predictions(seed, name)
        for name, alpha in ((HEAD_PLAIN, 0.0), (HEAD, profile.head.alpha)):
            logits = self.head_logits(seed, alpha=alpha)
            rows[name] = self._from_logits(logits, name, seed=seed, alpha=alpha)
        both = (self._from_logits(self.head_logits(seed), HEAD), self.tuned(seed))
        mean = sum(side.probabilities for side in both) / 2
        rows[AVERAGE] = self._from_logits(np.log(mean.clip(1e-12)), AVERAGE, seed=seed)
        fitted = self.artefact(stages.regression, seed).value
        rows[REGRESSION] = self._from_logits(fitted, REGRESSION, seed=seed)
        for kind in profile.gates:
            rows[gate_name(kind)] = self.emovlm_kd(seed, kind=kind)
        published = {"kind": "concat_linear", "inputs": "logits_onehot", "split": "train"}
        rows[PUBLISHED] = self.emovlm_kd(seed, **published)
        rows[BOTH_RUN] = self.emovlm_kd(seed, side="vision")
        return {name: predictions.split("test") for name, predictions in rows.items()}

    def is_kept(self, seed: int = 0) -> bool:
        """Whether all that `predictions` needs for a seed is there already; nothing is made."""
        try:
            return bool(self.kept().predictions(seed))
        except NotMadeError:
            return False

    def kept(self) -> Run:
        """This run over again, silent and making nothing that takes time."""
        shipped = self.store.shipped is not None
        return Run(self.source, self.folder, lambda line: None, False, False, shipped)

    def _from_logits(self, logits: np.ndarray, model: str, **provenance) -> Predictions:
        data = self.dataset
        about = {"model": model, "data": data.fingerprint, "versions": versions(), **provenance}
        images = data.ids, data.table["split"], data.labels, data.label_set
        return Predictions(*images, softmax(np.float64(logits), axis=1), provenance=about)
