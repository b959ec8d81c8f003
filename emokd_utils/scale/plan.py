"""What a run will take, before anything is fetched: downloads, disk, memory, hours (lesson 10).

Models are sized without their weights (`sizes`), and the formulas of lesson 10 say what a step of
each stage computes and holds; a GPU's peak and a share of it turn operations into hours. What the
estimate leaves out stands below the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..costs import count_parameters
from ..data import ImageDataset
from ..distillation import DistillationHead
from ..emotions import MIKELS, LabelSet, infer_label_set
from ..gates import build_gate
from ..instructions import (
    CONVERSATION_PROMPT,
    answer_for,
    categorical_prompt,
    read_instructions,
    write_instructions,
)
from ..maps import CELLS, WINDOW
from ..profiles import Profile, with_settings
from ..run.run import EXPLAINED, MISSED
from ..vlm import REASON_TOKENS
from ..world.describe import describe_scene
from .devices import GPUS, Device
from .sizes import SizedNetwork, SizedVLM, View, sized_network, sized_vlm

CONTEXT = 0.8  # GB on a GPU before the first tensor
IDLE = 1.1  # memory taken for memory used
ANSWER = 60  # tokens of a written answer where there is none to count
SMALL_STEP = (1e-4, 2e-3)  # seconds of a step of a head or gate

COLUMNS = ["steps", "TFLOP", "hours from", "to", "held GB", "step GB", "peak GB"]
"""Of a stage: its steps, operations (10**12), hours, and memory that stays, that a step takes, and at
the peak."""
MODEL_COLUMNS = ["parameters", "trained", "GB to fetch"]


@dataclass(frozen=True)
class Images:
    """What the models are to work on.

    sizes: width and height in pixels, of a sample. instructions: how many there are to tune on;
    texts: questions and answers of a sample of them. cues: kinds of cue that are known, or 1.
    """

    train: int
    val: int
    test: int
    labels: LabelSet
    sizes: tuple[tuple[int, int], ...]
    instructions: int
    texts: tuple[tuple[str, str], ...]
    cues: int = 1

    @classmethod
    def of(cls, dataset: ImageDataset, profile: Profile, sample: int = 200) -> Images:
        """Those of a data set; of a sample of its images sizes and instructions are looked at."""
        kinds, journal = profile.tuning.kinds, profile.tuning.instructions
        train, sizes = dataset.split("train"), []
        for image_id in dataset.ids[:: max(1, len(dataset) // sample)]:
            with Image.open(dataset.root / image_id) as image:
                sizes.append(image.size)
        some = train.select(train.ids[:: max(1, len(train) // sample)])
        if journal:
            written, _ = read_instructions(profile.path(journal), some, kinds)
        else:
            written, _ = write_instructions(some, kinds, describe=describe_scene)
        return cls(
            *(len(dataset.split(split)) for split in ("train", "val", "test")),
            labels=dataset.label_set,
            sizes=tuple(sizes),
            instructions=round(len(written) * len(train) / len(some)),
            texts=tuple((item.prompt, item.answer) for item in written),
            cues=dataset.table["cue"].nunique() if "cue" in dataset.table else 1,
        )

    @classmethod
    def assumed(cls, images: int, classes: int, kinds: Sequence[str]) -> Images:
        """So many of 640 x 480 pixels, a fifth of them for test and a tenth of the rest for val."""
        test = round(images / 5)
        val = round((images - test) / 10)
        train = images - test - val
        names = (*MIKELS.labels, *(f"emotion {k}" for k in range(9, classes + 1)))[:classes]
        answers = {"categorical": answer_for(names[0])}
        texts = tuple((CONVERSATION_PROMPT, answers.get(kind, "word" * ANSWER)) for kind in kinds)
        labels, sizes = infer_label_set(names), ((640, 480),)
        return cls(train, val, test, labels, sizes, train * len(kinds), texts)

    @property
    def total(self) -> int:
        """Images of all splits."""
        return self.train + self.val + self.test


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run will take.

    models: a row a model, with its parameters (all, trained) and the GB to fetch. table: a row a
    stage, columns COLUMNS. export: such a row for the maps and reasons that an export makes besides.
    disk: GB of what the run keeps. counted: whether text was counted by the model's own tokenizer.
    changes: what to set where it does not fit, each with the peak (GB) once it and those before it
    are set.
    """

    profile: Profile
    images: Images
    device: Device
    models: pd.DataFrame
    table: pd.DataFrame
    export: pd.Series
    disk: float
    counted: bool
    changes: tuple[tuple[str, float], ...] = ()

    @property
    def peak(self) -> float:
        """GB of the hungriest stage."""
        return self.table["peak GB"].max()

    @property
    def fits(self) -> bool:
        """Whether every stage fits into the device's memory."""
        return self.peak <= self.device.memory

    def __str__(self) -> str:
        images, device = self.images, self.device
        first, last = self.table["hours from"].sum(), self.table["to"].sum()
        shown = self.table.map(lambda v: f"{v:,.3g}" if 0 < v < 99.5 else f"{v:,.0f}")
        models = self.models.map(lambda v: f"{v:,}" if isinstance(v, int) else f"{v:.2f}")
        where = "this machine's CPU" if device.on_cpu else f"one {device.name}"
        words = "the model's tokenizer" if self.counted else "four characters a token"
        low, high = (f"{100 * share:.0f}" for share in device.shares)
        lines = [
            f"Profile {self.profile.name}, {images.total:,} images ({images.train:,} train, "
            f"{images.val:,} val, {images.test:,} test), {len(images.labels)} classes,",
            f"{where} with {device.memory:.0f} GB, one seed",
            f"\n{models.to_string()}",
            f"\nto fetch {self.models['GB to fetch'].sum():.2f} GB, to keep {self.disk:.2f} GB in runs/",
            f"\n{shown.to_string()}",
            f"\nin all {first:.3g} to {last:.3g} hours, at most {self.peak:.1f} GB: "
            + ("it fits" if self.fits else f"IT DOES NOT FIT into {device.memory:.0f} GB"),
            "maps and reasons for an export (unless --only-kept): "
            f"{self.export['hours from']:.3g} to {self.export['to']:.3g} hours more",
            *self._advice(),
            "\nHow it was estimated: weights as the models' configurations have them, operations and",
            "memory by the formulas of lesson 10. On TinyVLM the operations are within 15 % of what",
            "torch counts. Memory and hours are a guide: measure 50 steps before you book.",
            f"Memory: 10 % more, and {CONTEXT} GB for a GPU's driver. Hours: {low} to {high} % of the peak,",
            f"without the reading of images. Text: {words}. Head and gates: on the CPU.",
        ]
        if not (device.bf16 or device.on_cpu):
            lines.append(
                f"A {device.name} has no bfloat16: what is not in 4 bits will take longer."
            )
        return "\n".join(lines)

    def _advice(self) -> Iterator[str]:
        if self.fits:
            return
        for text, peak in self.changes:
            yield f"  --set {text:<40} then at most {peak:.1f} GB"
        if not self.changes or self.changes[-1][1] > self.device.memory:
            yield "  that is not enough: a smaller VLM by --vlm, or a larger GPU"
        roomy = [gpu.name for gpu in GPUS.values() if self.peak <= gpu.memory]
        if roomy:
            yield f"  as it is it fits into: {', '.join(roomy)}"


