"""What differs from one family of vision-language models to another (lesson 10): where
the language model is, how positions are counted, how visual tokens lie over the image."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import InputError


@dataclass(frozen=True)
class Family:
    """types: `model_type` of the configs. text: the language model's name inside of ``model.model``.
    grid: (config, inputs of one image, count of its visual tokens) -> (rows, columns, first): the
    tokens from ``first`` on lie row by row over what is seen of the image. area: (processor, width
    and height of an image) -> left, top, right and bottom of what is seen, in shares of them."""

    types: tuple[str, ...]
    text: str
    grid: Callable[[object, dict, int], tuple[int, int, int]]
    area: Callable[[object, tuple[int, int]], tuple] = lambda processor, size: (0.0, 0.0, 1.0, 1.0)

    def lora_targets(self, projections: Sequence[str]) -> str:
        """A pattern for these projections (of `settings.PROJECTIONS`) of the language model."""
        return rf".*\b{self.text}\.layers\.\d+\.self_attn\.(?:{'|'.join(projections)})_proj"


def _qwen_grid(config, inputs, count):
    merged = inputs["image_grid_thw"][0] // config.vision_config.spatial_merge_size
    return *merged[1:].tolist(), 0


def _llava_grid(config, inputs, count):
    rows = columns = math.isqrt(count)  # of CLIP; Pixtral sees a rectangle
    if "image_sizes" in inputs:
        rows, columns = (inputs["image_sizes"][0] // config.vision_config.patch_size).tolist()
    return rows, columns, count - rows * columns


def _tiled_grid(config, inputs, count):
    """Idefics3 cuts a large image into tiles and appends the whole image, made small."""
    side = config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor
    return side, side, count - side * side


def _llava_area(processor, size):
    """CLIP's processor takes the middle square; LLaVA's own, if told to, adds to a square first."""
    image_processor = processor.image_processor
    if not image_processor.do_center_crop:
        return 0.0, 0.0, 1.0, 1.0
    side = max(size) if getattr(image_processor, "do_pad", False) else min(size)
    x, y = ((1 - side / length) / 2 for length in size)
    return x, y, 1 - x, 1 - y


FAMILIES = {
    "Qwen2-VL": Family(("qwen2_vl", "qwen2_5_vl"), "language_model", _qwen_grid),
    "SmolVLM": Family(("smolvlm", "idefics3"), "text_model", _tiled_grid),
    "LLaVA": Family(("llava",), "language_model", _llava_grid, _llava_area),
}


def family_of(config) -> Family:
    """The family of a model, by its config. Raises InputError for a model of none of them."""
    of_type = {kind: family for family in FAMILIES.values() for kind in family.types}
    if config.model_type not in of_type:
        raise InputError(f"no family has {config.model_type!r}, only {', '.join(of_type)}")
    return of_type[config.model_type]


def image_inputs(inputs: dict) -> dict:
    """Of a processor's output what the visual encoder needs."""
    names = ("pixel_values", "image_grid_thw", "pixel_attention_mask", "image_sizes")
    return {name: inputs[name] for name in names if name in inputs}


def positions(model, inputs: dict):
    """Rotary positions (r, n, L): r = 3 (time, row, column) where the model counts so, else 1."""
    if not hasattr(model.model, "get_rope_index"):
        return (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)[None]
    names = ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")
    return model.model.get_rope_index(**{name: inputs[name] for name in names})[0]
