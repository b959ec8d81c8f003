"""What an answer costs: parameters, floating-point operations, time and memory per image.

EmoVLM-KD's head reads the visual features that the VLM computes anyway, so that beside the VLM it
costs a head and a gate, where running a second model costs that whole model. `compare` sets the
three side by side for any VLM (Lee, Lee & Park 2025, doi 10.1109/CVPRW67362.2025.00560).
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .errors import InputError

try:
    import resource
except ImportError:  # Windows has none
    resource = None

VLM_ALONE = "VLM alone"
TOGETHER = "VLM and vision model together"
EMOVLM_KD = "EmoVLM-KD"

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: all, and those that training changes."""

    total: int
    trained: int


def count_parameters(*modules: nn.Module, trained: str | None = None) -> Parameters:
    """Parameters of modules; one that is shared, within or between modules, counts once, and one
    in 4 bits, of which bitsandbytes packs two into a byte, as what it was before.

    trained: those are counted as trained whose name contains this text ("lora_"), whatever they
    require now; without it, those that require a gradient.
    """
    seen: dict[nn.Parameter, bool] = {}
    for module in modules:
        for name, parameter in module.named_parameters():
            changed = parameter.requires_grad if trained is None else trained in name
            seen[parameter] = seen.get(parameter, False) or changed
    return Parameters(
        sum(map(_count, seen)), sum(_count(parameter) for parameter, yes in seen.items() if yes)
    )


def _count(parameter: nn.Parameter) -> int:
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else packed.shape.numel()


def weight_bytes(*modules: nn.Module) -> int:
    """Bytes of the parameters and buffers of modules, each once."""
    tensors = {t for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


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


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_, **__
) -> int:
    """Of shapes (n, heads, length, width): query by key, and weights by value."""
    n, heads, length, width = query
    return 2 * n * heads * length * key[-2] * (width + value[-1])


def _bilinear_flops(
    left: Sequence[int], weight: Sequence[int], right: Sequence[int], *_, **__
) -> int:
    """left' W right for each output: (n, i) by (o, i, j), then by (n, j)."""
    n, outputs, i, j = math.prod(left) // weight[-2], weight[0], weight[-2], weight[-1]
    return 2 * n * outputs * (i * j + j)


# Operations on a CPU for which torch's counter has no formula.
_CPU_OPERATIONS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._trilinear: _bilinear_flops,
}


class Latency(NamedTuple):
    """Seconds per image: the median and both quartiles over repeats."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, seconds: np.ndarray) -> Latency:
        """The quartiles of measurements (repeats,)."""
        q1, median, q3 = np.percentile(seconds, [25, 50, 75])
        return cls(float(median), float(q1), float(q3))


def latency(
    call: Callable[[], object], repeats: int = 20, warmup: int = 3, images: int = 1
) -> Latency:
    """Seconds per image of a call that treats `images` images.

    Timed `repeats` times after `warmup` calls that are not; work on a GPU is waited for. Raises
    InputError when repeats or images is below 1.
    """
    return Latency.of(_seconds([call], repeats, warmup, images)[0])


def _seconds(
    calls: Sequence[Callable[[], object]], repeats: int, warmup: int, images: int
) -> np.ndarray:
    """Seconds per image (calls, repeats); the calls take turns, so that drift meets all alike."""
    if min(repeats, images) < 1 or warmup < 0:
        raise InputError(
            f"repeats {repeats} and images {images} must be at least 1 and warmup {warmup} 0"
        )
    taken = np.empty((len(calls), warmup + repeats))
    for turn in range(warmup + repeats):
        for place, call in enumerate(calls):
            _wait()
            start = time.perf_counter()
            call()
            _wait()
            taken[place, turn] = time.perf_counter() - start
    return taken[:, warmup:] / images


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(call: Callable[[], object]) -> float:
    """Megabytes (2**20 bytes) by which one call raises the memory in use above that before it.

    On a GPU: of tensors on it. Else the resident set of the process: exact on Linux, where the
    kernel's record of its peak can be reset; elsewhere only what exceeds the highest ever reached,
    so a lower bound; nan on Windows. Memory that an earlier call has freed and the process kept is
    in use already, so the first call shows most.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_resident()
    call()
    return (_peak_resident() - before) / 2**20


