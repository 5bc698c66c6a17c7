"""Optimizers and learning rate schedules of any kind, checked before anything is loaded."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from typing_extensions import override

from unirl.distributed.collectives import all_reduce_mean, world_size
from unirl.errors import UserError, check_range


class WarmupSchedule(LambdaLR):
    """Linear warmup, then constant, or a decay to 0 at the last step of the run.

    The factors are those of transformers' `get_scheduler` for "constant_with_warmup", "linear" and "cosine".

    Args:
        optimizer: Its learning rates are the peak.
        warmup_steps: Steps in which the learning rate rises from 0.
        decay: What follows.
        total_steps: Steps of the run. None leaves it to `SelfImprovement`, which asks the trainer.

    Raises:
        ValueError: a number of steps is negative.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int = 0,
        decay: Literal["constant", "linear", "cosine"] = "constant",
        total_steps: int | None = None,
    ) -> None:
        if warmup_steps < 0 or (total_steps is not None and total_steps < 0):
            raise ValueError(f"warmup_steps {warmup_steps}, total_steps {total_steps}; both must be 0 or more")
        self.warmup_steps, self.decay, self.total_steps = warmup_steps, decay, total_steps
        super().__init__(optimizer, lambda step: self.factor(step))  # noqa: PLW0108 - a bound method would be saved

    def factor(self, step: int) -> float:
        """The learning rate at a step, relative to its peak."""
        if step < self.warmup_steps:
            return step / max(1, self.warmup_steps)
        if self.decay == "constant" or self.total_steps is None:
            return 1.0
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        if self.decay == "linear":
            return max(0.0, (self.total_steps - step) / decay_steps)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - self.warmup_steps) / decay_steps)))

    @override
    def state_dict(self) -> dict[str, Any]:
        # The settings come from the config, so that a resumed run may be given more steps.
        settings = ("warmup_steps", "decay", "total_steps")
        return {name: value for name, value in super().state_dict().items() if name not in settings}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # The optimizer has the learning rate that the schedule of the checkpoint gave its next step.
        for group, peak in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = peak * self.factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


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
        instance = optimizer([nn.Parameter(torch.zeros(1, dtype=torch.float32))])
    except (ValueError, TypeError) as error:
        raise UserError(f"model.optimizer: {error}") from error
    for name, value in instance.param_groups[0].items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"model.optimizer: {name} {value}; it must be a finite number")
    check_range(1e-12, 10, "model.optimizer", lr=float(instance.param_groups[0].get("lr", 1.0)))
    if lr_scheduler is not None:
        try:
            lr_scheduler(instance)
        except (ValueError, TypeError) as error:
            raise UserError(f"model.lr_scheduler: {error}") from error


def check_run_length(lr_scheduler: LRSchedulerCallable | None, max_epochs: int | None, max_steps: int) -> None:
    """Refuse a schedule that decays to the last step of a run that has none, and one that ends before it.

    Args:
        lr_scheduler: As in `SelfImprovement`.
        max_epochs: The trainer's; -1 for no limit.
        max_steps: The trainer's; -1 for no limit.

    Raises:
        UserError: such a run.
    """
    if lr_scheduler is None:
        return
    scheduler = lr_scheduler(torch.optim.AdamW([nn.Parameter(torch.zeros(1, dtype=torch.float32))], lr=1e-3))
    _check_one_cycle(scheduler, math.inf if max_epochs == max_steps == -1 else max_steps)
    if max_epochs != -1 or max_steps != -1:
        return
    if isinstance(scheduler, WarmupSchedule) and scheduler.decay != "constant" and scheduler.total_steps is None:
        raise UserError(
            f"model.lr_scheduler: WarmupSchedule with decay {scheduler.decay} ends with the run, and this run has no "
            "last step (trainer.max_epochs and max_steps are -1); set trainer.max_steps, or decay: constant, or the "
            "schedule's total_steps"
        )


def _check_one_cycle(scheduler: Any, steps: float) -> None:
    """Refuse PyTorch's schedule that raises an error after its last step."""
    if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < steps:
        raise UserError(
            f"model.lr_scheduler: OneCycleLR has total_steps {scheduler.total_steps}, and the run {steps} steps; set "
            "total_steps to those of the run (trainer.max_steps, or max_epochs)"
        )


def check_trained_weights(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose weights are in 16 bit, however they came to be so.

    Args:
        optimizer: Of the run.

    Raises:
        UserError: names the type.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.is_floating_point() and parameter.itemsize < torch.float32.itemsize:
                raise UserError(
                    f"a trained weight of shape {tuple(parameter.shape)} is {parameter.dtype}, in which rounding drops "
                    "most updates; trained weights must be float32: set trainer.precision to bf16-mixed, and leave "
                    "the type of weights to it"
                )


def use_fused_step(optimizer: Optimizer) -> None:
    """Let an optimizer of torch update all weights in one kernel where they are on a GPU.

    Not run on a GPU by this project's tests. Only where its class has the option and the user has left it open. The
    option is set on the groups: the argument would also mark the optimizer as one that unscales gradients itself, which
    Lightning refuses to clip.

    Args:
        optimizer: Of any class; changed in place.
    """
    unset = {"fused": None, "foreach": None, "capturable": False, "differentiable": False}
    for group in optimizer.param_groups:
        is_open = "fused" in group and all(group.get(name, value) == value for name, value in unset.items())
        if is_open and all(parameter.is_cuda and parameter.is_floating_point() for parameter in group["params"]):
            group["fused"] = True


def with_total_steps(scheduler: Any, total_steps: Callable[[], int]) -> Any:
    """A scheduler that knows how many steps the run has.

    Args:
        scheduler: Any; only a `WarmupSchedule` that decays and has no `total_steps` is changed.
        total_steps: Called only for such a schedule, and for OneCycleLR: it may build the dataloaders.

    Raises:
        UserError: OneCycleLR ends before the run.
    """
    if isinstance(scheduler, OneCycleLR):
        _check_one_cycle(scheduler, total_steps())
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
    sharded = [g for g in grads if isinstance(g, DTensor) and any(placement.is_shard() for placement in g.placements)]
    ids = {id(grad) for grad in sharded}
    norm = _norm([grad for grad in grads if id(grad) not in ids])
    if not sharded:
        return norm
    total = all_reduce_mean(_norm(sharded).square()) * dist.get_world_size()
    return (total + norm.to(total.device).square()).sqrt()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their means over all ranks; missing ones count as 0. Collective: call it on every rank.

    Args:
        parameters: Not sharded.
    """
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.requires_grad:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = all_reduce_mean(grad).to(grad.dtype)


def _norm(grads: Sequence[Tensor]) -> Tensor:
    """L2 norm of what this rank holds of gradients."""
    local = [grad.to_local() if isinstance(grad, DTensor) else grad for grad in grads]
    if not local:
        return torch.zeros((), dtype=torch.float32)
    types = (torch.promote_types(grad.dtype, torch.float32) for grad in local)  # a float64 norm cannot be narrowed
    norms = torch.stack([torch.linalg.vector_norm(g, dtype=t).float() for g, t in zip(local, types, strict=True)])
    norm: Tensor = torch.linalg.vector_norm(norms)
    return norm
