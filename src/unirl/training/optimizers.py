"""Optimizers and learning rate schedules from a config, checked before anything is loaded."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unirl.distributed.collectives import all_reduce_mean
from unirl.errors import UserError, check_range
from unirl.training.schedules import WarmupSchedule


def check_optimizer(optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None) -> None:
    """Make optimizer and scheduler for one parameter, to find wrong settings before a model is loaded.

    Args:
        optimizer: As in `SelfImprovement`.
        lr_scheduler: As in `SelfImprovement`.

    Raises:
        UserError: they cannot be made, or the learning rate is out of range.

    Example:
        >>> check_optimizer(lambda p: torch.optim.AdamW(p, lr=1e-5), None)
    """
    try:
        made = optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise UserError(f"model.optimizer: {error}") from error
    for name, value in made.param_groups[0].items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"model.optimizer: {name} {value}; it must be a finite number")
    check_range(1e-12, 10, "model.optimizer", lr=float(made.param_groups[0].get("lr", 1.0)))
    if lr_scheduler is not None:
        try:
            lr_scheduler(made)
        except (ValueError, TypeError) as error:
            raise UserError(f"model.lr_scheduler: {error}") from error


def with_total_steps(scheduler: Any, total_steps: Callable[[], int]) -> Any:
    """A scheduler that knows how many steps the run has.

    Args:
        scheduler: Any; only a `WarmupSchedule` that decays and has no `total_steps` is changed.
        total_steps: Called only for such a schedule: it may build the dataloaders.
    """
    if isinstance(scheduler, WarmupSchedule) and scheduler.decay != "constant" and scheduler.total_steps is None:
        scheduler.total_steps = total_steps()
    return scheduler


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients, in float32. Collective where gradients are sharded: call it on every rank.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> gradient_norm([weight]).item()
        5.0
    """
    grads = [p.grad.detach() for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    local = [grad.to_local() if isinstance(grad, DTensor) else grad for grad in grads]
    norm: Tensor = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(grad, dtype=torch.float32) for grad in local])
    )
    if not any(isinstance(grad, DTensor) for grad in grads):
        return norm
    return (all_reduce_mean(norm.square()) * dist.get_world_size()).sqrt()
