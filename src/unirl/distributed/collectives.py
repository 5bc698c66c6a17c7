"""Collectives over the default process group. With one process they return the local value."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes; 1 where no process group is initialized."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_mean(value: Tensor) -> Tensor:
    """Mean over all ranks, without gradient. Collective: call it on every rank.

    Args:
        value: Of any shape, the same on every rank.

    Returns:
        The mean in float32; `value` itself with one process.
    """
    if world_size() == 1:
        return value
    total = value.detach().float().clone()
    dist.all_reduce(total)
    return total / world_size()


def all_gather(value: Tensor) -> Tensor:
    """The values of all ranks one after another, without gradient. Collective: call it on every rank.

    Args:
        value: Of the same shape on every rank, with at least one dimension.

    Shapes:
        value (N, ...); returns (ranks x N, ...).

    Example:
        >>> all_gather(torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    if world_size() == 1:
        return value.detach()
    parts = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(parts, value.detach().contiguous())
    return torch.cat(parts)


def any_rank(value: bool, device: torch.device) -> bool:
    """Whether a value is true on any rank. Collective: call it on every rank.

    Args:
        value: That of this rank.
        device: Of the ranks' tensors.
    """
    if world_size() == 1:
        return value
    flag = torch.tensor(int(value), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def global_masked_mean(values: Tensor, mask: Tensor, total: Tensor | None = None) -> Tensor:
    """Masked mean over the values of all ranks. Collective: call it on every rank.

    Each rank gets its own share, scaled so that the mean over ranks, as DDP takes it of gradients, is the masked mean
    of all values together. Ranks may have unequally many values.

    Args:
        values: The values of this rank; may be empty.
        mask: Weight of each value.
        total: Sum of the weights of this rank. Defaults to that of `mask`; give that of all values where these are some
            of them, so that the results add up.

    Shapes:
        values and mask of the same shape, total a scalar; returns a scalar.

    Example:
        >>> global_masked_mean(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 0.0]))
        tensor(1.5000)
    """
    total = mask.sum() if total is None else total
    return (values * mask).sum() / all_reduce_mean(total).clamp(min=1e-9)


def gather_object(value: Any) -> list[Any] | None:
    """The objects of all ranks on rank 0. Collective: call it on every rank.

    They go from main memory to main memory: NCCL would collect them on the GPU of rank 0.

    Args:
        value: The object of this rank. Its tensors must be on the CPU.

    Returns:
        The objects in the order of the ranks on rank 0, None on the others.
    """
    if world_size() == 1:
        return [value]
    values = [None] * world_size() if dist.get_rank() == 0 else None
    group: Any = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    try:
        dist.gather_object(value, values, group=group)
    finally:
        if group is not None:
            dist.destroy_process_group(group)
    return values


def local_item(values: list[Any] | None) -> Any:
    """The item of this rank in what `gather_object` returned.

    Args:
        values: One item for each rank, or None.

    Returns:
        The item; None if there is none, or if the number of processes has changed.
    """
    rank = dist.get_rank() if world_size() > 1 else 0
    return values[rank] if isinstance(values, list) and len(values) == world_size() else None


def is_peer_failure(error: BaseException) -> bool:
    """Whether an error means that another process ended or timed out.

    Args:
        error: Raised by PyTorch. Gloo raises plain `RuntimeError`s that name one of its source files.
    """
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))
