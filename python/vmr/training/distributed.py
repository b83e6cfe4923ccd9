"""Several processes as one: what PyTorch's engine leaves to the caller.

Every function does nothing special where no process group was begun.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank_and_world() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the other processes that torchrun started, if it did: NCCL on GPUs, else gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL puts what it passes on
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def on_main(work: Callable[[], T]) -> T:
    """What the first process's ``work()`` returns, in all processes, which must all call this.

    Raises:
        Exception: What ``work`` raised, in all processes.
    """
    rank, world = rank_and_world()
    if world == 1:
        return work()
    answer: list[Any] = [None, None]
    if rank == 0:
        try:
            answer[0] = work()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    found: T = answer[0]
    return found


def summed(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scalars summed over all processes, which must all call this with the same names."""
    if rank_and_world()[1] == 1 or not values:
        return dict(values)
    together = torch.stack([value.detach().double() for value in values.values()])
    dist.all_reduce(together)
    return {
        name: total.to(value.dtype)
        for (name, value), total in zip(values.items(), together, strict=True)
    }
