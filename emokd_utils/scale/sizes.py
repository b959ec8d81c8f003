"""Sizes of models, and what follows from them by the formulas of lesson 10: operations and bytes.

On torch's meta device tensors have shapes and no numbers, so that a model of any size is made at
once and its weights can be counted before anything is fetched.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..costs import count_parameters, flops
from ..errors import InputError
from ..families import family_of
from ..instructions import chat_text
from ..loading import limit_pixels, readable_errors
from ..settings import TuningSettings, VisionSettings
from ..weights import build_network

MODELS = tomllib.loads(Path(__file__).with_name("models.toml").read_text("utf-8"))
"""Hub id -> its published configuration."""

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight: a scale of 8 bits for 64 of them, one of 32 for 256 scales (arXiv:2305.14314)."""

FRAME = 25  # tokens of the chat format around a question
CONNECTORS = (".merger.", ".connector.", ".multi_modal_projector.")


class View(NamedTuple):
    """What a VLM sees of an image: patches, how many of them see each other, and the visual tokens
    that are made of them."""

    patches: int
    span: int
    tokens: int


@dataclass(frozen=True, eq=False)
class SizedVLM:
    """A VLM without its weights.

    processor: None where no tokenizer is at hand. parameters, adapter: how many it has, and LoRA
    adds. fetch: GB to fetch. products: weights in matrix products, of pixels ("cut"), and of each
    patch ("patch"), visual token ("visual"), token of the language model ("token"), and token that
    gets an output ("output"). largest: weights of the largest matrix but the output's. eye, inner:
    width of the visual encoder, and inside its MLP.
    """

    config: Any
    image_processor: Any
    processor: Any
    parameters: int
    adapter: int
    fetch: float
    products: Counter[str]
    largest: int
    eye: int
    inner: int

    @property
    def text(self) -> Any:
        """Configuration of the language model."""
        return self.config.get_text_config()

    @property
    def keys(self) -> int:
        """Width of keys, and of values."""
        return (
            self.text.hidden_size // self.text.num_attention_heads * self.text.num_key_value_heads
        )

    def length(self, text: str) -> int:
        """Tokens of a text; four characters each where no tokenizer is at hand."""
        if self.processor is None:
            return math.ceil(len(text) / 4)
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def question(self, prompt: str) -> int:
        """Tokens of a question in the chat's format, without those of the image."""
        if self.processor is None:
            return self.length(prompt) + FRAME
        return self.length(chat_text(self.processor, prompt)) - 1

    def view(self, width: int, height: int) -> View:
        """What is seen of an image of this size in pixels."""
        if hasattr(self.image_processor, "merge_size"):
            patches = self.image_processor.get_number_of_image_patches(height, width, {})
            return View(patches, patches, patches // self.image_processor.merge_size**2)
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        if not hasattr(self.config, "scale_factor"):
            return View(side**2, side**2, side**2)
        tiles = max(1, self.image_processor.get_number_of_image_patches(height, width, {})[0])
        tokens = tiles * ((side // self.config.scale_factor) ** 2 + 2) + 4
        return View(tiles * side**2, side**2, tokens)

    # ------------------------------------------------------------------------------------ operations

    def seeing(self, view: View) -> float:
        """Operations of the visual encoder on an image, attention between patches with them."""
        vision = self.config.vision_config
        depth = getattr(vision, "depth", None) or vision.num_hidden_layers
        work = view.patches * (self.products["cut"] + self.products["patch"])
        work += view.tokens * self.products["visual"]
        return 2 * work + 4 * depth * self.eye * view.patches * view.span

    def reading(self, tokens: float, kept: float, layers: float = 1, output: float = 1) -> float:
        """Operations of the language model on so many tokens, of which the last ``kept`` get an
        output; ``layers`` and ``output``: so many times."""
        attention = 4 * self.text.num_hidden_layers * self.text.hidden_size * tokens**2
        work = layers * (2 * tokens * self.products["token"] + attention)
        return work + 2 * output * kept * self.products["output"]

    def tuning(self, view: View, tokens: float, recompute: bool) -> float:
        """Operations of a step with one instruction: forward, backward to the adapters, and where
        layers are computed anew forward once more. Base weights get no gradient."""
        return self.seeing(view) + self.reading(tokens, tokens, 2 + recompute, 2)

    # --------------------------------------------------------------------------------------- memory

    def weights(self, nf4: bool, size: int) -> float:
        """Bytes of the weights of ``size`` bytes each, or in NF4 but for embedding and output, and
        of the adapter in 32 bits."""
        quantised = nf4 * sum(self.products[part] for part in ("patch", "visual", "token"))
        kept = self.parameters - quantised
        return quantised * NF4_BITS / 8 + kept * size + 4 * self.adapter

    def seeing_bytes(self, view: View, size: int) -> float:
        """Bytes while an image passes the visual encoder: its pixels, and the widest layer."""
        vision = self.config.vision_config
        pixels = 3 * vision.patch_size**2 * getattr(vision, "temporal_patch_size", 1)
        return view.patches * ((4 + size) * pixels + size * (4 * self.eye + 2 * self.inner))

    def reading_bytes(self, tokens: int, kept: int, size: int) -> float:
        """Bytes while tokens pass the language model: the widest layer, or the output with a copy in
        32 bits and its logarithm."""
        layer = size * tokens * (2 * self.text.hidden_size + 3 * self.text.intermediate_size)
        return max(layer, (size + 4 + 4) * kept * self.text.vocab_size)

    def tuning_bytes(self, tokens: int, size: int, low: int, settings: TuningSettings) -> float:
        """Bytes that the backward pass needs of a row of tokens.

        size, low: bytes of what passes from layer to layer, and of what products give. Inside each
        layer LoRA keeps its input as dropout left it, in 32 bits, with the mask.
        """
        text, width = self.text, self.text.hidden_size
        inside = low * (5 * width + 2 * self.keys + 4 * text.intermediate_size)
        inside += 5 * width * len(settings.projections)
        layers = text.num_hidden_layers
        kept = size * width * layers + inside if settings.recompute else inside * layers
        return tokens * (kept + (low + 4 + 4) * text.vocab_size)

    def cache_bytes(self, tokens: int, size: int) -> float:
        """Bytes of the keys and values of so many tokens."""
        return 2.0 * size * tokens * self.text.num_hidden_layers * self.keys


@functools.cache
def sized_vlm(source: str, pixels: int, settings: TuningSettings) -> SizedVLM:
    """The VLM of a folder or hub id, without weights and without the network.

    pixels: as `vlm.limit_pixels`, 0: no limit. Raises InputError for an id whose configuration is
    neither in MODELS nor on this machine.
    """
    from transformers import AutoModelForImageTextToText

    here = Path(source).is_dir() or fetched(source)
    config, image_processor, processor = (
        _published(source) if source in MODELS and not here else _local(source)
    )
    if pixels:
        limit_pixels(image_processor, pixels)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    family = family_of(config)
    adapted = re.compile(family.lora_targets(settings.projections))
    products, largest, inner, eye, adapter = Counter(), 0, 0, 0, 0
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):  # cuts the image into patches
            products["cut"], eye = module.weight.numel(), module.out_channels
        elif isinstance(module, nn.Linear):
            part = _part(name, family.text)
            products[part] += module.weight.numel()
            largest = max(largest, module.weight.numel() * (part != "output"))
            inner = max(inner, module.out_features * (part == "patch"))
            if adapted.fullmatch(name):
                adapter += settings.rank * (module.in_features + module.out_features)
    total = count_parameters(model).total
    fetch = 0.0 if here else 2 * total / 1e9
    return SizedVLM(
        config, image_processor, processor, total, adapter, fetch, products, largest, eye, inner
    )


def _part(name: str, text: str) -> str:
    """With what the weights of a matrix are multiplied; see SizedVLM."""
    if name.endswith("lm_head"):
        return "output"
    if f".{text}." in name:
        return "token"
    return "visual" if any(connector in name for connector in CONNECTORS) else "patch"


def _published(source: str) -> tuple:
    """Configuration and image processor of a model in MODELS; no tokenizer."""
    from transformers import AutoConfig, Idefics3ImageProcessor, Qwen2VLImageProcessor

    values = dict(MODELS[source])
    size = values.pop("pixels")
    config = AutoConfig.for_model(**values)
    if config.model_type == "qwen2_vl":
        return config, Qwen2VLImageProcessor(size=dict(size)), None
    tile = {"longest_edge": config.vision_config.image_size}
    return config, Idefics3ImageProcessor(size=dict(size), max_image_size=tile), None


def _local(source: str) -> tuple:
    """Configuration, image processor and processor that are on this machine."""
    from transformers import AutoConfig, AutoProcessor

    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{source} is not on this machine, and its configuration is not known (known: "
            f"{', '.join(MODELS)}): give a folder with its config and processor files"
        ) from error
    with readable_errors(source):
        processor = AutoProcessor.from_pretrained(source, local_files_only=True)
    return config, processor.image_processor, processor


def fetched(source: str) -> bool:
    """Whether the weights of a hub id are in the hub's folder on this machine."""
    from transformers.utils import cached_file

    for name in ("model.safetensors", "model.safetensors.index.json"):
        with suppress(OSError):
            return cached_file(source, name, local_files_only=True) is not None
    return False


@dataclass(frozen=True)
class SizedNetwork:
    """A vision model without its weights.

    total: its parameters. fetch: GB to fetch. Of one image: operations of a forward pass; values,
    what all layers put out; widest, the most that one layer takes and puts out.
    """

    total: int
    fetch: float
    operations: int
    values: int
    widest: int

    def training_bytes(self, images: int, bf16: bool) -> float:
        """Bytes that the backward pass of a batch needs: what the layers put out, the gradients of
        all weights, and where products are in bfloat16 the weights in it."""
        size, of_weights = (2, 6) if bf16 else (4, 4)
        return images * size * self.values + of_weights * self.total


@functools.cache
def sized_network(text: str, side: int, classes: int) -> SizedNetwork:
    """A model of timm, ``name`` or ``name@weights``, for images of ``side`` pixels. Raises
    InputError as `vision.build_network`."""
    name, _, weights = text.partition("@")
    values: list[int] = []
    widest: list[int] = []

    def note(module: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output is not inputs[0]:  # not one done in place
            values.append(output.numel())
            widest.append(inputs[0].numel() + output.numel())

    with torch.device("meta"):
        network = build_network(VisionSettings(name, side), classes)
        for module in network.modules():
            if not list(module.children()) or list(module.parameters(recurse=False)):
                module.register_forward_hook(note)
        pixels = torch.empty(1, 3, side, side)
        operations = flops(lambda: network(pixels))
    total = count_parameters(network).total
    absent = weights == "timm" and not fetched(network.pretrained_cfg["hf_hub_id"] or name)
    fetch = 4 * total / 1e9 if absent else 0.0
    return SizedNetwork(total, fetch, operations, sum(values), max(widest))
