"""Models without numbers: what a step of training or answering takes, found without doing it.

On torch's meta device tensors have shapes and no numbers, so that a model of any size is made at
once and a step is gone through in a second. `Count` counts its operations and adds up the tensors
alive. Attention there is done as fused kernels do it (Dao et al. 2022, arXiv:2205.14135).
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from ..costs import weight_bytes
from ..errors import InputError
from ..families import family_of
from ..loading import limit_pixels, readable_errors
from ..settings import TuningSettings
from ..tuning import add_lora, recompute_layers

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight: a scale of 8 bits for 64 of them, one of 32 for 256 scales (arXiv:2305.14314)."""

QWEN_VISION = {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
MODELS = {  # config.json and the size in preprocessor_config.json, as published under these ids
    "Qwen/Qwen2-VL-7B-Instruct": {
        "model_type": "qwen2_vl",
        "text_config": {
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "vocab_size": 152064,
        },
        "vision_config": QWEN_VISION | {"hidden_size": 3584},
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen2-VL-2B-Instruct": {
        "model_type": "qwen2_vl",
        "text_config": {
            "hidden_size": 1536,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "intermediate_size": 8960,
            "vocab_size": 151936,
        },
        "vision_config": QWEN_VISION | {"hidden_size": 1536},
        "tie_word_embeddings": True,
    },
    "HuggingFaceTB/SmolVLM-256M-Instruct": {
        "model_type": "idefics3",
        "text_config": {
            "model_type": "llama",
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "vocab_size": 49280,
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "image_size": 512,
            "patch_size": 16,
        },
        "scale_factor": 4,
        "tie_word_embeddings": False,
    },
}
PIXELS = {
    "qwen2_vl": {"shortest_edge": 56 * 56, "longest_edge": 12_845_056},
    "idefics3": {"longest_edge": 2048},
}


class _Attention(torch.autograd.Function):
    """Attention as fused kernels do it: the scores are never all in memory."""

    @staticmethod
    def forward(ctx, count, query, key, value):
        *lead, length, width = query.shape
        ctx.count = count
        ctx.work = 2 * math.prod(lead) * length * key.shape[-2] * (width + value.shape[-1])
        count(ctx.work)
        out = query.new_empty(*lead, length, value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx, gradient):
        ctx.count(2.5 * ctx.work)  # the scores anew, and two products for each of the two
        return None, *(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


@contextmanager
def _kernels(low: torch.dtype | None, count: Callable[[float], None]) -> Iterator[None]:
    """Fused attention; and linear layers and convolutions in ``low`` where it is given, as autocast
    has them. Replaced in torch, for a function mode is off while a layer is computed anew."""

    def lower(function: Callable) -> Callable:
        def call(*args):
            return function(*(a.to(low) if torch.is_tensor(a) else a for a in args))

        return call

    def attend(query, key, value, *_, **__):
        return _Attention.apply(count, query, key, value)

    before = {name: getattr(F, name) for name in ("linear", "conv2d")} if low else {}
    others = {name: lower(function) for name, function in before.items()}
    before["scaled_dot_product_attention"] = F.scaled_dot_product_attention
    try:
        for name, function in (others | {"scaled_dot_product_attention": attend}).items():
            setattr(F, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(F, name, function)


class Count(TorchDispatchMode):
    """Operations (as `costs.flops`), and bytes of the tensors alive but those of the modules
    ``held``: ``now``, and at their ``peak``."""

    def __init__(self, *held: nn.Module):
        super().__init__()
        self.flops = self.now = self.peak = 0
        tensors = [t for module in held for t in (*module.parameters(), *module.buffers())]
        self.known = {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs := kwargs or {}))
        if work := flop_registry.get(func._overloadpacket):
            self.flops += work(*args, **kwargs, out_val=out)
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@dataclass(frozen=True)
class Step:
    """What one step takes: operations, and bytes beside the weights at its peak."""

    flops: float
    bytes: float


def rehearse(call: Callable[[], object], *held: nn.Module, low: torch.dtype | None = None) -> Step:
    """Go through ``call``, which works on meta tensors with the modules ``held``.

    low: the type of autocast, in which linear layers and convolutions work.
    """
    fused: list[float] = []
    with Count(*held) as count, _kernels(low, fused.append):
        call()
    return Step(count.flops + sum(fused), count.peak)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


@dataclass(frozen=True, eq=False)
class ShapedVLM:
    """A VLM without numbers, wrapped with its adapter.

    processor: None where none is at hand. here: whether its weights are on this machine.
    """

    model: nn.Module
    image_processor: object
    processor: object
    here: bool

    @property
    def core(self) -> nn.Module:
        """The model without the adapter's wrapper."""
        return self.model.get_base_model()

    def length(self, text: str) -> int:
        """Tokens of a text; four characters each where no tokenizer is at hand."""
        if self.processor is None:
            return math.ceil(len(text) / 4)
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def image(self, width: int, height: int) -> tuple[int, int]:
        """Of an image: patches or tiles for the visual encoder, tokens for the language model."""
        config, given = self.core.config, self.image_processor
        if hasattr(given, "merge_size"):
            patches = given.get_number_of_image_patches(height, width, {})
            return patches, patches // given.merge_size**2
        side = config.vision_config.image_size // config.vision_config.patch_size
        if not hasattr(config, "scale_factor"):
            return 1, side**2
        tiles = max(1, given.get_number_of_image_patches(height, width, {})[0])
        return tiles, tiles * ((side // config.scale_factor) ** 2 + 2) + 4

    def weights(self, nf4: bool) -> tuple[float, float]:
        """Bytes of all weights, and of the largest matrix where it is unpacked from 4 bits."""
        held, largest = float(weight_bytes(self.model)), 0.0
        for name, module in self.model.named_modules() if nf4 else ():
            if (
                isinstance(module, nn.Linear)
                and not name.endswith("lm_head")
                and "lora_" not in name
            ):
                size = weight_bytes(module) - (0 if module.bias is None else module.bias.nbytes)
                held -= size - module.weight.numel() * NF4_BITS / 8
                largest = max(largest, size)
        return held, largest

    def cache(self, tokens: int) -> float:
        """Bytes of the keys and values of so many tokens."""
        text = self.core.config.get_text_config()
        width = text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
        return 2.0 * tokens * text.num_hidden_layers * width * self.core.dtype.itemsize

    def pixels(self, units: int, images: int) -> torch.Tensor:
        """What the processor makes of images of so many patches or tiles."""
        vision = self.core.config.vision_config
        if hasattr(self.core.model, "visual"):
            return _empty(images * units, 3 * vision.temporal_patch_size * vision.patch_size**2)
        return _empty(images * units, 3, vision.image_size, vision.image_size)

    def see(self, pixels: torch.Tensor, images: int) -> torch.Tensor:
        """Pass images through the visual encoder: (all visual tokens, width)."""
        model, units = self.core.model, len(pixels) // images
        pixels = pixels.to(model.dtype)
        if hasattr(model, "visual"):
            grid = torch.tensor([[1, 2, units // 2]] * images)
            places = _empty(len(pixels), 2, dtype=torch.long)
            return model.visual(pixels, grid_thw=grid, position_ids=places).pooler_output
        if not hasattr(model, "connector"):
            return torch.cat(list(model.get_image_features(pixels).pooler_output))
        encoder, vision = model.vision_model, self.core.config.vision_config
        side = vision.image_size // vision.patch_size
        places = _empty(len(pixels), side, side, dtype=torch.bool)
        seen = encoder.encoder(encoder.embeddings(pixels, places), None).last_hidden_state
        return model.connector(encoder.post_layernorm(seen)).flatten(0, 1)

    def read(self, rows: int, length: int, kept: int) -> torch.Tensor:
        """Logits of the last ``kept`` of so many tokens: (rows, kept, vocabulary)."""
        core = self.core
        text = getattr(core.model, family_of(core.config).text)
        places = (3, rows, length) if hasattr(core.model, "get_rope_index") else (rows, length)
        hidden = text(
            inputs_embeds=_empty(rows, length, text.config.hidden_size, dtype=core.dtype),
            attention_mask=_empty(rows, 1, length, length, dtype=core.dtype),
            position_ids=_empty(*places, dtype=torch.long),
            use_cache=False,
        ).last_hidden_state
        return core.lm_head(hidden[:, -kept:])


@functools.cache
def shaped_vlm(source: str, pixels: int, dtype: torch.dtype, settings: TuningSettings) -> ShapedVLM:
    """The VLM of a folder or hub id, without numbers and without the network.

    pixels: as `loading.limit_pixels`, 0: no limit. Raises InputError for an id whose configuration is
    neither in MODELS nor on this machine.
    """
    from transformers import (
        AutoConfig,
        AutoModelForImageTextToText,
        AutoProcessor,
        Idefics3ImageProcessor,
        Qwen2VLImageProcessor,
    )

    here = Path(source).is_dir() or fetched(source)
    if source in MODELS and not here:
        config, processor = AutoConfig.for_model(**MODELS[source]), None
        if config.model_type == "qwen2_vl":
            image_processor = Qwen2VLImageProcessor(size=PIXELS["qwen2_vl"])
        else:
            tile = {"longest_edge": config.vision_config.image_size}
            image_processor = Idefics3ImageProcessor(size=PIXELS["idefics3"], max_image_size=tile)
    else:
        try:
            config = AutoConfig.from_pretrained(source, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{source} is not on this machine, and its configuration is not known (known: "
                f"{', '.join(MODELS)}): give a folder with its config and processor files"
            ) from error
        with readable_errors(source):
            processor = AutoProcessor.from_pretrained(source, local_files_only=True)
        image_processor = processor.image_processor
    if pixels:
        limit_pixels(image_processor, pixels)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return ShapedVLM(add_lora(model, settings), image_processor, processor, here)


def fetched(source: str) -> bool:
    """Whether the weights of a hub id are in the hub's folder on this machine."""
    from transformers.utils import cached_file

    for name in ("model.safetensors", "model.safetensors.index.json"):
        with suppress(OSError):
            return cached_file(source, name, local_files_only=True) is not None
    return False


# --------------------------------------------------------------------------------------------- steps


@functools.cache
@torch.no_grad()
def features_step(vlm: ShapedVLM, units: int, images: int) -> Step:
    """The visual encoder on a batch of images of so many patches or tiles."""
    vlm.model.eval()
    pixels = vlm.pixels(units, images)
    return _with(pixels, rehearse(lambda: vlm.see(pixels, images), vlm.model))


@functools.cache
@torch.no_grad()
def answer_step(vlm: ShapedVLM, units: int, images: int, length: int, kept: int) -> Step:
    """A question of so many tokens about each image, and log-probabilities of the last ones."""
    vlm.model.eval()
    pixels = vlm.pixels(units, images)

    def call() -> None:
        _seen = vlm.see(pixels, images)
        vlm.read(images, length, kept).float().log_softmax(-1)

    return _with(pixels, rehearse(call, vlm.model))


@functools.cache
def tuning_step(
    vlm: ShapedVLM, units: int, images: int, length: int, recompute: bool, low: torch.dtype | None
) -> Step:
    """Forward and backward of a batch of instructions of so many tokens.

    recompute: as `Profile.tuning_recompute`. low: the type of autocast.
    """
    vlm.model.train()
    if recompute:
        recompute_layers(vlm.core)
    pixels = vlm.pixels(units, images)

    def loss() -> torch.Tensor:
        _seen = vlm.see(pixels, images)
        logits = vlm.read(images, length, length).float().flatten(0, 1)
        return F.cross_entropy(logits, _empty(len(logits), dtype=torch.long))

    try:
        return _with(pixels, rehearse(lambda: loss().backward(), vlm.model, low=low))
    finally:
        vlm.model.zero_grad()
        if recompute:
            vlm.core.activation_checkpointing_disable()


@functools.cache
def vision_step(
    network: nn.Module, images: int, size: int, low: torch.dtype | None = None, train: bool = True
) -> Step:
    """Forward, and where ``train`` backward, of a conventional vision model on square images."""
    network.train(train)
    pixels = _empty(images, 3, size, size)

    def call() -> None:
        logits = network(pixels)
        if train:
            labels = _empty(images, dtype=torch.long)
            F.cross_entropy(logits.float(), labels, label_smoothing=0.1).backward()

    with torch.set_grad_enabled(train):
        step = _with(pixels, rehearse(call, network, low=low))
    network.zero_grad()
    return step


def _with(pixels: torch.Tensor, step: Step) -> Step:
    return Step(step.flops, step.bytes + pixels.nbytes)
