"""What an answer costs: parameters, floating-point operations, time and memory per image (lesson 9).

EmoVLM-KD's head reads the visual features that the VLM computes anyway, so that beside the VLM it
costs a head and a gate, where running a second model costs that whole model. `compare` sets the
three side by side for any VLM (Lee, Lee & Park 2025, doi 10.1109/CVPRW67362.2025.00560).
"""

from __future__ import annotations

import math
import re
import sys
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
    """Parameters of modules; one that is shared, within or between modules, counts once, and one
    in 4 bits, of which bitsandbytes packs two into a byte, as what it was before.

    trained: those are counted as trained whose name contains this text ("lora_"), whatever they
    require now; without it, those that require a gradient.
    """
    counts: dict[nn.Parameter, int] = {}
    changed: set[nn.Parameter] = set()
    for module in modules:
        for name, parameter in module.named_parameters():
            packed = getattr(parameter, "quant_state", None)
            counts[parameter] = (parameter if packed is None else packed.shape).numel()
            if parameter.requires_grad if trained is None else trained in name:
                changed.add(parameter)
    return Parameters(sum(counts.values()), sum(counts[parameter] for parameter in changed))


def weight_bytes(*modules: nn.Module) -> int:
    """Bytes of the parameters and buffers of modules, each once."""
    tensors = {t for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(tensor.nbytes for tensor in tensors)


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of one call, by torch's FlopCounterMode.

    Counted are matrix products (Linear, Bilinear, batched), convolutions and the two products of
    scaled dot-product attention, with a multiplication and the addition that follows it as two.
    Not counted are biases, activations, norms, softmax, pooling, look-ups and all else that grows
    with the number of values only, nor what runs outside torch. Causal attention counts in full.
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_CPU_OPERATIONS) as counter:
        call()
    return counter.get_total_flops()


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_, **__):
    """Of shapes (n, heads, length, width): query by key, and weights by value."""
    n, heads, length, width = query
    return 2 * n * heads * length * key[-2] * (width + value[-1])


def _bilinear_flops(left: Sequence[int], weight: Sequence[int], *_, **__):
    """left' W right for each output: (n, i) by (o, i, j), then by (n, j)."""
    outputs, i, j = weight[0], weight[-2], weight[-1]
    return 2 * (math.prod(left) // i) * outputs * (i * j + j)


_CPU_OPERATIONS = {  # for which torch's counter has no formula
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._trilinear: _bilinear_flops,
}


class Latency(NamedTuple):
    """Seconds per image: the median and both quartiles over repeats."""

    median: float
    q1: float
    q3: float


def latency(calls: Sequence[Callable[[], object]], repeats: int, warmup: int = 3) -> np.ndarray:
    """Seconds (calls, repeats) of calls that take turns, so that drift meets all alike.

    warmup: rounds before those that are timed. Work on a GPU is waited for.
    """
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
    """Megabytes (2**20 bytes) by which one call raises the memory in use above that before it.

    On a GPU: of tensors on it. Else the resident set of the process: exact on Linux, where the
    record of its peak can be reset; elsewhere what exceeds the highest ever reached, a lower bound.
    Memory that the process kept from earlier calls is in use already: the first call shows most.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_resident()
    call()
    return (_peak_resident() - before) / 2**20


def _peak_resident() -> int:
    """Bytes: the highest resident set since the start, or on Linux since its last reset."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True)
class CostRow:
    """What one set-up costs; memory_mb: 2**20 bytes of weights and of what a pass needs beside
    them at its peak."""

    name: str
    parameters_total: int
    parameters_trained: int
    flops_per_image: float
    seconds_per_image: Latency
    memory_mb: float


def cost_table(rows: Sequence[CostRow]) -> pd.DataFrame:
    """One line a set-up, by name; what is added is counted from the first line. GFLOPs are 10**9,
    MB 2**20 bytes; ms are the median of repeats, with both quartiles."""
    columns = ["set-up", "parameters", "trained parameters", "GFLOPs per image", "ms per image"]
    values = [
        (row.name, row.parameters_total, row.parameters_trained, row.flops_per_image / 1e9)
        + tuple(1e3 * seconds for seconds in row.seconds_per_image)
        + (row.memory_mb,)
        for row in rows
    ]
    columns += ["q1 (ms)", "q3 (ms)", "memory (MB)"]
    table = pd.DataFrame(values, columns=columns).set_index("set-up")
    for column in ("parameters", "GFLOPs per image", "ms per image"):
        table[f"added {column.split()[0]}"] = table[column] - table[column].iloc[0]
    return table


@dataclass(frozen=True)
class Part:
    """One thing that a set-up runs.

    call: runs it once. modules: what it holds in memory. trained: how many parameters were trained;
    None: those that require a gradient, of which a VLM that was loaded for use has none.
    """

    call: Callable[[], object]
    modules: tuple[nn.Module, ...]
    trained: int | None = None


def compare(vlm: Part, vision: Part, head_and_gate: Part, repeats: int = 20) -> pd.DataFrame:
    """The cost table of the VLM alone, of it with the vision model, and of EmoVLM-KD.

    head_and_gate: the head on the visual features of the VLM's own pass, and the gate; so EmoVLM-KD
    is the VLM and that. Each call works on one image. Every part is measured once, all taking turns:
    so the set-ups differ by exactly what they do not share. Memory: all weights, and the hungriest
    part.
    """
    parts = (vlm, vision, head_and_gate)
    peaks = np.array([peak_memory(part.call) for part in parts])
    operations = np.array([flops(part.call) for part in parts])
    seconds = latency([part.call for part in parts], repeats)
    trained = [
        count_parameters(*part.modules).trained if part.trained is None else part.trained
        for part in parts
    ]
    rows = []
    for name, among in {VLM_ALONE: [0], TOGETHER: [0, 1], EMOVLM_KD: [0, 2]}.items():
        modules = [module for place in among for module in parts[place].modules]
        rows.append(
            CostRow(
                name,
                count_parameters(*modules).total,
                sum(trained[place] for place in among),
                operations[among].sum(),
                Latency(*np.percentile(seconds[among].sum(axis=0), [50, 25, 75])),
                float(weight_bytes(*modules) / 2**20 + peaks[among].max()),
            )
        )
    return cost_table(rows)