def plan(profile: Profile, images: Images, device: Device) -> Plan:
    """The plan of a run; where it does not fit, with the changes that make it.

    Raises InputError as `sizes.sized_vlm` and `vision.build_network`.
    """

    def planned(settings: dict[str, str]) -> Plan:
        return _plan(with_settings(profile, list(settings.values())), images, device)

    first = best = planned({})
    settings: dict[str, str] = {}  # field -> field=value
    while not best.fits and (change := _smaller(best)):
        settings[change.partition("=")[0]] = change
        best = planned(settings)
    for field in list(settings) if best.fits else ():  # what later ones have made needless
        others = {name: text for name, text in settings.items() if name != field}
        if planned(others).fits:
            settings = others
    texts = list(settings.items())
    peaks = [planned(dict(texts[:k])).peak for k in range(1, len(texts) + 1)]
    return replace(first, changes=tuple(zip(settings.values(), peaks, strict=True)))


def _smaller(plan: Plan) -> str:
    """The change, the least harmful first, by which the hungriest stage takes less; "" if none."""
    stage = plan.table["peak GB"].idxmax()
    for change in _candidates(plan.profile, stage):
        other = _plan(with_settings(plan.profile, [change]), plan.images, plan.device)
        if other.table["peak GB"].get(stage, 0.0) < 0.99 * plan.peak:
            return change
    return ""


