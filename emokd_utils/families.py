"""What a vision-language model is asked for, by transformers' interface and no list of models
(lesson 10). Only how visual tokens lie over an image has to be known of a way of building."""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence

import torch
import transformers

from .errors import InputError
from .settings import PROJECTIONS

TEXT_INPUTS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
"""Of a processor's output what has a value for each token; the rest is for the visual encoder."""
DEEP = "deepstack_features"  # maps of an image that are given to layers of the language model


def answer_part(inputs: dict, name: str, tokens: torch.Tensor) -> torch.Tensor:
    """What an answer's tokens (..., a) add to one of TEXT_INPUTS. Where tokens are of two types, models
    set apart either an image's (1 in the prompt) or an answer's (0 there)."""
    if name == "input_ids":
        return tokens
    return torch.full_like(tokens, 1 if name == "attention_mask" else 1 - int(inputs[name].max()))


def check_model(config, processor=None) -> None:
    """InputError, which says what is missing, for a model that cannot do what the lessons ask:
    answer to an image and a text, hand out what it sees, and go on from a cache; or whose processor,
    where given, writes no chat."""
    kind = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    missing = ""
    if kind is None:
        missing = "no model that answers to an image and a text"
    elif not hasattr(kind, "get_image_features"):
        missing = "no get_image_features, by which a model hands out what it sees"
    elif not {"cache", "mm_encoder_outputs"} <= inspect.signature(kind.forward).parameters.keys():
        missing = "no decoder that takes encoded images and continues from a cache"
    elif processor is not None and not getattr(processor, "chat_template", None):
        missing = "no chat template in its processor"
    if missing:
        raise InputError(f"{config.model_type!r} has {missing}: choose another model")


def _call(function: Callable, inputs: dict, **more):
    """A function of those inputs that it has a parameter for."""
    names = inspect.signature(function).parameters
    return function(**{name: inputs[name] for name in names if name in inputs}, **more)


def encode(model, inputs: dict):
    """What the visual encoder makes of a processor's output, as ``mm_encoder_outputs`` takes it."""
    return _call(model.base_model.get_image_features, inputs, return_dict=True)


def tokens_of(encoded, counts: Sequence[int]) -> Sequence[torch.Tensor]:
    """What the language model is handed of each image, (tokens, width), by the number of its tokens;
    the mean over the maps where a model hands several to its layers. InputError where the numbers
    do not add up: the processor's settings are not the model's."""
    maps = [getattr(encoded, "pooler_output", None), *(getattr(encoded, DEEP, None) or ())]
    rows = [
        torch.cat([tokens.flatten(0, -2) for tokens in tensors_in(part)])  # (all tokens, width)
        for part in maps
        if part is not None
    ]
    if len(rows[0]) != sum(counts):
        told = f"{len(rows[0])} visual tokens, its processor makes room for {sum(counts)}"
        raise InputError(f"this model makes {told}: give it the processor it was published with")
    return torch.stack(rows).mean(0).split(list(counts))


def tensors_in(part) -> Iterator[torch.Tensor]:
    """The tensors in a nesting of them."""
    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, (list, tuple)):
        for inner in part:
            yield from tensors_in(inner)


