"""What a run will take, before anything is fetched: downloads, disk, memory, hours (lesson 10). By
formulas of what a step of each stage computes and holds; a share of a GPU's peak gives hours."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from .. import instructions
from ..data import ImageDataset
from ..emotions import MIKELS, LabelSet, infer_label_set
from ..profiles import Profile, with_settings
from ..world.describe import describe_scene
from .devices import Device
from .sizes import SizedNetwork, sized_network, sized_vlm

CONTEXT = 0.8  # GB on a GPU before the first tensor
IDLE = 1.1  # memory taken for memory used
SMALL_STEP = np.array([1e-4, 2e-3])  # seconds of a step of a head or gate
COLUMNS = ["steps", "TFLOP", "hours from", "to", "peak GB"]  # of a stage
MODEL_COLUMNS = ["parameters", "trained", "GB to fetch"]


@dataclass(frozen=True)
class Images:
    """How many, width and height of a sample in pixels, how many instructions there are to tune on,
    questions and answers of a sample."""

    train: int
    val: int
    test: int
    labels: LabelSet
    sizes: tuple[tuple[int, int], ...]
    instructions: int
    texts: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, dataset: ImageDataset, profile: Profile) -> Self:
        """Those of a data set; some 200 are looked at."""
        train, kinds = dataset.split("train"), profile.tuning.kinds
        if journal := profile.tuning.instructions:
            written, _ = instructions.read_instructions(profile.path(journal), train, kinds)
        else:
            written, _ = instructions.write_instructions(train, kinds, describe=describe_scene)
        some = dataset.ids[:: len(dataset) // 200 + 1]
        sizes = tuple(dataset.open(image_id).size for image_id in some)
        texts = tuple((i.prompt, i.answer) for i in written[:: len(written) // 200 + 1])
        counts = (len(dataset.split(split)) for split in ("train", "val", "test"))
        return cls(*counts, dataset.label_set, sizes, len(written), texts)

    @classmethod
    def assumed(cls, images: int, classes: int, kinds: Sequence[str]) -> Self:
        """So many of 640 x 480 pixels, a fifth of them for test and a tenth of the rest for val."""
        test = round(images / 5)
        val = round((images - test) / 10)
        train = images - test - val
        names = (*MIKELS.labels, *(f"emotion {k}" for k in range(9, classes + 1)))[:classes]
        first, prompt = instructions.answer_for(names[0]), instructions.CONVERSATION_PROMPT
        texts = tuple((prompt, first if k == "categorical" else "word" * 60) for k in kinds)
        labels = infer_label_set(names)
        return cls(train, val, test, labels, ((640, 480),), train * len(kinds), texts)

    @property
    def total(self) -> int:
        """Images of all splits."""
        return self.train + self.val + self.test


class Plan:
    """models, table: a row a model and a stage. disk, peak, lacking: GB that the run keeps, that the
    hungriest stage takes, that stages lack. changes: what to set where it does not fit, each with the
    peak once all up to it are."""

    def __init__(self, profile: Profile, images: Images, device: Device) -> None:
        self.profile, self.images, self.device = profile, images, device
        self.changes: tuple[tuple[str, float], ...] = ()
        folder, vision, classes = profile.path(profile.vlm.name), profile.vision, len(images.labels)
        source = str(folder) if folder.is_dir() else profile.vlm.name
        self.vlm = vlm = sized_vlm(source, profile.vlm.pixels, profile.tuning)
        self.on_cpu, self.size = device.name == "cpu", 4 if device.name == "cpu" else 2
        self.weights = vlm.weights(profile.vlm.quantize == "nf4", self.size)
        networks = {
            text: sized_network(text.partition("@")[0], vision.image_size, classes)
            for text in (f"{vision.name}@{vision.weights}", *profile.further_vision)
        }
        self.waiting = sum(4.0 * network.total for network in networks.values())
        views = sorted((vlm.view(*size) for size in images.sizes), key=lambda view: view.tokens)
        self.usual, self.largest = views[len(views) // 2], views[-1]
        question = vlm.length(instructions.categorical_prompt(images.labels), chat=True)
        answer = max(vlm.length(instructions.answer_for(label)) for label in images.labels) + 1
        shared = vlm.length(instructions.answer_for(""))  # of all answers; then all endings
        tree = shared + classes * (answer - shared)
        judged = images.total + images.val + 2 * images.test  # scored, and some written
        fetch = 2e-9 * vlm.parameters * (not folder.is_dir())
        models = {profile.vlm.name: (vlm.parameters, vlm.adapter, fetch)}
        stages = {
            "features": self._answering(images.total, 0, 0),
            f"tuning, {profile.tuning.epochs} epochs": self._tuning(),
            "answers": self._answering(judged, question + tree, tree, classes),
        }
        for text, network in networks.items():
            name, _, start = text.partition("@")
            models[name] = network.total, network.total, 4e-9 * network.total * (start == "timm")
            stage = f"vision, {name.partition('.')[0]}"
            stage = f"vision, {text}" if stage in stages else stage  # one model from two starts
            stages[stage] = self._vision(network)
        stages["heads, gates"] = self._small()
        self.models = pd.DataFrame.from_dict(models, orient="index", columns=MODEL_COLUMNS)
        self.table = pd.DataFrame.from_dict(stages, orient="index", columns=COLUMNS)
        # Features and logits; weights, of two heads too; probabilities and labels as text.
        width = vlm.text.hidden_size
        kept = 4 * images.total * (width + classes * len(networks))
        kept += self.waiting + 4 * (vlm.adapter + 2 * 1024 * width)
        self.disk = (kept + 2 * images.total * (20 * classes + 90)) / 1e9
        self.peak = self.table["peak GB"].max()
        self.lacking = (self.table["peak GB"] - device.memory).clip(0).sum()
        self.fits = not self.lacking

    def __str__(self) -> str:
        def shown(table: pd.DataFrame) -> str:
            return table.map(lambda v: f"{v:,.3g}" if 0 < v < 99.5 else f"{v:,.0f}").to_string()

        images, device = self.images, self.device
        first, last = self.table[["hours from", "to"]].sum()
        low, high = (f"{100 * share:.0f}" for share in device.shares)
        verdict = ["it fits" if self.fits else f"\nIT DOES NOT FIT into {device.memory:.0f} GB"]
        verdict += [f"  --set {text:<40} then at most {peak:.1f} GB" for text, peak in self.changes]
        if min([self.peak, *(peak for _, peak in self.changes)]) > device.memory:
            verdict.append("  that is not enough: a smaller VLM by --vlm, or a larger GPU")
        return f"""\
