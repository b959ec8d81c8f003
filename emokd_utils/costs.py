"""What an answer costs: parameters, floating-point operations, time and memory per image (lesson 9).

EmoVLM-KD's head reads the visual features that the VLM computes anyway: beside the VLM it costs a
head and a gate, not a second model (Lee, Lee & Park 2025, doi 10.1109/CVPRW67362.2025.00560)."""

import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .predictions import EMOVLM_KD, TOGETHER, VLM_ALONE


class Parameters(NamedTuple):
    """Numbers of parameters: all, and those that training changes."""

    total: int
    trained: int


def count_parameters(*modules: nn.Module, trained: str | None = None) -> Parameters:
    """Parameters of modules, a shared one once, one in 4 bits (two in a byte) as what it was
    before; trained: those with this text in their name ("lora_"), else those with a gradient."""
    names = {each: name for module in modules for name, each in module.named_parameters()}
    counts = {each: (getattr(each, "quant_state", None) or each).shape.numel() for each in names}
    changed = (
        counts[each]
        for each, name in names.items()
        if (each.requires_grad if trained is None else trained in name)
    )
    return Parameters(sum(counts.values()), sum(changed))


def weight_bytes(*modules: nn.Module) -> int:
    """Bytes of the parameters and buffers of modules, each once."""
    tensors = {t for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(tensor.nbytes for tensor in tensors)


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of one call, by torch's FlopCounterMode: of matrix products,
    convolutions and attention (a causal one in full), a multiplication and its addition as two."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_CPU_OPERATIONS) as counter:
        call()
    return counter.get_total_flops()


def _attention_flops(query, key, value, *_, **__) -> int:  # shapes (n, heads, length, width)
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _bilinear_flops(left, weight, *_, **__) -> int:
    outputs, i, j = weight  # (n, i) by (o, i, j), then by (n, j)
    return 2 * (math.prod(left) // i) * outputs * (i * j + j)


_CPU_OPERATIONS = {  # for which torch's counter has no formula
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._trilinear: _bilinear_flops,
}


def latency(calls: Sequence[Callable[[], object]], repeats: int, warmup: int = 3) -> np.ndarray:
    """Seconds (calls, repeats) of calls that take turns, so that drift meets all alike."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    seconds = np.empty((len(calls), warmup + repeats))
    for turn in range(warmup + repeats):
        for place, call in enumerate(calls):
            wait()
            start = time.perf_counter()
            call()
            wait()
            seconds[place, turn] = time.perf_counter() - start
    return seconds[:, warmup:]


def peak_memory(call: Callable[[], object]) -> float:
    """Megabytes (2**20 bytes) by which one call raises the memory in use: on a GPU, of the tensors
    on it, else the resident set of the process, on a Mac only what stays."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    before = _peak_resident()
    call()
    return (_peak_resident() - before) / 2**20


def _peak_resident() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss)  # the first on Windows


COLUMNS = ["parameters", "trained parameters", "GFLOPs per image", "ms per image"]
COLUMNS += ["q1 (ms)", "q3 (ms)", "memory (MB)"]


@dataclass(frozen=True)
class Part:
    """One thing that a set-up runs. call: on one image. modules: what it holds in memory. trained:
    how many parameters were; None: those with a gradient (in a loaded VLM, none)."""

    call: Callable[[], object]
    modules: tuple[nn.Module, ...]
    trained: int | None = None


def compare(vlm: Part, vision: Part, head_and_gate: Part, repeats: int = 20) -> pd.DataFrame:
    """The costs of the VLM alone, of it with the vision model, and of EmoVLM-KD: a row each, with
    what is added to the first. GFLOPs are 10**9, MB 2**20 bytes of weights and of what the
    hungriest pass needs; ms are the median of repeats, with both quartiles. head_and_gate: on the
    visual features of the VLM's own pass. Every part is measured once, so that the set-ups differ
    by exactly what they do not share."""
    parts = (vlm, vision, head_and_gate)
    peaks = np.array([peak_memory(part.call) for part in parts])
    operations = np.array([flops(part.call) for part in parts])
    seconds = latency([part.call for part in parts], repeats)
    rows = {}
    for name, among in {VLM_ALONE: [0], TOGETHER: [0, 1], EMOVLM_KD: [0, 2]}.items():
        used = [parts[place] for place in among]
        modules = [module for part in used for module in part.modules]
        trained = (
            count_parameters(*part.modules).trained if part.trained is None else part.trained
            for part in used
        )
        times = 1e3 * np.percentile(seconds[among].sum(axis=0), [50, 25, 75])
        memory = weight_bytes(*modules) / 2**20 + peaks[among].max()
        total, work = count_parameters(*modules).total, operations[among].sum() / 1e9
        rows[name] = total, sum(trained), work, *times, memory
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS).rename_axis("set-up")
    for column in ("parameters", "GFLOPs per image", "ms per image"):
        table[f"added {column.split()[0]}"] = table[column] - table[column].iloc[0]
    return table