def separate(encoded, count: int) -> list:
    """What `encode` made of ``count`` images of one size, for each of them."""

    def of_image(part, k: int):
        if isinstance(part, torch.Tensor):  # images one after the other, or their tiles
            return part.chunk(count)[k]
        if isinstance(part[0], int):  # a layer, and what is given to it
            return part[0], of_image(part[1], k)
        return part[k * len(part) // count : (k + 1) * len(part) // count]

    return [_by_map(lambda part, k=k: of_image(part, k), [encoded]) for k in range(count)]


def join(images: Sequence):
    """What `separate` gave of images, as `encode` would give it of all."""

    def of_all(*parts):
        if isinstance(parts[0], torch.Tensor):
            return torch.cat(parts)
        if isinstance(parts[0][0], int):
            return parts[0][0], of_all(*(part[1] for part in parts))
        return [of_image for part in parts for of_image in part]

    return _by_map(of_all, images)


def _by_map(function: Callable, encoded: Sequence):
    """A function of each map of images that the language model is handed, as a model's output."""
    pooled = [getattr(one, "pooler_output", None) for one in encoded]
    deep = [getattr(one, DEEP, None) for one in encoded]
    maps = {"last_hidden_state": None}  # what no language model is handed
    if pooled[0] is not None:
        maps["pooler_output"] = function(*pooled)
    if deep[0] is not None:
        maps[DEEP] = [function(*parts) for parts in zip(*deep, strict=True)]
    return type(encoded[0])(**maps)


def positions(model, inputs: dict) -> torch.Tensor:
    """Rotary positions (r, n, L): r = 3 (time, row, column) where the model counts so, else 1."""
    if hasattr(model.base_model, "get_rope_index"):
        return _call(model.base_model.get_rope_index, inputs)[0]
    return (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)[None]


def sees_all(model) -> bool:
    """Whether each layer of the language model sees all earlier tokens, by an attention that takes a
    mask for each pair of tokens."""
    text = model.config.get_text_config(decoder=True)
    window = getattr(text, "sliding_window", None) and "sliding_attention"
    kinds = getattr(text, "layer_types", None) or [window or "full_attention"]
    return {*kinds} == {"full_attention"} and text._attn_implementation == "sdpa"


def language_model(model) -> str:
    """The name of the language model in a model's modules."""
    decoder = model.get_decoder()
    return next(name for name, module in model.named_modules() if module is decoder)


def lora_targets(model, projections: Sequence[str]) -> str:
    """A pattern for the names of these projections (of `settings.PROJECTIONS`) in the attention layers
    of the language model; a fused one is taken if one of its parts is, one that is not named by its
    parts if all four are. InputError, with what there is, where there are none."""
    start = language_model(model) + "."
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    linear, found, wanted = (
        {name for name in linear if name.startswith(start)},
        set(),
        set(projections),
    )
    for name in linear:
        *_, layer, own = name.split(".")
        parts = set("".join(re.findall("(?:^|_|w)([qkv]+)(?:_|$)", own)) + own[0] * (own[0] == "o"))
        if "att" in layer and (parts & wanted or not parts and len(wanted) == len(PROJECTIONS)):
            found.add(re.sub(r"\d+", r"\\d+", re.escape(name)))
    if not found:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
        asked = ", ".join(projections)
        raise InputError(f"no attention projections {asked}, but these linear layers: {there}")
    return "|".join(sorted(found))


def grid(config, inputs: dict, count: int) -> tuple[int, int, int]:
    """Rows, columns and first of an image's ``count`` visual tokens: from ``first`` on they lie row by
    row over what is seen of it. InputError where that is not known."""
    vision, tiles = getattr(config, "vision_config", None), hasattr(config, "scale_factor")
    shape, rows, columns = [*inputs["pixel_values"].shape], 0, 0
    if "image_grid_thw" in inputs and hasattr(vision, "spatial_merge_size"):  # Qwen2-VL, many since
        rows, columns = (inputs["image_grid_thw"][0, 1:] // vision.spatial_merge_size).tolist()
    elif tiles:  # Idefics3 cuts a large image into tiles and appends the whole image, made small
        rows = columns = vision.image_size // vision.patch_size // config.scale_factor
    elif "image_sizes" in inputs and len(shape) == 4:  # Pixtral sees a rectangle
        rows, columns = (inputs["image_sizes"][0] // vision.patch_size).tolist()
    elif shape == [1, 3] + [getattr(vision, "image_size", 0)] * 2:  # CLIP: a token for each patch
        rows = columns = vision.image_size // vision.patch_size
    first = count - rows * columns
    if not rows or first < 0 or first > 1 and not tiles:  # 1: CLIP's class token
        unknown = "no map, for where its visual tokens lie is not known"
        raise InputError(f"{config.model_type!r}: {unknown}")
    return rows, columns, first


def area(processor, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is seen of an image of this size, in shares of it. CLIP's
    processor takes the middle square; LLaVA's own, if told to, adds to a square first."""
    image_processor = processor.image_processor
    if not getattr(image_processor, "do_center_crop", False):
        return 0.0, 0.0, 1.0, 1.0
    side = max(size) if getattr(image_processor, "do_pad", False) else min(size)
    x, y = ((1 - side / length) / 2 for length in size)
    return x, y, 1 - x, 1 - y
