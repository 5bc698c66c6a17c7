"""What processes that train together must agree on, and what each has of its own."""

from typing import Any

import torch.distributed as dist
from torch import Tensor


def all_reduce_mean(value: Tensor) -> Tensor:
    """Mean of what each process has, without gradient; all must call it. With one process, the value itself.

    Args:
        value: Of any shape, the same everywhere.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    total = value.detach().float().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def global_masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """`masked_mean` whose mean over processes is that of all their values together, whoever has how many; all call it.

    Args:
        values: This process's, maybe none.
        mask: Which of them count, or how much.
    """
    return (values * mask).sum() / all_reduce_mean(mask.sum()).clamp(min=1e-9)


def gather_object(value: Any) -> list[Any] | None:
    """What each process has, by its rank: for the first one, which writes. The others get None; all must call it.

    Args:
        value: This process's; what it holds of tensors is on the CPU.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [value]
    values = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values)
    return values


def local_item(values: list[Any] | None) -> Any:
    """This process's part of what `of_all` gave; None where there is none, or there were more processes, or fewer."""
    together = dist.is_available() and dist.is_initialized()
    rank, size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    return values[rank] if isinstance(values, list) and len(values) == size else None


def is_peer_failure(error: BaseException) -> bool:
    """Whether an error says that another process is gone, or has not been heard of for too long.

    Args:
        error: Of PyTorch's. Gloo's are plain `RuntimeError`s that name a file of its own.
    """
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))
