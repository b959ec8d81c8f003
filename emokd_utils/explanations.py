"""What a model looked at, for two models on one scale (lesson 6).

*Occlusion* (Zeiler & Fergus 2014, doi 10.1007/978-3-319-10590-1_53) hides a part of the image and
measures how far the label's probability falls. It asks nothing of a model but its answers, so the
VLM's map and the vision model's can be laid side by side. *Grad-CAM* (Selvaraju et al. 2017, doi
10.1109/ICCV.2017.74) and *attention* look inside one kind of model, and each has a scale of its own.
None of them is the reason for an answer; `Explanation.caveat` says what each leaves open. `maps`
has the type, its file, and how much of a map lies on an object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from captum.attr import LayerGradCam, Occlusion
from PIL import Image
from scipy.special import softmax
from torch import nn

from .emotions import LabelSet
from .errors import InputError
from .instructions import answer_for, categorical_prompt
from .maps import ATTENTION, CELLS, GRAD_CAM, OCCLUSION, WINDOW, Explanation
from .vision import VisionModel
from .vlm import VLM

Answers = Callable[[Sequence[Image.Image]], np.ndarray]
"""Images to (n, C) probabilities."""
AT_A_TIME = 32  # images with a hidden part that a model is asked about
LEAST_CELLS = 4  # a side of the map of channels that Grad-CAM explains by


def answers_of(model: VLM | VisionModel, label_set: LabelSet) -> Answers:
    """A model as a function from images to (n, C) probabilities of the labels."""
    if hasattr(model, "image_logits"):
        return lambda images: softmax(model.image_logits(images).astype(np.float64), axis=1)
    prompt, expected = categorical_prompt(label_set), [answer_for(label) for label in label_set]
    return lambda images: softmax(model.score(images, prompt, expected), axis=1)


def occlusion(
    answers: Answers,
    image: Image.Image,
    place: int,
    *,
    model: str = "",
    label: str = "",
    cells: int = CELLS,
    window: int = WINDOW,
) -> Explanation:
    """How far the probability of the class at ``place`` falls when a part of the image is hidden.

    The image is divided into ``cells`` x ``cells``; a window of ``window`` x ``window`` cells goes
    over all places and is filled with the image's mean colour, which hides a thing and leaves most
    of the palette. A cell's value is the mean over the windows that cover it. The same cells serve
    every model and image size.

    Raises InputError for a window that does not fit or cells smaller than a pixel.
    """
    if not 1 <= window <= cells <= min(image.size):
        raise InputError(
            f"window {window} and cells {cells} for {image.width} x {image.height} pixels: choose "
            "1 <= window <= cells <= the shorter side"
        )
    image = image.convert("RGB")
    grey = Image.new("RGB", image.size, tuple(np.asarray(image).mean((0, 1)).round().astype(int)))

    def with_hidden_part(
        visible: torch.Tensor,
    ) -> Image.Image:  # visible: (1, cells, cells), 0 or 1
        mask = Image.fromarray(visible[0].to(torch.uint8).mul(255).numpy())
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
        return Image.composite(image, grey, mask)

    def probability(visible: torch.Tensor) -> torch.Tensor:  # (b, 1, cells, cells) -> (b,)
        shown = [with_hidden_part(part) for part in visible]
        return torch.from_numpy(np.asarray(answers(shown)))[:, place]

    values = Occlusion(probability).attribute(
        torch.ones(1, 1, cells, cells),
        sliding_window_shapes=(1, window, window),
        perturbations_per_eval=AT_A_TIME,
    )
    return Explanation(values[0, 0].numpy(), OCCLUSION, model, label)


def grad_cam(
    vision: VisionModel, image: Image.Image, label: str, *, model: str = ""
) -> Explanation:
    """Where the vision model's channels that speak for ``label`` are active (Selvaraju et al. 2017).

    Taken at the last stage whose map has LEAST_CELLS cells a side, or at the finest there is; of a
    vision transformer at the entrance of its last block. The map covers what the model sees: the
    middle square of the image.

    Raises InputError for a label that the model does not know, or a model without such a map.
    """
    if label not in vision.classes:
        raise InputError(f"the vision model does not know {label!r}: {', '.join(vision.classes)}")
    inputs = vision.inputs([image]).requires_grad_()
    with _map_of_channels(vision.network, inputs) as layer:
        cam = LayerGradCam(vision.network, layer).attribute(
            inputs, target=vision.classes.index(label), relu_attributions=True
        )
    width, height = image.size
    side = min(width, height)
    x, y = (1 - side / width) / 2, (1 - side / height) / 2
    values = cam[0, 0].detach().cpu().numpy()
    return Explanation(values, GRAD_CAM, model, label, (x, y, 1 - x, 1 - y))


def attention(vlm: VLM, image: Image.Image, label_set: LabelSet, *, model: str = "") -> Explanation:
    """From which visual tokens the VLM reads when it is about to name the emotion.

    The attention of the token before the label to each visual token, averaged over layers and
    heads, as shares of what the image receives.
    """
    expected = [answer_for(label) for label in label_set]
    weights = vlm.attention(image, categorical_prompt(label_set), expected).mean((0, 1))
    return Explanation(weights / weights.sum(), ATTENTION, model, area=vlm.area(image))


def explain(
    image: Image.Image,
    label: str,
    vlm: VLM,
    vision: VisionModel,
    label_set: LabelSet,
    names: tuple[str, str] = ("VLM", "vision model"),
) -> dict[str, Explanation]:
    """Four maps of one image by name: occlusion for both models, Grad-CAM, attention.

    label: whose probability is watched. names: of the VLM and the vision model. Raises InputError
    for a label outside the set.
    """
    place, (first, second) = label_set.index(label), names
    maps = [
        occlusion(answers_of(vlm, label_set), image, place, model=first, label=label),
        occlusion(answers_of(vision, label_set), image, place, model=second, label=label),
        grad_cam(vision, image, label, model=second),
        attention(vlm, image, label_set, model=first),
    ]
    return {f"{shown.model}, {shown.method}": shown for shown in maps}


class _AsMap(nn.Module):
    """A module whose output passes ``map`` as (n, channels, rows, columns).

    The output is (n, rows, columns, channels), or tokens (n, first + rows * columns, channels) of
    which the first are no places.
    """

    def __init__(self, inner: nn.Module, first: int):
        super().__init__()
        self.inner, self.map, self.first = inner, nn.Identity(), first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        if x.ndim == 4:
            return self.map(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        extra, places = x[:, : self.first], x[:, self.first :]
        side = math.isqrt(places.shape[1])
        places = self.map(places.transpose(1, 2).unflatten(2, (side, side)))
        return torch.cat([extra, places.flatten(2).transpose(1, 2)], 1)


@contextmanager
def _map_of_channels(network: nn.Module, inputs: torch.Tensor) -> Iterator[nn.Module]:
    """The module whose output is the map of channels (n, C, rows, columns) to explain by."""
    stages = getattr(network, "feature_info", None) or []
    channels = {stage["module"]: stage["num_chs"] for stage in getattr(stages, "info", stages)}
    shapes = _output_shapes(network, inputs, list(channels))
    cells = {}  # a side of each stage's map, whether its channels come first or last
    for name, shape in shapes.items():
        if len(shape) == 4 and channels[name] in (shape[1], shape[3]):
            cells[name] = min(shape[2:] if shape[1] == channels[name] else shape[1:3])
    if cells:
        fine = [name for name, side in cells.items() if side >= LEAST_CELLS]
        name = fine[-1] if fine else max(cells, key=cells.get)
        if shapes[name][1] == channels[name]:
            yield network.get_submodule(name)
            return
    elif shapes and isinstance(getattr(network, "blocks", None), nn.Sequential):
        name = f"blocks.{len(network.blocks) - 1}.norm1"
    else:
        raise InputError(
            f"{type(network).__name__} has no map of channels for Grad-CAM: use occlusion"
        )
    parent, _, own = name.rpartition(".")
    parent, inner = network.get_submodule(parent), network.get_submodule(name)
    wrapped = _AsMap(inner, getattr(network, "num_prefix_tokens", 0))
    setattr(parent, own, wrapped)
    try:
        yield wrapped.map
    finally:
        setattr(parent, own, inner)


def _output_shapes(
    network: nn.Module, inputs: torch.Tensor, names: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """The shapes of what modules put out, by name, in the order in which they run."""
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> Callable:
        return lambda module, args, out: shapes.__setitem__(name, tuple(out.shape))

    hooks = [network.get_submodule(n).register_forward_hook(remember(n)) for n in names]
    try:
        with torch.no_grad():
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
