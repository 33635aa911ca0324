"""What the processes of one run agree on; a process that is alone agrees with itself.

A run on several GPUs is one process per GPU, its *ranks*. All of them go through the same
decisions in the same order, or they would wait for each other for ever.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.utils import comm

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Ranks may wait for hours while the first one checks the data; a dead one is noticed otherwise.
_PATIENCE = timedelta(days=2)


def any_of(flag: bool) -> bool:
    """Tell whether the flag is set on any rank; all ranks must ask, and get the same answer."""
    if comm.get_world_size() == 1:
        return flag
    votes = torch.tensor([int(flag)])
    dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=_host_group())
    return bool(votes.item())


def mean_of(value: float) -> float:
    """Return the mean over all ranks, the same on all; every rank must ask."""
    if comm.get_world_size() == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(total, group=_host_group())
    mean: float = total.item() / comm.get_world_size()
    return mean


def from_first(work: Callable[[], T]) -> T:
    """Let the first rank do something alone, and return its answer on all.

    Args:
        work: Returns what pickle can carry; called on the first rank alone.
    """
    if comm.get_world_size() == 1:
        return work()
    answer: list[Any] = [work() if comm.is_main_process() else None]
    dist.broadcast_object_list(answer, src=0, group=_host_group())
    return answer[0]  # type: ignore[no-any-return]  # what the first rank's work returned


@cache
def _host_group() -> Any:  # noqa: ANN401 - PyTorch's, untyped
    """Return a group that talks between CPUs, so that a word does not wait for the GPU's queue."""
    return dist.new_group(backend="gloo", timeout=_PATIENCE)