def _peak_resident() -> float:
    """Bytes: the highest resident set since the start, or on Linux since its last reset."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    if resource is None:
        return math.nan
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * _RSS_UNIT


@dataclass(frozen=True)
class CostRow:
    """What one set-up costs.

    parameters_trained: of them, those that training changed. seconds_per_image: median, q1, q3.
    memory_mb: 2**20 bytes of weights and of what a pass needs beside them at its peak.
    """

    name: str
    parameters_total: int
    parameters_trained: int
    flops_per_image: float
    seconds_per_image: Latency
    memory_mb: float


def cost_table(rows: Sequence[CostRow]) -> pd.DataFrame:
    """One line a set-up, by name; what is added is counted from the first line.

    Columns: parameters, trained parameters, GFLOPs per image (10**9), ms per image (median), q1 and
    q3 of it (ms), memory (MB, 2**20 bytes), added parameters, added GFLOPs, added ms. Raises
    InputError without rows.
    """
    if not rows:
        raise InputError("a cost table needs at least one row: give a CostRow for each set-up")
    table = pd.DataFrame(
        {
            "parameters": [row.parameters_total for row in rows],
            "trained parameters": [row.parameters_trained for row in rows],
            "GFLOPs per image": [row.flops_per_image / 1e9 for row in rows],
            "ms per image": [row.seconds_per_image[0] * 1e3 for row in rows],
            "q1 (ms)": [row.seconds_per_image[1] * 1e3 for row in rows],
            "q3 (ms)": [row.seconds_per_image[2] * 1e3 for row in rows],
            "memory (MB)": [row.memory_mb for row in rows],
        },
        index=pd.Index([row.name for row in rows], name="set-up"),
    )
    for column, added in (
        ("parameters", "added parameters"),
        ("GFLOPs per image", "added GFLOPs"),
        ("ms per image", "added ms"),
    ):
        table[added] = table[column] - table[column].iloc[0]
    return table


@dataclass(frozen=True)
class Part:
    """One thing that a set-up runs.

    call: runs it once, on as many images as `measure` is told. modules: what it holds in memory.
    trained: how many parameters were trained; None: those that require a gradient. A VLM whose
    adapter was loaded for use requires none: give `count_parameters(model, trained="lora_")`'s.
    """

    call: Callable[[], object]
    modules: tuple[nn.Module, ...]
    trained: int | None = None


def measure(
    set_ups: Mapping[str, Sequence[Part]], images: int = 1, repeats: int = 20, warmup: int = 3
) -> list[CostRow]:
    """Measure set-ups that run their parts one after another, on `images` images a call.

    Every part is measured once, whichever set-ups it is in (they are told apart by identity), all
    parts taking turns: so two set-ups that share a part differ by exactly what they do not share.
    Memory is that of all weights and of the hungriest part.
    """
    parts = list({id(part): part for chosen in set_ups.values() for part in chosen}.values())
    place = {id(part): k for k, part in enumerate(parts)}
    peaks = np.array([peak_memory(part.call) for part in parts])
    operations = np.array([flops(part.call) for part in parts])
    seconds = _seconds([part.call for part in parts], repeats, warmup, images)
    rows = []
    for name, chosen in set_ups.items():
        among = [place[id(part)] for part in chosen]
        modules = [module for part in chosen for module in part.modules]
        rows.append(
            CostRow(
                name,
                count_parameters(*modules).total,
                sum(
                    count_parameters(*part.modules).trained
                    if part.trained is None
                    else part.trained
                    for part in chosen
                ),
                operations[among].sum() / images,
                Latency.of(seconds[among].sum(axis=0)),
                float(weight_bytes(*modules) / 2**20 + peaks[among].max()),
            )
        )
    return rows


def compare(
    vlm: Part, vision: Part, head_and_gate: Part, images: int = 1, repeats: int = 20
) -> pd.DataFrame:
    """The cost table of the VLM alone, of it with the vision model, and of EmoVLM-KD.

    head_and_gate: the head on the visual features of the VLM's own pass, and the gate; so EmoVLM-KD
    is the VLM and that. Raises InputError as `latency`.
    """
    set_ups = {VLM_ALONE: [vlm], TOGETHER: [vlm, vision], EMOVLM_KD: [vlm, head_and_gate]}
    return cost_table(measure(set_ups, images, repeats))
