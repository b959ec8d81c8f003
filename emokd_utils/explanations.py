"""What a model looked at, for two models on one scale (lesson 6).

*Occlusion* (Zeiler & Fergus 2014, doi 10.1007/978-3-319-10590-1_53) hides a part of the image and
measures how far the label's probability falls. It asks nothing of a model but its answers, so the
VLM's map and the vision model's can be laid side by side. *Grad-CAM* (Selvaraju et al. 2017, doi
10.1109/ICCV.2017.74) and *attention* look inside one kind of model, and each has a scale of its own.
None of them is the reason for an answer; `Explanation.caveat` says what each leaves open."""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from captum.attr import Occlusion
from PIL import Image
from scipy.special import softmax
from torch import nn

from .emotions import LabelSet
from .errors import InputError
from .families import area
from .instructions import answer_for, categorical_prompt
from .maps import ATTENTION, CELLS, GRAD_CAM, OCCLUSION, WINDOW, Explanation
from .vision import VisionModel
from .vlm import VLM

Answers = Callable[[Sequence[Image.Image]], np.ndarray]  # to (n, C) probabilities
LEAST_CELLS = 4  # a side of the map of channels that Grad-CAM explains by


def answers_of(model: VLM | VisionModel, label_set: LabelSet) -> Answers:
    """A model as a function from images to (n, C) probabilities of the labels."""
    if hasattr(model, "image_logits"):
        return lambda images: softmax(model.image_logits(images).astype(np.float64), axis=1)
    prompt, expected = categorical_prompt(label_set), [answer_for(label) for label in label_set]
    return lambda images: softmax(model.score(images, prompt, expected), axis=1)


def occlusion(answers: Answers, image: Image.Image, place: int, *, label: str = "") -> Explanation:
    """How far the probability of the class at ``place`` falls when a part of the image is hidden: of
    CELLS x CELLS, a window of WINDOW x WINDOW goes over all places and is filled with the image's
    mean colour. A cell's value is the mean over the windows that cover it."""
    image = image.convert("RGB")
    grey = Image.new("RGB", image.size, tuple(np.asarray(image).mean((0, 1)).round().astype(int)))

    def probability(visible: torch.Tensor) -> torch.Tensor:  # (b, 1, CELLS, CELLS) -> (b,)
        masks = (Image.fromarray(part[0].to(torch.uint8).mul(255).numpy()) for part in visible)
        masks = (mask.resize(image.size, Image.Resampling.NEAREST) for mask in masks)
        shown = [Image.composite(image, grey, mask) for mask in masks]
        return torch.from_numpy(np.asarray(answers(shown)))[:, place]

    cells, window = torch.ones(1, 1, CELLS, CELLS), (1, WINDOW, WINDOW)
    values = Occlusion(probability).attribute(cells, window, perturbations_per_eval=32)
    return Explanation(values[0, 0].numpy(), OCCLUSION, label=label)


def grad_cam(vision: VisionModel, image: Image.Image, label: str) -> Explanation:
    """Where the vision model's channels that speak for ``label`` are active, over what it sees, the
    middle square of the image. Taken at the last stage whose map has LEAST_CELLS cells a side, or
    the finest; in a vision transformer, where its last block begins. InputError where no map is."""
    inputs = vision.inputs([image]).requires_grad_()
    logits, output, as_map = _map_of_channels(vision.network, inputs)
    (slopes,) = torch.autograd.grad(logits[0, vision.classes.index(label)], output)
    channels, slopes = as_map(output), as_map(slopes)  # (1, channels, rows, columns)
    cam = (slopes.mean((2, 3), keepdim=True) * channels).sum(1)[0].relu()  # (rows, columns)
    x, y = ((1 - min(image.size) / side) / 2 for side in image.size)
    area = (x, y, 1 - x, 1 - y)
    return Explanation(cam.detach().cpu().numpy(), GRAD_CAM, label=label, area=area)


def attention(vlm: VLM, image: Image.Image, label_set: LabelSet) -> Explanation:
    """From which visual tokens the VLM reads when it is about to name the emotion: the attention of
    the token before the label, averaged over layers and heads, as shares of the image's."""
    expected = [answer_for(label) for label in label_set]
    weights = vlm.attention(image, categorical_prompt(label_set), expected).mean((0, 1))
    return Explanation(weights / weights.sum(), ATTENTION, area=area(vlm.processor, image.size))


def explain(
    image: Image.Image, label: str, vlm: VLM, vision: VisionModel, label_set: LabelSet
) -> dict[str, Explanation]:
    """Four maps by name: for `label` occlusion of both models and Grad-CAM; attention, which is left
    out with a warning where no map of a VLM's visual tokens is known (`families.grid`)."""
    place = label_set.index(label)
    maps = [
        ("VLM", occlusion(answers_of(vlm, label_set), image, place, label=label)),
        ("vision model", occlusion(answers_of(vision, label_set), image, place, label=label)),
        ("vision model", grad_cam(vision, image, label)),
    ]
    try:
        maps.append(("VLM", attention(vlm, image, label_set)))
    except InputError as error:
        warnings.warn(str(error), stacklevel=2)
    return {f"{model}, {shown.method}": replace(shown, model=model) for model, shown in maps}


def _map_of_channels(network: nn.Module, inputs: torch.Tensor) -> tuple:
    """Logits (n, C), a module's output, and what makes that (n, channels, rows, columns)."""
    stages = getattr(network, "feature_info", None) or []
    channels = {stage["module"]: stage["num_chs"] for stage in getattr(stages, "info", stages)}
    modules = {name: network.get_submodule(name) for name in channels}
    if norm := getattr(getattr(network, "blocks", [None])[-1], "norm1", None):
        modules["norm1"] = norm
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, args: tuple, out: torch.Tensor) -> torch.Tensor:
        outputs[name] = out
        return out.clone()  # which what follows may change in place

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(partial(keep, name)))
        logits = network(inputs)
    orders = {
        name: (0, 1, 2, 3) if out.shape[1] == channels[name] else (0, 3, 1, 2)
        for name, out in outputs.items()
        if out.ndim == 4 and channels.get(name) in (out.shape[1], out.shape[3])
    }
    sides = {name: min(outputs[name].permute(order)[0, 0].shape) for name, order in orders.items()}
    if sides:
        fine = [name for name, side in sides.items() if side >= LEAST_CELLS]
        name = fine[-1] if fine else max(sides, key=sides.get)
        return logits, outputs[name], lambda out: out.permute(orders[name])
    if not norm:
        kind = type(network).__name__
        raise InputError(f"{kind} has no map of channels for Grad-CAM: use occlusion")
    first = getattr(network, "num_prefix_tokens", 0)  # tokens that are no places come first

    def places(out: torch.Tensor) -> torch.Tensor:  # out: (n, first + rows * columns, channels)
        side = math.isqrt(out.shape[1] - first)
        return out[:, first:].transpose(1, 2).unflatten(2, (side, side)).contiguous()

    return logits, outputs["norm1"], places
