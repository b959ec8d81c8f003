"""Operations and bytes of models by the formulas of lesson 10. On torch's meta device tensors have
shapes and no numbers: a model of any size is made at once."""

import functools
import math
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers
from PIL import Image
from torch import nn

from ..costs import count_parameters, flops
from ..errors import InputError
from ..families import language_model, lora_targets, sees_all
from ..instructions import chat_text
from ..loading import limit_pixels
from ..settings import TuningSettings, VisionSettings
from ..weights import build_network

MODELS = tomllib.loads(Path(__file__).with_name("models.toml").read_text("utf-8"))
"""Hub id -> its published configuration."""
# Of a weight: a scale of 8 bits for 64 of them, one of 32 for 256 scales (arXiv:2305.14314).
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
# For each value of a gated delta rule, what it keeps in 32 bits in plain PyTorch (seen in Qwen3.5).
DELTA = 24
_INSIDE = dict.fromkeys(("merger", ".connector.", ".multi_modal_projector."), "visual")


class View(NamedTuple):
    """What a VLM sees of an image: patches, how many of them see each other, and visual tokens."""

    patches: int
    span: int
    tokens: int


class SizedVLM:
    """A VLM without its weights. parameters, adapter: how many it has, and LoRA adds. products: weights
    in matrix products with each patch, visual token, token, and token that gets an output. Of all
    layers of the language model together, for a token: put_out, adapted: values that matrices put
    out, and LoRA reads; queries, keys, delta: those of attention, and of linear attention. shares:
    whether an image's instructions pass as one row; handed: values of a visual token."""

    def __init__(self, source: str, pixels: int, settings: TuningSettings) -> None:
        self.config, self.processor, self.image_processor = read_vlm(source)
        if pixels:
            limit_pixels(self.image_processor, pixels)
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(self.config)
        self.parameters, self.adapter = count_parameters(model).total, 0
        self.shares = sees_all(model)
        self.products, self.put_out, self.adapted = Counter(), 0, 0
        inside = _INSIDE | {language_model(model) + ".": "token", "lm_head": "output"}
        adapted = re.compile(lora_targets(model, settings.projections))
        for name, module in model.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                part = next((part for key, part in inside.items() if key in name), "patch")
                self.products[part] += module.weight.numel()
                self.put_out += len(module.weight) * (part == "token")
            if adapted.fullmatch(name):
                self.adapted += module.in_features
                self.adapter += settings.rank * (module.in_features + module.out_features)
        text, vision = self.config.get_text_config(), self.config.vision_config
        self.text, self.vision = text, vision
        maps = 1 + len(getattr(vision, "deepstack_visual_indexes", ()))
        self.handed = maps * text.hidden_size
        self.depth = getattr(vision, "depth", None) or vision.num_hidden_layers
        self.eye = getattr(vision, "embed_dim", None) or vision.hidden_size  # its width
        head = text.to_dict().get("head_dim")  # as an attribute an error where layers differ
        head = head or text.hidden_size // text.num_attention_heads
        kinds = getattr(text, "layer_types", None) or ["attention"] * text.num_hidden_layers
        linear = kinds.count("linear_attention")  # which keeps a state in place of keys and values
        self.queries = (len(kinds) - linear) * head * text.num_attention_heads
        self.keys = self.queries // text.num_attention_heads * text.num_key_value_heads
        self.delta = linear and linear * text.linear_num_value_heads * text.linear_value_head_dim

    def length(self, text: str, chat: bool = False) -> int:
        """Tokens of a text, or of a question in the chat's format; else one for four characters."""
        if self.processor is None:
            return math.ceil(len(text) / 4) + 25 * chat
        text = chat_text(self.processor, text) if chat else text
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) - chat

    @functools.cache  # noqa: B019 (sized_vlm keeps each VLM anyway)
    def view(self, width: int, height: int) -> View:
        """What is seen of an image of this size in pixels."""
        if hasattr(self.image_processor, "merge_size"):
            patches = self.image_processor.get_number_of_image_patches(height, width, {})
            return View(patches, patches, patches // self.image_processor.merge_size**2)
        patch, side = int(np.max(self.vision.patch_size)), getattr(self.vision, "image_size", 0)
        if self.processor is not None:  # asks it, with an image that is black
            chat, image = chat_text(self.processor, ""), Image.new("RGB", (width, height))
            made = self.processor(text=[chat], images=[[image]], return_tensors="pt")
            patches = made["pixel_values"].numel() // (3 * patch**2)
            tokens = int((made["input_ids"] == self.config.image_token_id).sum())
            return View(patches, min(patches, (int(np.max(side)) // patch) ** 2 or patches), tokens)
        tiles = np.ravel(self.image_processor.get_number_of_image_patches(height, width, {}))[0]
        config, tiles, side = self.config, max(1, int(tiles)), int(np.max(side)) // patch
        shrink = getattr(config, "scale_factor", 1) / getattr(config, "downsample_ratio", 1)
        return View(tiles * side**2, side**2, tiles * (int(side / shrink) ** 2 + 2) + 4)

    def seeing(self, view: View) -> float:
        """Operations of the visual encoder on an image."""
        work = view.patches * self.products["patch"] + view.tokens * self.products["visual"]
        return 2 * work + 4 * self.depth * self.eye * view.patches * view.span

    def reading(self, tokens: float, kept: float, layers: int = 1, output: int = 1) -> float:
        """Operations of the language model on so many tokens, of which ``kept`` get an output."""
        attention = 4 * self.queries * tokens**2
        work = layers * (2 * tokens * self.products["token"] + attention)
        return work + 2 * output * kept * self.products["output"]

    def tuning(self, tokens: float, learnt: float, recompute: bool) -> float:
        """Operations of a step with one row, of which so many tokens are learnt from; base weights get
        no gradient."""
        return self.reading(tokens, learnt, 2 + recompute, 2)

    def weights(self, nf4: bool, size: int) -> float:
        """Bytes of weights of ``size`` bytes or in NF4, and of the adapter in 32 bits."""
        quantised = nf4 * (self.products.total() - self.products["output"])
        kept = size * (self.parameters - quantised)
        return quantised * NF4_BITS / 8 + kept + 4 * self.adapter

    def answering_bytes(self, view: View, text: int, kept: int, k: int, size: int) -> float:
        """Bytes of the widest layer; or of the output, a copy in 32 bits and its logarithm, beside
        the keys and values of all that was read, once for each of k answers."""
        times = getattr(self.vision, "temporal_patch_size", 1)
        pixels = 3 * times * int(np.max(self.vision.patch_size)) ** 2
        layer = 2 * self.text.hidden_size + 3 * self.text.intermediate_size
        read = (view.tokens + text) * layer if text else 0
        seen = view.patches * ((4 + size) * pixels + size * 12 * self.eye)
        cache = 2 * size * k * (view.tokens + text) * self.keys
        return max(seen, size * read, cache + (size + 4 + 4) * kept * self.text.vocab_size)

    def tuning_bytes(
        self, tokens: float, learnt: float, size: int, settings: TuningSettings
    ) -> float:
        """Bytes that the backward pass needs of a row, with values of ``size`` bytes."""
        width, layers = self.text.hidden_size, self.text.num_hidden_layers
        # Of all layers: what matrices put out, two norms, the MLP's gate and product.
        inside = size * (self.put_out + 2 * layers * (width + self.text.intermediate_size))
        inside += 4 * DELTA * self.delta
        inside += 5 * self.adapted  # LoRA's input after dropout, and the mask
        kept = size * width * layers + inside / layers if settings.recompute else inside
        return tokens * kept + learnt * (2 * size + 4 + 4) * self.text.vocab_size


sized_vlm = functools.cache(SizedVLM)
"""The VLM of a folder or hub id; InputError where neither MODELS nor this machine knows it."""


def read_vlm(source: str) -> tuple:
    """Configuration, processor (None of a hub id in MODELS) and image processor."""
    if source in MODELS:
        values = dict(MODELS[source])
        images = dict(values.pop("preprocessor"))
        kind = getattr(transformers, images.pop("image_processor_type"))
        return transformers.AutoConfig.for_model(**values), None, kind(**images)
    try:
        config = transformers.AutoConfig.from_pretrained(source, local_files_only=True)
        processor = transformers.AutoProcessor.from_pretrained(source, local_files_only=True)
    except (ImportError, OSError, ValueError) as error:
        known = f"none of the known models ({', '.join(MODELS)}), and not on this machine"
        raise InputError(f"{source} is {known}: give a folder with it") from error
    return config, processor, processor.image_processor


class SizedNetwork(NamedTuple):
    """A vision model: parameters, and of an image operations and the values that its layers put out."""

    total: int
    operations: int
    values: int


@functools.cache
def sized_network(name: str, side: int, classes: int) -> SizedNetwork:
    """A model of timm for images of ``side`` pixels; errors as `weights.build_network`."""
    values = []

    def note(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        values.append(output.numel() * (output is not inputs[0]))  # not those done in place

    with torch.device("meta"):
        network = build_network(VisionSettings(name, side), classes)
        for module in network.modules():
            if not list(module.children()) or list(module.parameters(recurse=False)):
                module.register_forward_hook(note)
        pixels = torch.empty(1, 3, side, side)
        operations = flops(lambda: network(pixels))
    return SizedNetwork(count_parameters(network).total, operations, sum(values))
