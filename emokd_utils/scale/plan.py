"""``python -m emokd_utils plan``: what a run will take, before anything is fetched (lesson 10).

One step of each stage is gone through without numbers (`shapes`) and multiplied by its count; a
GPU's peak and a share of it turn operations into hours. What the estimate leaves out stands below
the tables.
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..cli.doctor import free_memory
from ..costs import count_parameters
from ..data import ImageDataset
from ..distillation import DistillationHead
from ..emotions import MIKELS, LabelSet, infer_label_set
from ..errors import InputError
from ..explanations import CELLS, WINDOW
from ..gates import build_gate
from ..instructions import (
    CONVERSATION_PROMPT,
    answer_for,
    categorical_prompt,
    chat_text,
    read_instructions,
    write_instructions,
)
from ..profiles import Profile
from ..run.environment import asked_profile
from ..run.pipeline import EXPLAINED, MISSED, Pipeline
from ..settings import VisionSettings
from ..vision import build_network
from ..vlm import REASON_TOKENS, common_prefix
from .shapes import (
    ShapedVLM,
    answer_step,
    features_step,
    fetched,
    shaped_vlm,
    tuning_step,
    vision_step,
)

CONTEXT = 0.8  # GB on a GPU before the first tensor
IDLE = 1.1  # memory taken for memory used
FRAME = 25  # tokens of the chat format around a question
ANSWER = 60  # tokens of a written answer where there is none to count
EVALUATED = 100  # images that the vision model judges at once
SMALL_STEP = (1e-4, 2e-3)  # seconds of a step of a head or gate


@dataclass(frozen=True)
class Device:
    """What computes.

    memory: GB (10**9 bytes). half, single: peak operations a second of matrix products in 16 bits
    (summed in 32, no sparsity) and in 32 bits. bandwidth: bytes a second of its memory. bf16:
    whether it has bfloat16. shares: of the peak, the pessimistic and the optimistic one.
    """

    name: str
    memory: float
    half: float
    single: float
    bandwidth: float
    bf16: bool = True
    shares: tuple[float, float] = (0.2, 0.4)


GPUS = {
    gpu.name: gpu
    for gpu in (  # NVIDIA's data sheets and white papers of the architectures
        Device("T4", 16, 65e12, 8.1e12, 320e9, bf16=False),
        Device("L4", 24, 121e12, 30.3e12, 300e9),
        Device("RTX 3090", 24, 71e12, 35.6e12, 936e9),
        Device("RTX 4090", 24, 165e12, 82.6e12, 1008e9),
        Device("A100-40", 40, 312e12, 19.5e12, 1555e9),
        Device("A100-80", 80, 312e12, 19.5e12, 2039e9),
        Device("H100", 80, 989e12, 67e12, 3350e9),
    )
}


def get_device(name: str | None, profile: Profile) -> Device:
    """The GPU of this name, or "cpu": this machine's. Without a name the GPU that is here; where
    there is none an L4 for a profile with weights in 4 bits, else the CPU.

    Raises InputError for a name that is not known.
    """
    if not name and torch.cuda.is_available():
        here = torch.cuda.get_device_properties(0)
        for known, gpu in GPUS.items():
            if re.search(rf"\b{known.split('-')[0]}\b", here.name):
                return replace(gpu, memory=here.total_memory / 1e9)
        raise InputError(f"the table has no {here.name}: name one like it, {', '.join(GPUS)}")
    name = name or ("L4" if profile.vlm.quantize else "cpu")
    found = {known.lower(): gpu for known, gpu in GPUS.items()}.get(name.lower())
    if name.lower() == "cpu":
        fast = torch.cpu._is_amx_tile_supported()
        single = _speed(torch.float32)
        half = _speed(torch.bfloat16) if fast else single
        memory = (free_memory() or 8e9) / 1e9
        return Device("cpu", memory, half, single, 10e9, fast, (0.08, 0.8))
    if found is None:
        raise InputError(f"there is no GPU {name!r} in the table: {', '.join(GPUS)}, or cpu")
    return found


def _speed(dtype: torch.dtype, side: int = 1024) -> float:
    """Operations a second of this CPU in the fastest of some products of matrices."""
    a, seconds = torch.ones(side, side, dtype=dtype), []
    for _ in range(5):
        begin = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / min(seconds)


@dataclass(frozen=True)
class Images:
    """What the models are to work on.

    sizes: width and height in pixels, of a sample. instructions: how many there are to tune on;
    texts: questions and answers of a sample of them. cues: kinds of cue that are told, or 1.
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
        for name in dataset.ids[:: max(1, len(dataset) // sample)]:
            with Image.open(dataset.root / name) as image:
                sizes.append(image.size)
        some = train.select(train.ids[:: max(1, len(train) // sample)])
        if journal:
            written, _ = read_instructions(profile.path(journal), some, kinds)
        else:
            written, _ = write_instructions(some, kinds)
        return cls(
            *(len(dataset.split(name)) for name in ("train", "val", "test")),
            labels=dataset.label_set,
            sizes=tuple(sizes),
            instructions=round(len(written) * len(train) / len(some)),
            texts=tuple((one.prompt, one.answer) for one in written),
            cues=dataset.table["cue"].nunique() if "cue" in dataset.table else 1,
        )

    @classmethod
    def assumed(cls, images: int, classes: int, kinds: Sequence[str]) -> Images:
        """So many of 640 x 480 pixels, a fifth of them for test and a tenth of the rest for val."""
        test = round(images / 5)
        val = round((images - test) / 10)
        names = (*MIKELS.labels, *(f"emotion {k}" for k in range(9, classes + 1)))[:classes]
        answers = {"categorical": answer_for(names[0])}
        texts = [(CONVERSATION_PROMPT, answers.get(kind, "word" * ANSWER)) for kind in kinds]
        train = images - test - val
        return cls(
            train,
            val,
            test,
            infer_label_set(names),
            ((640, 480),),
            train * len(kinds),
            tuple(texts),
        )

    @property
    def total(self) -> int:
        """Images of all splits."""
        return self.train + self.val + self.test


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    weights, step: bytes that stay, and that a step takes beside them at its peak. half, single:
    operations in 16 and in 32 bits. extra: further seconds, optimistic and pessimistic.
    """

    name: str
    steps: int
    weights: float = 0.0
    step: float = 0.0
    half: float = 0.0
    single: float = 0.0
    extra: tuple[float, float] = (0.0, 0.0)

    def gigabytes(self, device: Device) -> float:
        """Memory at the peak."""
        driver = 0.0 if device.name == "cpu" or not self.weights else CONTEXT
        return driver + (self.weights + IDLE * self.step) / 1e9

    def hours(self, device: Device) -> tuple[float, float]:
        """Optimistic and pessimistic."""
        ideal = self.half / device.half + self.single / device.single
        shares = device.shares[::-1]
        low, high = (ideal / s + more for s, more in zip(shares, self.extra, strict=True))
        return low / 3600, high / 3600


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run will take.

    models: a row a model, with its parameters (all, trained) and the GB to fetch. disk: GB of what
    the run keeps. counted: whether text was counted by the model's own tokenizer. export: the maps
    and reasons that an export makes besides. changes: what to set where it does not fit, each with
    the peak (GB) once it and those before it are set.
    """

    profile: Profile
    images: Images
    device: Device
    models: pd.DataFrame
    stages: tuple[Stage, ...]
    disk: float
    counted: bool
    export: Stage
    changes: tuple[tuple[str, float], ...] = ()

    @property
    def peak(self) -> float:
        """GB of the hungriest stage."""
        return max(stage.gigabytes(self.device) for stage in self.stages)

    @property
    def fits(self) -> bool:
        """Whether every stage fits into the device's memory."""
        return self.peak <= self.device.memory

    def table(self) -> pd.DataFrame:
        """A row a stage: steps, operations (10**12), hours from and to, memory (GB) that is held, that
        a step takes, and at the peak."""
        rows = {
            stage.name: (
                stage.steps,
                (stage.half + stage.single) / 1e12,
                *stage.hours(self.device),
                stage.weights / 1e9,
                stage.step / 1e9,
                stage.gigabytes(self.device),
            )
            for stage in self.stages
        }
        columns = ["steps", "TFLOP", "hours from", "to", "held GB", "step GB", "peak GB"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def __str__(self) -> str:
        images, device, table = self.images, self.device, self.table()
        whole = table[["hours from", "to"]].sum()
        shown = table.map(lambda v: f"{v:,.3g}" if 0 < v < 99.5 else f"{v:,.0f}")
        models = self.models.map(lambda v: f"{v:,}" if isinstance(v, int) else f"{v:.2f}")
        where = "this machine's CPU" if device.name == "cpu" else f"one {device.name}"
        words = "the model's tokenizer" if self.counted else "four characters a token"
        low, high = (f"{100 * share:.0f}" for share in device.shares)
        lines = [
            f"Profile {self.profile.name}, {images.total:,} images ({images.train:,} train, "
            f"{images.val:,} val, {images.test:,} test), {len(images.labels)} classes,",
            f"{where} with {device.memory:.0f} GB, one seed",
            f"\n{models.to_string()}",
            f"\nto fetch {self.models['GB to fetch'].sum():.2f} GB, to keep {self.disk:.2f} GB in runs/",
            f"\n{shown.to_string()}",
            f"\nin all {whole['hours from']:.3g} to {whole['to']:.3g} hours, at most {self.peak:.1f} GB: "
            + ("it fits" if self.fits else f"IT DOES NOT FIT into {device.memory:.0f} GB"),
            "maps and reasons for an export (unless --only-kept): {:.3g} to {:.3g} hours more".format(
                *self.export.hours(device)
            ),
            *self._advice(),
            "\nHow it was estimated: one step of each stage was gone through without numbers, its",
            "operations counted and the tensors alive added up; on TinyVLM that is within 15 % of what",
            "was counted and measured (tests/test_plan.py; no GPU was at hand for it).",
            f"Memory: 10 % more, and {CONTEXT} GB for a GPU's driver. Hours: {low} to {high} % of the peak,",
            f"without the reading of images. Text: {words}. Head and gates: on the CPU.",
        ]
        if not (device.bf16 or device.name == "cpu"):
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

    Raises InputError as `shapes.shaped_vlm` and `vision.build_network`.
    """
    found = best = _plan(profile, images, device)
    fields: dict[str, object] = {}
    while not best.fits and (more := _smaller(best, images, device)):
        fields |= more
        best = _plan(replace(profile, **fields), images, device)
    for field in list(fields) if best.fits else ():
        others = {name: value for name, value in fields.items() if name != field}
        if _plan(replace(profile, **others), images, device).fits:
            fields = others
    changes = []
    for k, (field, value) in enumerate(fields.items(), 1):
        peak = _plan(replace(profile, **dict(list(fields.items())[:k])), images, device).peak
        text = ",".join(value) if isinstance(value, tuple) else str(value).lower()
        changes.append((f"{field}={text}", peak))
    return replace(found, changes=tuple(changes))


def _smaller(plan: Plan, images: Images, device: Device) -> dict[str, object]:
    """The change, the least harmful first, by which the hungriest stage takes less; {} if none."""
    worst = max(plan.stages, key=lambda stage: stage.gigabytes(device))
    for field, value in _candidates(plan.profile, worst.name):
        other = _plan(replace(plan.profile, **{field: value}), images, device)
        peaks = [s.gigabytes(device) for s in other.stages if s.name == worst.name]
        if max(peaks, default=0.0) < 0.99 * worst.gigabytes(device):
            return {field: value}
    return {}


def _candidates(profile: Profile, stage: str) -> Iterator[tuple[str, object]]:
    if stage.startswith("vision"):
        if profile.vision.batch_size > 1:
            yield "vision_batch_size", profile.vision.batch_size // 2
        name = stage.removeprefix("vision, ")
        yield "vision_further", tuple(f for f in profile.further_vision if not f.startswith(name))
        if profile.vision.image_size > 224:
            yield "vision_image_size", 224
    elif stage.startswith("tuning"):
        yield "tuning_recompute", True
        if profile.tuning.batch_size > 1:
            yield "tuning_batch_size", profile.tuning.batch_size // 2
    elif profile.vlm.batch_size > 1:
        yield "vlm_batch_size", profile.vlm.batch_size // 2
    yield "vlm_quantize", "nf4"
    for side in (1024, 768, 512, 336):
        if not 0 < profile.vlm.pixels <= side**2:
            yield "vlm_pixels", side**2


def _plan(profile: Profile, images: Images, device: Device) -> Plan:
    on_cpu = device.name == "cpu"
    dtype = torch.float32 if on_cpu else torch.bfloat16
    local = profile.path(profile.vlm.name)
    source = str(local) if local.is_dir() else profile.vlm.name
    tuning = profile.tuning
    vlm = shaped_vlm(source, profile.vlm.pixels, dtype, tuning)
    classes, total = len(images.labels), images.total
    counts = count_parameters(vlm.model, trained="lora_")
    fetch = 0.0 if vlm.here else 2 * (counts.total - counts.trained) / 1e9
    models = {source if not vlm.here else Path(source).name: (counts.total, counts.trained, fetch)}

    networks = list(_networks(profile, classes, models))
    resident = sum(4.0 * count_parameters(network).total for _, network in networks)
    with torch.device("meta"):
        settings = profile.head
        width = vlm.core.config.get_text_config().hidden_size
        head = count_parameters(DistillationHead(width, classes, settings.depth)).total
        gate = count_parameters(build_gate(profile.gates[0], classes)).total
    models["head"] = (head, head, 0.0)
    models[f"gate, {profile.gates[0].replace('_', ' ')}"] = (gate, gate, 0.0)

    *of_vlm, export = _vlm_stages(profile, images, device, vlm, resident)
    stages = [
        *of_vlm,
        *(_vision_stage(name, network, profile, images, device) for name, network in networks),
        _small_stage(profile, images),
    ]
    in_use, _ = vlm.weights(profile.vlm.quantize == "nf4")
    stages = [
        replace(stage, weights=stage.weights + in_use)  # the VLM waits in memory meanwhile
        if stage.name.startswith("vision")
        else stage
        for stage in stages
    ]
    kept = (
        4 * total * (width + classes * len(networks)) + resident + 4 * (counts.trained + 2 * head)
    )
    kept += 2 * total * (20 * classes + 90)  # predictions, as text
    frame = pd.DataFrame.from_dict(
        models, orient="index", columns=["parameters", "trained", "GB to fetch"]
    )
    counted = vlm.processor is not None
    return Plan(profile, images, device, frame, tuple(stages), kept / 1e9, counted, export)


def _networks(
    profile: Profile, classes: int, models: dict
) -> Iterator[tuple[str, torch.nn.Module]]:
    """The vision models without numbers; each is entered into ``models``."""
    first = f"{profile.vision.name}@{profile.vision.weights}"
    for text in (first, *profile.further_vision):
        name, _, weights = text.partition("@")
        network, whole = _network(name, profile.vision.image_size, classes)
        size = count_parameters(network).total
        absent = weights == "timm" and not fetched(network.pretrained_cfg["hf_hub_id"] or name)
        models[name] = (size, size, 4 * whole / 1e9 if absent else 0.0)
        yield name, network


@functools.cache
def _network(name: str, size: int, classes: int) -> tuple[torch.nn.Module, int]:
    """A vision model without numbers, and how many parameters it has as published."""
    with torch.device("meta"):
        network = build_network(VisionSettings(name, size), classes)
        published = network.pretrained_cfg["num_classes"] or classes
        return network, count_parameters(build_network(VisionSettings(name, size), published)).total


def _vlm_stages(
    profile: Profile, images: Images, device: Device, vlm: ShapedVLM, resident: float
) -> Iterator[Stage]:
    """Features, tuning, answers scored and written; last what an export makes. resident: bytes of
    the vision models."""
    seen = [vlm.image(*size) for size in images.sizes]
    mean = np.mean([tokens for _, tokens in seen])
    usual, largest = min(seen, key=lambda s: abs(s[1] - mean)), max(seen, key=lambda s: s[1])
    batch, total = profile.vlm.batch_size, images.total
    on_cpu = device.name == "cpu"
    field = "single" if on_cpu else "half"

    def stage(name: str, count: int, step: Callable, weights: float, spare: float, **more) -> Stage:
        """A stage of ``count`` images; ``step``: of (patches, tokens), a batch of them."""
        work = {field: step(usual).flops * count / batch}
        size = step(largest).bytes + spare
        return Stage(name, math.ceil(count / batch), weights, size, **work, **more)

    in_use, spare = vlm.weights(profile.vlm.quantize == "nf4")
    yield stage("features", total, lambda s: features_step(vlm, s[0], batch), in_use, spare)

    trained, spare_tuning = vlm.weights(bool(profile.vlm.quantize))
    lora = count_parameters(vlm.model, trained="lora_").trained
    lengths = [_question(vlm, asked) + vlm.length(answer) + 1 for asked, answer in images.texts]
    rows = profile.tuning.batch_size
    low = torch.bfloat16 if device.bf16 or not on_cpu else None

    def tuned(image: tuple[int, int], text: float):
        length = image[1] + round(text)
        return tuning_step(vlm, image[0], rows, length, profile.tuning.recompute, low)

    padded = np.quantile(lengths, rows / (rows + 1)) if rows > 1 else np.mean(lengths)
    steps = math.ceil(images.instructions / rows) * profile.tuning.epochs
    yield Stage(
        f"tuning, {profile.tuning.epochs} epochs",
        steps,
        trained + 8 * lora + resident,  # AdamW's two averages
        tuned(largest, max(lengths)).bytes + spare_tuning,
        half=steps * tuned(usual, padded).flops,
    )

    trunk = _question(vlm, categorical_prompt(images.labels))
    shared, endings, answer = _answers(vlm, images.labels.labels)
    tree = shared + 1 + endings

    def scored(image: tuple[int, int]):
        return answer_step(vlm, image[0], batch, image[1] + trunk + tree, tree)

    held = in_use + resident
    yield stage("answers scored", total + images.val + images.test, scored, held, spare)

    cache = vlm.cache(batch * (largest[1] + trunk + profile.vlm.max_new_tokens))
    token = in_use / device.bandwidth  # seconds to read the weights once
    reading = token * answer * math.ceil(images.test / batch)
    yield stage(
        "answers written",
        images.test,
        lambda s: answer_step(vlm, s[0], batch, s[1] + trunk, 1),
        held,
        spare + cache,
        extra=(reading, 5 * reading),
    )

    mapped = min(images.test, EXPLAINED * images.cues)
    writing = token * REASON_TOKENS * math.ceil(min(images.test, mapped + MISSED) / batch)
    passes = mapped * ((CELLS - WINDOW + 1) ** 2 + 1)
    yield stage("export", passes, scored, held, spare, extra=(writing, 5 * writing))


def _question(vlm: ShapedVLM, prompt: str) -> int:
    """Tokens of a question in the chat's format, without those of the image."""
    if vlm.processor is None:
        return vlm.length(prompt) + FRAME
    return vlm.length(chat_text(vlm.processor, prompt)) - 1


def _answers(vlm: ShapedVLM, labels: Sequence[str]) -> tuple[int, int, int]:
    """Tokens that all answers begin with, of their endings side by side, and of the longest."""
    texts = [answer_for(label) for label in labels]
    if vlm.processor is None:
        lengths, shared = [vlm.length(text) + 1 for text in texts], vlm.length(answer_for("")) - 1
    else:
        tokenizer = vlm.processor.tokenizer
        rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], 0] for text in texts]
        lengths, shared = [len(row) for row in rows], len(common_prefix(rows))
    return shared, len(texts) * (max(lengths) - shared - 1), max(lengths)


def _vision_stage(
    name: str, network: torch.nn.Module, profile: Profile, images: Images, device: Device
) -> Stage:
    """Training, with the val split judged after each epoch, and logits of every image."""
    size, rows = profile.vision.image_size, profile.vision.batch_size
    steps = profile.vision.epochs * max(1, images.train // rows)
    trained = vision_step(network, rows, size, torch.bfloat16 if device.bf16 else None)
    judged = vision_step(network, EVALUATED, size, train=False)
    seen = profile.vision.epochs * images.val + images.total
    work = {"half" if device.bf16 else "single": steps * trained.flops}
    work["single"] = work.get("single", 0.0) + seen / EVALUATED * judged.flops
    return Stage(
        f"vision, {name.partition('.')[0]}",
        steps,
        16.0 * count_parameters(network).total,  # weights, AdamW's two averages, the best epoch
        max(trained.bytes, judged.bytes),
        **work,
    )


def _small_stage(profile: Profile, images: Images) -> Stage:
    """Two heads, every gate that the report compares, that as published and both models' own."""
    rows = images.train if profile.gate_split == "train" else images.val
    steps = 2 * profile.head.epochs * math.ceil(images.train / profile.head.batch_size)
    gates = (len(profile.gates) + 2) * (profile.gate.folds + 1) * profile.gate.epochs
    steps += gates * math.ceil(rows / profile.gate.batch_size)
    return Stage("heads, gates", steps, extra=(steps * SMALL_STEP[0], steps * SMALL_STEP[1]))


def main(args) -> int:
    """The command ``plan``; exit code 1 where the run does not fit."""
    profile = asked_profile(args)
    if args.images:
        images = Images.assumed(args.images, args.classes, profile.tuning.kinds)
    elif args.data and not args.data.is_dir():
        raise InputError(f"{args.data} is no folder; without images say how many: --images N")
    else:
        line = Pipeline(profile, args.data, args.runs, args.skip_bad, progress=False)
        images = Images.of(line.dataset, profile)
    found = plan(profile, images, get_device(args.gpu, profile))
    print(found)
    return int(not found.fits)
