"""What a model looked at, for two models on one scale (lesson 6).

*Occlusion* (Zeiler & Fergus 2014, doi 10.1007/978-3-319-10590-1_53) hides a part of the image and
measures how far the label's probability falls. It asks nothing of a model but its answers, so the
VLM's map and the vision model's can be laid side by side. *Grad-CAM* (Selvaraju et al. 2017, doi
10.1109/ICCV.2017.74) and *attention* look inside one kind of model, and each has a scale of its own.
None of them is the reason for an answer; `Explanation.caveat` says what each leaves open.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradCam, Occlusion
from PIL import Image
from torch import nn

from .emovlm_kd import softmax
from .errors import InputError
from .evidence import bootstrap
from .instructions import answer_for, categorical_prompt
from .run.store import load_arrays, save_arrays

if TYPE_CHECKING:
    from .data import ImageDataset
    from .emotions import LabelSet
    from .vision import VisionModel
    from .vlm import VLM

Answers = Callable[[Sequence[Image.Image]], np.ndarray]
"""Images to (n, C) probabilities."""
Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""

OCCLUSION, GRAD_CAM, ATTENTION = "occlusion", "Grad-CAM", "attention"
CAVEATS = {
    OCCLUSION: "A hidden part is a grey patch, and no model was trained on images with patches; what "
    "two parts show alike is missed, since hiding one leaves the other.",
    GRAD_CAM: "One cell of the last map of channels covers a large part of the image, and what speaks "
    "against the label is cut off.",
    ATTENTION: "Where tokens are read from is not why an answer is given, and a visual token also "
    "holds what the visual encoder gathered from elsewhere.",
}
CELLS, WINDOW = 8, 2


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map over an image.

    values: (rows, columns), of occlusion the fall of the label's probability (-1..1) when a cell is
    hidden, of Grad-CAM at least 0 in the unit of the logit, of attention the share of a visual
    token (sum 1). method, model: what made it, of what. label: whose probability or logit it is
    about, "" for attention. area: left, top, right and bottom of what the map covers, in shares of
    the image's width and height.
    """

    values: np.ndarray
    method: str
    model: str
    label: str = ""
    area: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def caveat(self) -> str:
        """What this kind of map leaves open."""
        return CAVEATS[self.method]

    def on_pixels(self, width: int, height: int) -> np.ndarray:
        """(height, width): each pixel has its cell's value, and nan outside of the area."""
        left, top, right, bottom = self.area
        rows, columns = self.values.shape
        row = np.floor(((np.arange(height) + 0.5) / height - top) / (bottom - top) * rows)
        column = np.floor(((np.arange(width) + 0.5) / width - left) / (right - left) * columns)
        inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
        row, column = row.clip(0, rows - 1).astype(int), column.clip(0, columns - 1).astype(int)
        return np.where(inside, self.values[row[:, None], column], np.nan)


def answers_of(model: VLM | VisionModel, label_set: LabelSet) -> Answers:
    """A model as a function from images to (n, C) probabilities of the labels."""
    if hasattr(model, "image_logits"):
        return lambda images: softmax(model.image_logits(images))
    prompt, expected = categorical_prompt(label_set), [answer_for(label) for label in label_set]
    return lambda images: softmax(model.score(images, prompt, expected))