def _candidates(profile: Profile, stage: str) -> Iterator[str]:
    if stage.startswith("vision"):
        if profile.vision.batch_size > 1:
            yield f"vision.batch_size={profile.vision.batch_size // 2}"
        name = stage.removeprefix("vision, ")
        others = (text for text in profile.further_vision if not text.startswith(name))
        yield f"further_vision={','.join(others)}"
        if profile.vision.image_size > 224:
            yield "vision.image_size=224"
    elif stage.startswith("tuning"):
        yield "tuning.recompute=true"
        if profile.tuning.batch_size > 1:
            yield f"tuning.batch_size={profile.tuning.batch_size // 2}"
    elif profile.vlm.batch_size > 1:
        yield f"vlm.batch_size={profile.vlm.batch_size // 2}"
    yield "vlm.quantize=nf4"
    for side in (1024, 768, 512, 336):
        if not 0 < profile.vlm.pixels <= side**2:
            yield f"vlm.pixels={side**2}"


def _plan(profile: Profile, images: Images, device: Device) -> Plan:
    """The plan without changes."""
    local, classes = profile.path(profile.vlm.name), len(images.labels)
    name = local.name if local.is_dir() else profile.vlm.name
    vlm = sized_vlm(str(local) if local.is_dir() else name, profile.vlm.pixels, profile.tuning)
    networks = {
        text: sized_network(text, profile.vision.image_size, classes)
        for text in (f"{profile.vision.name}@{profile.vision.weights}", *profile.further_vision)
    }
    width, kind = vlm.text.hidden_size, profile.gates[0]
    with torch.device("meta"):
        head = count_parameters(DistillationHead(width, classes, profile.head.depth)).total
        gate = count_parameters(build_gate(kind, classes)).total
    models = {name: (vlm.parameters + vlm.adapter, vlm.adapter, vlm.fetch)}
    for text, network in networks.items():
        models[text.partition("@")[0]] = network.total, network.total, network.fetch
    models |= {"head": (head, head, 0.0), f"gate, {kind.replace('_', ' ')}": (gate, gate, 0.0)}

    waiting = sum(4.0 * network.total for network in networks.values())
    stages = _vlm_stages(profile, images, device, vlm, waiting)
    held = vlm.weights(profile.vlm.quantize == "nf4", device.size)
    for text, network in networks.items():
        stage = f"vision, {text.partition('@')[0].partition('.')[0]}"
        stage = f"vision, {text}" if stage in stages else stage  # one model from two starts
        stages[stage] = _vision_stage(network, profile, images, device, held)
    stages["heads, gates"] = _small_stage(profile, images, device)
    table = pd.DataFrame.from_dict(stages, orient="index", columns=COLUMNS)
    kept = 4 * images.total * (width + classes * len(networks)) + waiting
    kept += 4 * (vlm.adapter + 2 * head) + 2 * images.total * (20 * classes + 90)  # as text
    return Plan(
        profile,
        images,
        device,
        pd.DataFrame.from_dict(models, orient="index", columns=MODEL_COLUMNS),
        table.drop("export"),
        table.loc["export"],
        kept / 1e9,
        vlm.processor is not None,
    )


# ------------------------------------------------------------------------------------------- stages


def _row(
    device: Device,
    steps: float,
    held: float = 0.0,
    step: float = 0.0,
    half: float = 0.0,
    single: float = 0.0,
    extra: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, ...]:
    """A stage's values in COLUMNS. held, step: bytes that stay, and that a step takes beside them at
    its peak. half, single: operations in 16 and in 32 bits. extra: further seconds, optimistic and
    pessimistic."""
    ideal = half / device.half + single / device.single
    low, high = (ideal / s + t for s, t in zip(device.shares[::-1], extra, strict=True))
    driver = 0.0 if device.on_cpu or not held else CONTEXT
    peak = driver + (held + IDLE * step) / 1e9
    work = (half + single) / 1e12
    return math.ceil(steps), work, low / 3600, high / 3600, held / 1e9, step / 1e9, peak


