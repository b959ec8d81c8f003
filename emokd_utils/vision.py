"""A conventional vision model: fine-tuned, it sees how an image looks, and it is the head's teacher.

Any model of timm (Wightman 2019, doi 10.5281/zenodo.4414861), trained on the train split with
augmentation, AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) and a warm-up followed by a cosine;
the val split says which epoch is kept and when to stop. The test split is never opened."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from .data import ImageDataset
from .errors import InputError
from .files import load_tensors, save_tensors, write_text
from .pixels import Pixels, normalise, outputs
from .probe import linear_probe
from .settings import VisionSettings
from .training import autocast, default_device, fit, gradient_steps, seeded
from .weights import build_network

VISION_FORMAT = "emokd-vision-2"


def augment(
    images: torch.Tensor, settings: VisionSettings, generator: torch.Generator
) -> torch.Tensor:
    """Crop each image (n, 3, h, w) to an area in [settings.crop, 1], of sides in ratio 3 : 4 to 4 : 3,
    scale that to the whole and mirror it or not, by one affine map; the same shape."""
    if settings.crop == 1 and settings.flip == 0:
        return images

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(images), generator=generator)  # (n,)

    side = uniform(settings.crop, 1).sqrt()
    ratio = torch.exp(uniform(-1, 1) * math.log(4 / 3) / 2 * (settings.crop < 1))
    across, down = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
    mirrored = torch.rand(len(images), generator=generator) < settings.flip
    maps = torch.zeros(len(images), 2, 3)  # from places in the result to places in the image
    maps[:, 0, 0] = torch.where(mirrored, -across, across)
    maps[:, 1, 1] = down
    maps[:, 0, 2] = uniform(-1, 1) * (1 - across)
    maps[:, 1, 2] = uniform(-1, 1) * (1 - down)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)  # (n, h, w, 2)
    return F.grid_sample(images, grid.to(images), padding_mode="border", align_corners=False)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at `step` of `steps` (from 0): a rise, then a cosine."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


@dataclass(frozen=True, eq=False)
class VisionModel:
    """A trained vision model, in evaluation mode at its best epoch. history: one dict an epoch
    (epoch from 1, train_loss, val_loss, val_accuracy). trained_on: the data set's fingerprint."""

    network: nn.Module = field(repr=False)
    classes: tuple[str, ...]
    settings: VisionSettings
    seed: int
    best_epoch: int
    history: list[dict[str, float]] = field(repr=False)
    trained_on: str

    def logits(self, dataset: ImageDataset) -> np.ndarray:
        """Logits (n, C) float32 of the images of a data set, in its order."""
        pixels = Pixels(dataset, self.settings.image_size, cache_megabytes=0)
        return outputs(self.network, pixels.batches()).cpu().numpy()

    def image_logits(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Logits (n, C) float32 of RGB images of any size, n > 0, all in one batch."""
        with torch.inference_mode():
            return self.network(self.inputs(images)).cpu().numpy()

    def inputs(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """What the network is given for RGB images of any size: (n, 3, side, side), normalised."""
        size = (self.settings.image_size, self.settings.image_size)
        pixels = np.stack([ImageOps.fit(image, size) for image in images])
        return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), self.network)

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors for `load`, and what is known of the training as model.json."""
        about = vars(self) | {"settings": asdict(self.settings)}
        tensors = {name: w.cpu() for name, w in about.pop("network").state_dict().items()}
        save_tensors(Path(folder) / "model.safetensors", tensors, about, VISION_FORMAT)
        write_text(Path(folder) / "model.json", json.dumps(about, indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "VisionModel":
        """Read what `save` wrote; InputError when the file is missing, damaged or foreign."""
        path = Path(folder) / "model.safetensors"
        arrays, about = load_tensors(path, VISION_FORMAT)
        try:
            settings, classes = VisionSettings(**about["settings"]), tuple(about["classes"])
            with torch.random.fork_rng(devices=[]):
                network = build_network(replace(settings, weights="", epochs=1), len(classes))
            network.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
            network = network.to(default_device(), memory_format=torch.channels_last).eval()
            return cls(network, **about | {"settings": settings, "classes": classes})
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} does not hold a model: train it anew ({error})") from error


def fine_tune(
    dataset: ImageDataset, settings: VisionSettings, seed: int, progress: bool = True
) -> VisionModel:
    """Train on the train split and keep the epoch that is best on the val split; the same seed, the
    same numbers. From pretrained weights training starts from a linear probe, which is epoch 0 and
    is kept where no epoch is better. Raises InputError for an empty split or a diverging training."""
    pixels, labels = _examples(dataset, "train", settings)  # labels (n,)
    val, val_labels = _examples(dataset, "val", settings)
    per_epoch = max(1, len(labels) // settings.batch_size)
    steps = max(1, settings.epochs) * per_epoch
    bar = tqdm(total=steps, desc=settings.name, unit="step", disable=not progress)
    with seeded(seed) as generator, bar:
        network = build_network(settings, len(dataset.label_set))
        network.to(default_device(), memory_format=torch.channels_last)
        if settings.weights:
            _start_from_probe(network, pixels, labels, val, val_labels)
        optimizer = torch.optim.AdamW(_rates(network, settings), lr=settings.lr, fused=True)
        rates = LambdaLR(optimizer, lambda step: schedule(step, steps, settings.warmup))

        def loss_of(rows: torch.Tensor) -> torch.Tensor:
            images = augment(normalise(pixels[rows], network), settings, generator)  # (b, 3, h, w)
            with autocast(images.device):
                logits = network(images)  # (b, C)
            truth, epsilon = labels[rows.to(labels.device)], settings.label_smoothing
            return F.cross_entropy(logits.float(), truth, label_smoothing=epsilon)

        def train_epoch() -> float:
            if settings.weights:  # few images tell less of a channel than many that came before
                network.apply(lambda m: m.eval() if isinstance(m, _BatchNorm) else m)
            batches = torch.randperm(len(labels), generator=generator).tensor_split(per_epoch)
            return gradient_steps(batches, loss_of, optimizer, lambda: (rates.step(), bar.update()))

        history, best, _ = fit(
            network,
            train_epoch,
            lambda: outputs(network, val.batches()),
            val_labels,
            settings,
            bar.set_postfix,
            first_epoch=0 if settings.weights else 1,
        )
    classes = tuple(dataset.label_set)
    return VisionModel(network, classes, settings, seed, best, history, dataset.fingerprint)


def _examples(
    dataset: ImageDataset, split: str, settings: VisionSettings
) -> tuple[Pixels, torch.Tensor]:
    part = dataset.split(split)
    if not len(part):
        raise InputError(f"{dataset.root}: no image in the {split} split to train with")
    pixels = Pixels(part, settings.image_size, settings.cache_megabytes)
    return pixels, torch.from_numpy(part.label_index).to(default_device())


def _start_from_probe(network: nn.Module, *examples: Pixels | torch.Tensor) -> None:
    """Give a pretrained network the `linear_probe` on its features as classifier."""
    classifier = network.get_classifier()
    if not isinstance(classifier, nn.Linear):
        return  # it stays at random values
    pixels, labels, val_pixels, val_labels = examples
    rows = []
    for images in (pixels, val_pixels):
        handed = []  # features (b, d), batch by batch
        with classifier.register_forward_pre_hook(lambda module, args, to=handed: to.append(*args)):
            outputs(network.eval(), images.batches())
        rows.append(torch.cat(handed).cpu())
    known = rows[0], labels.cpu(), rows[1], val_labels.cpu()
    weight, bias = linear_probe(*known, num_classes=classifier.out_features)
    classifier.load_state_dict({"weight": weight, "bias": bias})


def _rates(network: nn.Module, settings: VisionSettings) -> list[dict]:
    """The parameters in groups: biases and norms do not decay; from pretrained weights on, the nearer
    a layer is to the pixels, the smaller its steps."""
    if not settings.weights:
        return param_groups_weight_decay(network, settings.weight_decay)
    decay = {"layer_decay": settings.layer_decay}
    groups = param_groups_layer_decay(network, settings.weight_decay, **decay)
    return [group | {"lr": settings.lr * group["lr_scale"]} for group in groups]