Profile {self.profile.name}, {images.total:,} images ({images.train:,} train, {images.val:,} val, \
{images.test:,} test), {len(images.labels)} classes,
{device.name} with {device.memory:.0f} GB, one seed

{shown(self.models)}

to fetch {self.models["GB to fetch"].sum():.2f} GB, less what is here; to keep {self.disk:.2f} GB

{shown(self.table)}

in all {first:.3g} to {last:.3g} hours, at most {self.peak:.1f} GB: {chr(10).join(verdict)}

By the formulas of lesson 10: a guide, so measure 50 steps before you book. Memory: 10 % more, and
{CONTEXT} GB for a GPU's driver. Hours: {low} to {high} % of the peak, without the reading of images and
an export; longer on a GPU without bfloat16 (T4). Head and gates: on the CPU."""

    def _row(self, steps, half, single, held, step) -> tuple[float, ...]:
        """half, single: operations in 16 and 32 bits. held, step: bytes that stay, and a step's."""
        hours = (half / self.device.half + single / self.device.single) / 3600
        slow, fast = self.device.shares
        peak = CONTEXT * (not self.on_cpu) + (held + IDLE * step) / 1e9
        return math.ceil(steps), (half + single) / 1e12, hours / fast, hours / slow, peak

    def _answering(self, count: int, text: int, kept: int, k: int = 0) -> tuple[float, ...]:
        vlm, batch = self.vlm, self.profile.vlm.batch_size
        work = vlm.seeing(self.usual)
        work += vlm.reading(self.usual.tokens + text, kept) if text else 0
        half, single = (0.0, count * work) if self.on_cpu else (count * work, 0.0)
        step = batch * vlm.answering_bytes(self.largest, text, kept, k, self.size)
        held = self.weights + self.waiting * bool(text)
        return self._row(count / batch, half, single, held, step)

    def _tuning(self) -> tuple[float, ...]:
        vlm, settings, images = self.vlm, self.profile.tuning, self.images
        learnt = np.array([vlm.length(text) + 1 for _, text in images.texts])
        lengths = learnt + [vlm.length(asked, chat=True) for asked, _ in images.texts]
        group = min(settings.batch_size, round(images.instructions / images.train)) or 1
        packed = group if vlm.shares else 1  # instructions of a row
        rows = settings.batch_size // group * group // packed  # of a step
        steps = math.ceil(images.instructions / (rows * packed)) * settings.epochs
        known = packed * lengths.mean(), packed * learnt.mean()
        work = rows * vlm.tuning(self.usual.tokens + known[0], known[1], settings.recompute)
        kept = 1e6 * settings.cache_megabytes
        handed = images.train * self.usual.tokens * vlm.handed * self.size  # bytes, of all images
        passes = settings.epochs - (settings.epochs - 1) * min(1, kept / handed)
        seen = images.train * passes * vlm.seeing(self.usual)
        held = self.weights + self.waiting + 12 * vlm.adapter  # gradients, AdamW's two averages
        held += min(kept, handed) * self.on_cpu
        longest = self.largest.tokens + packed * lengths.max(), packed * learnt.max()
        step = rows * vlm.tuning_bytes(*longest, self.size, settings)
        step = max(step, rows * vlm.answering_bytes(self.largest, 0, 0, 0, self.size))
        return self._row(steps, steps * work + seen, 0.0, held, step)

    def _vision(self, network: SizedNetwork) -> tuple[float, ...]:
        settings, rows = self.profile.vision, self.profile.vision.batch_size
        steps = settings.epochs * max(1, self.images.train // rows)
        trained = 3 * steps * rows * network.operations  # forward, and backward twice as much
        judged = (settings.epochs * self.images.val + self.images.total) * network.operations
        held = 16.0 * network.total + self.weights  # and AdamW's two averages, the best epoch
        size, of_weights = (2, 6) if self.device.bf16 else (4, 4)  # gradients, weights in 16 bits
        step = rows * size * network.values + of_weights * network.total
        half = trained * self.device.bf16
        return self._row(steps, half, trained + judged - half, held, step)

    def _small(self) -> tuple[float, ...]:
        # Two heads, every gate that the report compares, that as published and both models' own.
        profile, train = self.profile, self.images.train
        rows = train if profile.gate_split == "train" else self.images.val
        steps = 2 * profile.head.epochs * math.ceil(train / profile.head.batch_size)
        gates = (len(profile.gates) + 2) * (profile.gate.folds + 1) * profile.gate.epochs
        steps += gates * math.ceil(rows / profile.gate.batch_size)
        return steps, 0.0, *(steps * SMALL_STEP / 3600), 0.0


def plan(profile: Profile, images: Images, device: Device) -> Plan:
    """The plan of a run; where it does not fit, with changes. InputError as `sizes.sized_vlm`."""
    first = best = Plan(profile, images, device)
    changes = {}  # field -> the last value that helped, and the peak then
    for change in _changes(profile):
        if best.fits:
            break
        other = Plan(with_settings(best.profile, [change]), images, device)
        if other.lacking < best.lacking:
            best, changes[change.partition("=")[0]] = other, (change, other.peak)
    first.changes = tuple(changes.values())
    return first


def _changes(profile: Profile) -> Iterator[str]:
    """What takes less memory, the least harmful first."""
    yield "tuning.recompute=true"
    for part in ("tuning", "vlm", "vision"):
        rows = getattr(profile, part).batch_size
        yield from (f"{part}.batch_size={rows >> k}" for k in range(1, rows.bit_length()))
    yield from ("further_vision=", "vision.image_size=224", "vlm.quantize=nf4")
    yield from (f"vlm.pixels={side**2}" for side in (1024, 768, 512, 336))