def _vlm_stages(
    profile: Profile, images: Images, device: Device, vlm: SizedVLM, waiting: float
) -> dict[str, tuple[float, ...]]:
    """Features, tuning, answers scored and written, and what an export makes. waiting: bytes of the
    vision models meanwhile."""
    usual, largest = _views(vlm, images)
    size, batch, nf4 = device.size, profile.vlm.batch_size, profile.vlm.quantize == "nf4"
    weights, unpacked = vlm.weights(nf4, size), nf4 * size * vlm.largest
    question = vlm.question(categorical_prompt(images.labels))
    answer = max(vlm.length(answer_for(label)) for label in images.labels) + 1
    shared = vlm.length(answer_for("")) - 1  # the beginning of all answers; then all endings
    tree = shared + 1 + len(images.labels) * (answer - shared - 1)

    def answering(
        count: int, text: int = 0, kept: int = 0, cache: float = 0.0, tokens: int = 0
    ) -> tuple[float, ...]:
        """Of so many images with a text of so many tokens; the last ``kept`` get an output.
        ``tokens``: are written, and the weights read for each."""
        work, step = vlm.seeing(usual), vlm.seeing_bytes(largest, size)
        if text:
            work += vlm.reading(usual.tokens + text, kept)
            step = max(step, vlm.reading_bytes(largest.tokens + text, kept, size))
        held = weights + (waiting if text else 0.0)
        reading = tokens * weights / device.bandwidth
        field = {"single" if device.on_cpu else "half": count * work}
        step = batch * step + unpacked + cache
        return _row(device, count / batch, held, step, extra=(reading, 5 * reading), **field)

    mapped = min(images.test, EXPLAINED * images.cues)
    passes = mapped * ((CELLS - WINDOW + 1) ** 2 + 1)
    judged = images.total + images.val + images.test
    longest = largest.tokens + question + profile.vlm.max_new_tokens
    cache, batches = vlm.cache_bytes(batch * longest, size), math.ceil(images.test / batch)
    writing = REASON_TOKENS * math.ceil(min(images.test, mapped + MISSED) / batch)
    return {
        "features": answering(images.total),
        f"tuning, {profile.tuning.epochs} epochs": _tuning(profile, images, device, vlm, waiting),
        "answers scored": answering(judged, question + tree, tree),
        "answers written": answering(images.test, question, 1, cache, answer * batches),
        "export": answering(passes, question + tree, tree, tokens=writing),
    }


def _tuning(
    profile: Profile, images: Images, device: Device, vlm: SizedVLM, waiting: float
) -> tuple[float, ...]:
    usual, largest = _views(vlm, images)
    settings, rows, nf4 = profile.tuning, profile.tuning.batch_size, bool(profile.vlm.quantize)
    low = 2 if device.bf16 else device.size
    lengths = [vlm.question(asked) + vlm.length(answer) + 1 for asked, answer in images.texts]
    padded = np.quantile(lengths, rows / (rows + 1)) if rows > 1 else np.mean(lengths)
    steps = math.ceil(images.instructions / rows) * settings.epochs
    held = vlm.weights(nf4, device.size) + 8 * vlm.adapter + waiting  # AdamW's two averages
    step = rows * vlm.tuning_bytes(largest.tokens + max(lengths), device.size, low, settings)
    step += 4 * vlm.adapter + nf4 * device.size * vlm.largest  # gradients; a matrix unpacked
    work = steps * rows * vlm.tuning(usual, usual.tokens + padded, settings.recompute)
    return _row(device, steps, held, step, half=work)


def _views(vlm: SizedVLM, images: Images) -> tuple[View, View]:
    """What the VLM sees of the image that is nearest to the mean, and of the largest."""
    views = [vlm.view(*size) for size in images.sizes]
    mean = np.mean([view.tokens for view in views])
    return min(views, key=lambda v: abs(v.tokens - mean)), max(views, key=lambda v: v.tokens)


def _vision_stage(
    network: SizedNetwork, profile: Profile, images: Images, device: Device, waiting: float
) -> tuple[float, ...]:
    """Training, with the val split judged after each epoch, and logits of every image. waiting:
    bytes of the VLM meanwhile."""
    settings, rows = profile.vision, profile.vision.batch_size
    steps = settings.epochs * max(1, images.train // rows)
    at_once = min(100, 100 * 224**2 // settings.image_size**2) or 1  # as `vision.Pixels.batches`
    trained = 3 * steps * rows * network.operations  # forward, and backward twice as much
    judged = (settings.epochs * images.val + images.total) * network.operations
    held = 16.0 * network.total + waiting  # weights, AdamW's two averages, the best epoch
    step = max(network.training_bytes(rows, device.bf16), 4.0 * at_once * network.widest)
    if device.bf16:
        return _row(device, steps, held, step, half=trained, single=judged)
    return _row(device, steps, held, step, single=trained + judged)


def _small_stage(profile: Profile, images: Images, device: Device) -> tuple[float, ...]:
    """Two heads, every gate that the report compares, that as published and both models' own."""
    rows = images.train if profile.gate_split == "train" else images.val
    steps = 2 * profile.head.epochs * math.ceil(images.train / profile.head.batch_size)
    gates = (len(profile.gates) + 2) * (profile.gate.folds + 1) * profile.gate.epochs
    steps += gates * math.ceil(rows / profile.gate.batch_size)
    return _row(device, steps, extra=(steps * SMALL_STEP[0], steps * SMALL_STEP[1]))
