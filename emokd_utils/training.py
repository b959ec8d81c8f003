"""Training: the one loop with early stopping; seeds, threads, device and precision.

What is the same for head, gate and vision model is here, so that their modules hold the method.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from .errors import InputError
from .files import load_tensors, save_tensors

T = TypeVar("T")


@dataclass(frozen=True)
class Fitted:
    """What training noted and kept.

    history: one dict an epoch (epoch from 1, train_loss, val_loss, val_accuracy). best_epoch: the
    one that was best on the val rows. best: what `snapshot` gave after it.
    """

    history: list[dict[str, float]]
    best_epoch: int
    best: Any


def fit(
    train_epoch: Callable[[], float],
    val_logits: Callable[[], torch.Tensor],
    val_labels: torch.Tensor,
    snapshot: Callable[[], Any],
    *,
    epochs: int,
    patience: int,
    monitor: str = "val_loss",
    after_epoch: Callable[[dict[str, float]], object] = lambda record: None,
) -> Fitted:
    """Train until `patience` epochs have brought nothing better on the val rows.

    train_epoch: trains for one epoch and returns its mean loss. val_logits: logits (m, C) of the
    val rows. val_labels: int64 (m,). snapshot: a copy of what is to be kept of the epoch just
    trained. monitor: what makes an epoch better, "val_loss" or "val_accuracy"; the other one
    decides between equals. after_epoch: is told what was noted of the epoch.

    Raises InputError where no epoch had a finite loss.
    """
    history: list[dict[str, float]] = []
    best_score, best_epoch, best = (-math.inf, -math.inf), 0, None
    for epoch in range(1, epochs + 1):
        train_loss = train_epoch()
        logits = val_logits()  # (m, C)
        loss = F.cross_entropy(logits, val_labels).item()
        accuracy = (logits.argmax(dim=1) == val_labels).double().mean().item()
        history.append(
            {"epoch": epoch, "train_loss": train_loss, "val_loss": loss, "val_accuracy": accuracy}
        )
        after_epoch(history[-1])
        score = (-loss, accuracy) if monitor == "val_loss" else (accuracy, -loss)
        if score > best_score and math.isfinite(loss):
            best_score, best_epoch, best = score, epoch, snapshot()
        elif epoch - best_epoch >= patience:
            break
    if best is None:
        raise InputError("training diverged: choose a smaller learning rate (lr)")
    return Fitted(history, best_epoch, best)


def gradient_steps(
    batches: Iterable[torch.Tensor],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    after_step: Callable[[], object] = lambda: None,
) -> float:
    """One step for each batch of rows; returns the mean loss over all rows.

    batches: int64 (b,) each. loss_of: the mean loss of a batch, a scalar. The losses are read once,
    at the end, so that a GPU need not wait at every step.
    """
    total, count = 0.0, 0
    for rows in batches:
        loss = loss_of(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step()
        total, count = total + loss.detach().double() * len(rows), count + len(rows)
    return float(total) / count


def copied_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a module's weights and buffers, untouched by further training."""
    return copy.deepcopy(module.state_dict())


@contextmanager
def seeded(seed: int, threads: int = 0) -> Iterator[torch.Generator]:
    """Torch's random numbers start at `seed` inside the block, and afterwards go on as if there had
    been none; gives a generator of its own for the order of batches.

    threads: so many of torch's inside the block, 0: as many as before.
    """
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.set_num_threads(threads or before)
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.set_num_threads(before)


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_is_fast(device: torch.device | str | None = None) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware: CUDA from Ampere on, or AMX."""
    device = default_device() if device is None else torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def autocast(device: torch.device) -> AbstractContextManager:
    """bfloat16 inside the block where the device is fast at it."""
    return torch.autocast(device.type, torch.bfloat16) if bf16_is_fast(device) else nullcontext()


def as_matrix(
    values: np.ndarray | torch.Tensor, name: str, columns: int | None = None
) -> torch.Tensor:
    """A finite float32 tensor (n, columns), n > 0; InputError naming `name` otherwise."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().float().numpy()
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2 or not array.size or columns not in (None, array.shape[1]):
        wanted = "columns" if columns is None else columns
        raise InputError(f"{name} must be of shape (n, {wanted}) with n > 0, not {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{name} is not finite in row {row}: make it anew")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_labels(
    values: np.ndarray | torch.Tensor, name: str, rows: int, num_classes: int
) -> torch.Tensor:
    """An int64 tensor (rows,) in [0, num_classes); InputError naming `name` otherwise."""
    array = np.asarray(values)
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be {rows} whole numbers, not {array.dtype} of shape {array.shape}"
        )
    outside = array[(array < 0) | (array >= num_classes)]
    if len(outside):
        raise InputError(f"{name} must lie in 0..{num_classes - 1}; found {outside[0]}")
    return torch.from_numpy(array.astype(np.int64))


def save_trained(path: str | Path, trained: Any, file_format: str) -> None:
    """Write a dataclass whose first field is a module, and the others its settings and what its
    training noted. The module's `arguments` say how it is built."""
    about = {field.name: getattr(trained, field.name) for field in fields(trained)}
    module = about.pop(fields(trained)[0].name)
    about |= {"settings": asdict(trained.settings), "arguments": module.arguments}
    save_tensors(path, module.state_dict(), about, file_format)


def load_trained(
    path: str | Path,
    file_format: str,
    kind: Callable[..., T],
    settings: Callable[..., Any],
    build: Callable[..., torch.nn.Module],
) -> T:
    """What `save_trained` wrote, in evaluation mode. kind: the dataclass. settings: of its settings.
    build: (settings, **arguments) -> the module.

    Raises InputError when the file is missing, damaged or of another format.
    """
    arrays, about = load_tensors(path, file_format)
    try:
        own = settings(**about.pop("settings"))
        with torch.random.fork_rng(devices=[]):
            module = build(own, **about.pop("arguments"))
        module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return kind(module.eval(), settings=own, **about)
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} does not hold what it should: train it anew ({error})") from error
