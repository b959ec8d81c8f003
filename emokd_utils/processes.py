"""More than one process: who does what, and who writes (lesson 10).

``accelerate launch -m emokd_utils run`` starts the same command on each GPU of a machine (on CPUs
``torchrun --nproc_per_node 2 -m emokd_utils run`` does). Tuning shares each batch, predictions and
features are divided by image and gathered in order, and the first process alone trains what is
small, writes and speaks. With one process nothing here does anything, nor imports torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from typing import Any

_world = (0, 1)


def join(count: int) -> None:
    """Meet the other processes, once; `count` is how many were launched together (WORLD_SIZE)."""
    global _world
    if count == 1 or _world[1] > 1:
        return
    import torch
    import torch.distributed as dist
    from accelerate import PartialState

    few = torch.cuda.is_available() and torch.cuda.device_count() < count  # nccl wants one each
    backend = {"backend": "gloo"} if few else {}
    # others wait while the first process trains
    PartialState(timeout=timedelta(hours=24), **backend)
    _world = dist.get_rank(), dist.get_world_size()


def world() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are; (0, 1) before `join`."""
    return _world


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block this process is as if there were no others."""
    global _world
    before, _world = _world, (0, 1)
    try:
        yield
    finally:
        _world = before


def first() -> bool:
    """Whether this is the process that writes and speaks."""
    return world()[0] == 0


def part(items: Sequence) -> Sequence:
    """The items that are this process's: a run of them, so that `gather` restores the order."""
    rank, count = world()
    return items[len(items) * rank // count : len(items) * (rank + 1) // count]


def gather(items: list) -> list:
    """All processes' items, in the order of the processes, in every process."""
    _, count = world()
    if count == 1:
        return items
    import torch.distributed as dist

    parts: list = [None] * count
    dist.all_gather_object(parts, items)
    return list(chain.from_iterable(parts))


def agree(value: Any) -> Any:
    """The first process's value, in every process."""
    return gather([value])[0]


def finish() -> None:
    """Wait for all processes and take leave, so that none ends while another still reads."""
    if world()[1] > 1:
        import torch.distributed as dist

        dist.barrier()
        dist.destroy_process_group()