def occlusion(
    answers: Answers,
    image: Image.Image,
    place: int,
    *,
    model: str = "",
    label: str = "",
    cells: int = CELLS,
    window: int = WINDOW,
    batch_size: int = 32,
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

    def probability(visible: torch.Tensor) -> torch.Tensor:
        shown = [
            Image.composite(
                image,
                grey,
                Image.fromarray(one[0].to(torch.uint8).mul(255).numpy()).resize(
                    image.size, Image.Resampling.NEAREST
                ),
            )
            for one in visible
        ]
        return torch.from_numpy(np.asarray(answers(shown)))[:, place]

    values = Occlusion(probability).attribute(
        torch.ones(1, 1, cells, cells),
        sliding_window_shapes=(1, window, window),
        perturbations_per_eval=batch_size,
    )
    return Explanation(values[0, 0].numpy(), OCCLUSION, model, label)


def grad_cam(
    vision: VisionModel, image: Image.Image, label: str, *, model: str = "", least: int = 4
) -> Explanation:
    """Where the vision model's channels that speak for ``label`` are active (Selvaraju et al. 2017).

    Taken at the last stage whose map has ``least`` cells a side, or at the finest there is; of a
    vision transformer at the entrance of its last block. The map covers what the model sees: the
    middle square of the image.

    Raises InputError for a label that the model does not know, or a model without such a map.
    """
    if label not in vision.classes:
        raise InputError(f"the vision model does not know {label!r}: {', '.join(vision.classes)}")
    inputs = vision.inputs([image]).requires_grad_()
    with _map_of_channels(vision.network, inputs, least) as layer:
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
    found = [
        occlusion(answers_of(vlm, label_set), image, place, model=first, label=label),
        occlusion(answers_of(vision, label_set), image, place, model=second, label=label),
        grad_cam(vision, image, label, model=second),
        attention(vlm, image, label_set, model=first),
    ]
    return {f"{one.model}, {one.method}": one for one in found}


def save_explanations(path: Path, found: Mapping[str, Mapping[str, Explanation]]) -> None:
    """Write maps, by image and name, as safetensors."""
    arrays, about = {}, []
    for image_id, maps in found.items():
        for name, one in maps.items():
            arrays[str(len(about))] = one.values
            about.append([image_id, name, one.method, one.model, one.label, one.area])
    save_arrays(path, arrays, {"maps": json.dumps(about)})


def load_explanations(path: Path) -> dict[str, dict[str, Explanation]]:
    """Read what `save_explanations` wrote. Raises InputError where that fails."""
    arrays, texts = load_arrays(path)
    found: dict[str, dict[str, Explanation]] = {}
    for number, (image_id, name, *about, area) in enumerate(json.loads(texts["maps"])):
        one = Explanation(arrays[str(number)], *about, tuple(area))
        found.setdefault(image_id, {})[name] = one
    return found


# ------------------------------------------------------------------------- do they look at the cue?


def boxes(dataset: ImageDataset, image_id: str) -> dict[str, Box]:
    """Where the objects of an image are, by noun, from the data set's metadata.

    Raises InputError where the metadata has no columns ``objects`` and ``boxes``.
    """
    table = dataset.table
    if not {"objects", "boxes"} <= set(table.columns):
        raise InputError(f"{dataset.root} does not say where its objects are: EmoScenes does")
    nouns, places = (str(table.loc[image_id, name]).split(";") for name in ("objects", "boxes"))
    return {
        noun: tuple(float(number) for number in place.split())
        for noun, place in zip(nouns, places, strict=True)
    }


def cue_boxes(dataset: ImageDataset, image_id: str) -> dict[str, Box]:
    """The boxes of the objects that evoke an emotion; where there is none, of all objects."""
    from .world.scenes import scene_objects

    emotion = {thing.noun: thing.emotion for thing in scene_objects()}
    found = boxes(dataset, image_id)
    evocative = {noun: box for noun, box in found.items() if emotion.get(noun) != "neutral"}
    return evocative or found


def share_inside(explanation: Explanation, where: Sequence[Box], size: tuple[int, int]) -> float:
    """The share, 0..1, of what is above 0 in a map that lies in boxes; nan where nothing is.

    size: width and height of the image in pixels.
    """
    values = np.nan_to_num(explanation.on_pixels(*size)).clip(0)
    total = values.sum()
    return float(values[_inside(where, size)].sum() / total) if total else math.nan


def share_table(
    found: Mapping[str, Mapping[str, Explanation]], dataset: ImageDataset
) -> pd.DataFrame:
    """How much of each map lies on the objects that evoke, per cue.

    found: image id -> name -> map. A row per cue and map: ``n`` images with something above 0 in
    the map, the mean ``share`` in the boxes with the ends ``low`` and ``high`` of its interval, the
    boxes' mean share of the ``area`` (what a map that knows nothing gives), and ``inside_more``, the
    share of images whose map has more in the boxes than the area has. On atmosphere-led images,
    where no object evokes, the boxes are those of the neutral objects.
    """
    rows = []
    for image_id, maps in found.items():
        size = dataset.open(image_id).size
        places = list(cue_boxes(dataset, image_id).values())
        area = float(_inside(places, size).mean())
        for name, one in maps.items():
            rows.append(
                (dataset.table.loc[image_id, "cue"], name, share_inside(one, places, size), area)
            )
    table = pd.DataFrame(rows, columns=["cue", "map", "share", "area"]).dropna()
    told = {}
    for key, part in table.groupby(["cue", "map"], sort=False):
        mean, low, high, _ = bootstrap(part["share"].to_numpy())
        more = float((part["share"] > part["area"]).mean())
        told[key] = (len(part), mean, low, high, float(part["area"].mean()), more)
    columns = ["n", "share", "low", "high", "area", "inside_more"]
    index = pd.MultiIndex.from_tuples(told, names=["cue", "map"])
    return pd.DataFrame(list(told.values()), index, columns)


def _inside(where: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: the pixels whose middle lies in a box."""
    x, y = np.arange(size[0]) + 0.5, np.arange(size[1])[:, None] + 0.5
    found = np.zeros((size[1], size[0]), dtype=bool)
    for left, top, width, height in where:
        found |= (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
    return found


# ------------------------------------------------------------------------------ maps of channels


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
def _map_of_channels(network: nn.Module, inputs: torch.Tensor, least: int) -> Iterator[nn.Module]:
    """The module whose output is the map of channels (n, C, rows, columns) to explain by."""
    stages = getattr(network, "feature_info", None) or []
    stages = {stage["module"]: stage["num_chs"] for stage in getattr(stages, "info", stages)}
    seen: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> Callable:
        return lambda module, args, out: seen.__setitem__(name, tuple(out.shape))

    hooks = [network.get_submodule(s).register_forward_hook(remember(s)) for s in stages]
    try:
        with torch.no_grad():
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    sizes = {}
    for name, shape in seen.items():
        if len(shape) == 4 and stages[name] in (shape[1], shape[3]):
            sizes[name] = min(shape[2:] if shape[1] == stages[name] else shape[1:3])
    if sizes:
        fine = [name for name, size in sizes.items() if size >= least]
        name = fine[-1] if fine else max(sizes, key=sizes.get)
        if seen[name][1] == stages[name]:
            yield network.get_submodule(name)
            return
    elif seen and isinstance(getattr(network, "blocks", None), nn.Sequential):
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
