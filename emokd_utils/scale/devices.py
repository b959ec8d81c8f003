"""What computes: GPUs by their data sheets, and this machine's CPU as it is measured."""

import re
from dataclasses import dataclass, replace
from timeit import repeat

import psutil
import torch

from ..errors import InputError
from ..profiles import Profile
from ..training import bf16_is_fast


@dataclass(frozen=True)
class Device:
    """Memory in GB (10**9 bytes); peak operations a second of matrix products in 16 bits (summed in
    32, no sparsity) and in 32; the pessimistic and the optimistic share of that peak."""

    name: str
    memory: float
    half: float
    single: float
    bf16: bool = True
    shares: tuple[float, float] = (0.2, 0.4)


_GPUS = (  # NVIDIA's, and its white papers of the architectures
    Device("T4", 16, 65e12, 8.1e12, bf16=False),
    Device("L4", 24, 121e12, 30.3e12),
    Device("RTX 3090", 24, 71e12, 35.6e12),
    Device("RTX 4090", 24, 165e12, 82.6e12),
    Device("A100-40", 40, 312e12, 19.5e12),
    Device("A100-80", 80, 312e12, 19.5e12),
    Device("H100", 80, 989e12, 67e12),
)
GPUS = {gpu.name: gpu for gpu in _GPUS}


def get_device(name: str | None, profile: Profile) -> Device:
    """The GPU of this name, or "cpu"; without a name the one that is here; where there is none an L4
    for a profile with weights in 4 bits, else the CPU. InputError for an unknown name."""
    here = None if name or not torch.cuda.is_available() else torch.cuda.get_device_properties(0)
    name = here.name if here else name or ("L4" if profile.vlm.quantize else "cpu")
    if name.lower() == "cpu":
        return _this_cpu()
    for known, gpu in GPUS.items():
        if here and re.search(rf"\b{known.split('-')[0]}\b", name):
            return replace(gpu, memory=here.total_memory / 1e9)
        if name.lower() == known.lower():
            return gpu
    raise InputError(f"there is no GPU {name!r} in the table: name {', '.join(GPUS)}, or cpu")


def _this_cpu(side: int = 1024) -> Device:
    fast, speed = bf16_is_fast("cpu"), []
    for dtype in (torch.bfloat16 if fast else torch.float32, torch.float32):
        a = torch.ones(side, side, dtype=dtype)
        speed.append(2 * side**3 / min(repeat(lambda a=a: a @ a, number=1)))
    memory = psutil.virtual_memory().available / 1e9
    return Device("cpu", memory, *speed, fast, (0.08, 0.8))
