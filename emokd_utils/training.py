"""Training: what is the same for head, gate and vision model, so that their modules hold the method."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .errors import InputError
from .files import load_tensors, save_tensors

Array = np.ndarray | torch.Tensor


def fit(
    module: nn.Module,
    train_epoch: Callable[[], float],
    val_logits: Callable[[], torch.Tensor],
    val_labels: torch.Tensor,
    settings: Any,
    after_epoch: Callable[[dict[str, float]], object] = lambda record: None,
    first_epoch: int = 1,
) -> tuple[list[dict[str, float]], int, torch.Tensor]:
    """Train `module` until `settings.patience` epochs have brought nothing better on the val rows, by
    `settings.monitor` or loss; it is left in evaluation mode with the weights of the best epoch.
    train_epoch: returns its mean loss. val_logits: (m, C). val_labels: int64 (m,). Returns one dict
    an epoch (epoch, train_loss, val_loss, val_accuracy), each of which `after_epoch` is told,
    the best epoch, and its logits. Raises InputError where no epoch had a finite loss."""
    monitor = getattr(settings, "monitor", "val_loss")
    history: list[dict[str, float]] = []
    best_score, best_epoch = (-math.inf, -math.inf), first_epoch - 1
    for epoch in range(first_epoch, settings.epochs + 1):
        module.train()
        train_loss = train_epoch() if epoch else None
        module.eval()
        with torch.no_grad():
            logits = val_logits()  # (m, C)
        loss = F.cross_entropy(logits, val_labels).item()
        accuracy = (logits.argmax(dim=1) == val_labels).double().mean().item()
        record = {"epoch": epoch, "train_loss": train_loss}
        history.append(record | {"val_loss": loss, "val_accuracy": accuracy})
        after_epoch(history[-1])
        score = (-loss, accuracy) if monitor == "val_loss" else (accuracy, -loss)
        if score > best_score and math.isfinite(loss):
            best_score, best_epoch, best_logits = score, epoch, logits
            best_weights = copy.deepcopy(module.state_dict())
        elif epoch - best_epoch >= settings.patience:
            break
    if best_epoch < first_epoch:
        raise InputError("training diverged: choose a smaller learning rate (lr)")
    module.load_state_dict(best_weights)
    return history, best_epoch, best_logits


def gradient_steps(
    batches: Iterable[torch.Tensor],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    after_step: Callable[[], object] = lambda: None,
) -> float:
    """One step for each batch of rows, int64 (b,), whose mean loss `loss_of` gives; returns that of
    all rows. The losses are read once, at the end, so that a GPU need not wait at every step."""
    total, count = 0.0, 0
    for rows in batches:
        loss = loss_of(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step()
        total, count = total + loss.detach().double() * len(rows), count + len(rows)
    return float(total) / count


@contextmanager
def seeded(seed: int, threads: int = 0) -> Iterator[torch.Generator]:
    """Torch's random numbers start at `seed` inside the block, and go on afterwards as before;
    gives a generator for the order of batches. threads: of torch, 0: as many as before."""
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


def bf16_is_fast(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware: CUDA from Ampere on, or AMX."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 inside the block where the device is fast at it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device))


def as_matrix(values: Array, name: str, columns: int = 0, rows: int = 0) -> torch.Tensor:
    """A finite float32 tensor (rows, columns), 0: any but 0; InputError naming `name` otherwise."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().float().numpy()
    array = np.asarray(values, dtype=np.float32)
    shape = None if array.ndim != 2 else (rows or len(array), columns or array.shape[1])
    if array.shape != shape or not array.size:
        wanted = f"({rows or 'n'}, {columns or 'columns'})"
        raise InputError(f"{name} must be of shape {wanted}, one row an image, not {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} has values that are not finite: make it anew")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_labels(values: Array, name: str, rows: int, num_classes: int) -> torch.Tensor:
    """An int64 tensor (rows,) in [0, num_classes); InputError naming `name` otherwise."""
    array = np.asarray(values)
    whole = array.shape == (rows,) and array.dtype.kind in "iu"
    if not whole or not ((array >= 0) & (array < num_classes)).all():
        raise InputError(f"{name} must be {rows} whole numbers in 0..{num_classes - 1}")
    return torch.from_numpy(array.astype(np.int64))


class Trained:
    """A dataclass of a module, its settings and what its training noted, kept in one file of the
    `file_format`. `build` makes the module, the first field, of settings of the `settings_type` and
    the module's `arguments`."""

    def save(self, path: str | Path) -> None:
        """Write weights, buffers, settings and notes to one safetensors file."""
        about = dict(vars(self))
        module = about.pop(next(iter(about)))
        about |= {"settings": asdict(self.settings), "arguments": module.arguments}
        save_tensors(path, module.state_dict(), about, self.file_format)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; InputError when the file is missing, damaged or foreign."""
        arrays, about = load_tensors(path, cls.file_format)
        try:
            settings = cls.settings_type(**about.pop("settings"))
            with torch.random.fork_rng(devices=[]):
                module = cls.build(settings, **about.pop("arguments"))
            module.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
            return cls(module.eval(), settings=settings, **about)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} holds something else: train it anew ({error})") from error
