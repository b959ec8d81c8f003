"""A vision-language model from a folder or the hub: precision, device, adapter, size of images."""

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isqrt
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig
from transformers.utils import logging

from .errors import InputError
from .families import check_model
from .training import bf16_is_fast, default_device

# peft causes it by asking transformers for a name that these are about to drop
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)


@contextmanager
def readable_errors(source: str) -> Iterator[None]:
    """What transformers says of a model that it cannot load, as one InputError that names it."""
    try:
        yield
    except (ImportError, OSError, ValueError, SafetensorError) as error:
        cause = " ".join(str(error).split())
        mend = "give the folder of a saved model, or an id on the Hugging Face hub, if in reach"
        raise InputError(f"{source} cannot be loaded: {cause} ({mend})") from error


def read_config(source: str, revision: str = ""):
    """A model's configuration; InputError where there is none, or as `families.check_model`."""
    with readable_errors(source):
        config = AutoConfig.from_pretrained(source, revision=revision or "main")
    check_model(config)
    return config


def load_model(
    source: str,
    adapter: str | Path | None = None,
    device: str | None = None,
    quantize: str = "",
    pixels: int = 0,
    revision: str = "",
) -> tuple:
    """A model, of a folder or the hub, with its adapter, and its processor; float32 on a CPU, else
    the checkpoint's type. quantize "nf4": the linear layers but the last in 4 bits with double
    quantisation (Dettmers et al. 2023, arXiv:2305.14314). Raises InputError where that fails."""
    logging.disable_progress_bar()
    config = read_config(source, revision)
    device, options = device or default_device().type, {"revision": revision or "main"}
    with readable_errors(source):  # what is small, before gigabytes are fetched
        processor = AutoProcessor.from_pretrained(source, **options)
    check_model(config, processor)
    if pixels:
        limit_pixels(processor.image_processor, pixels)
    options["dtype"] = "auto"
    if device == "cpu":
        keep_freed_memory()
        options["dtype"] = torch.float32
    if quantize:
        options |= _four_bits(quantize, device)
    with readable_errors(source):
        model = AutoModelForImageTextToText.from_pretrained(source, **options)
    if adapter:
        from peft import PeftModel, get_peft_model_state_dict

        with readable_errors(str(adapter)):
            model = PeftModel.from_pretrained(model, str(adapter))
            kept = load_file(Path(adapter) / "adapter_model.safetensors")
            own = get_peft_model_state_dict(model, save_embedding_layers=False)
            if odd := sorted(own.keys() ^ kept.keys()):
                raise ValueError(f"it does not fit {source}: {odd[0]} is in one of the two alone")
    return model.to(device), processor


def _four_bits(kind: str, device: str) -> dict:
    if kind != "nf4":
        raise InputError(f"there is no quantisation {kind!r}; choose 'nf4', or '' for none")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        mend = f'need bitsandbytes: `pip install -e ".[gpu]"` ({error})'
        raise InputError(f"weights in 4 bits {mend}") from error
    half = torch.bfloat16 if bf16_is_fast(device) else torch.float16
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if device == "cpu" else half,
    )
    where = torch.cuda.current_device() if device == "cuda" else device
    return {"quantization_config": config, "device_map": {"": where}}


def limit_pixels(image_processor, pixels: int) -> None:
    """Have an image processor make images smaller that have more than ``pixels`` pixels. SmolVLM's is
    given as many tiles a side as fit in; one that makes all images of one size stays as it is."""
    size = image_processor.size
    if hasattr(image_processor, "max_image_size"):
        tile = image_processor.max_image_size["longest_edge"]
        size["longest_edge"] = min(size["longest_edge"], tile * max(1, isqrt(pixels) // tile))
    elif hasattr(image_processor, "merge_size"):
        size["longest_edge"] = min(size["longest_edge"], pixels)
        size["shortest_edge"] = min(size["shortest_edge"], pixels)


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next layer: fresh pages for each layer's outputs would
    cost a CPU a tenth of a pass. Other C libraries are left as they are."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-1, 256 * 2**20)  # M_TRIM_THRESHOLD
        mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, the largest that is taken
