"""How strongly each of the two tasks pulls at the weights."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from typing_extensions import override

from unirl.errors import UserError, check_range


class TaskGradientNorms(Callback):
    """Logs the norm of the gradient of each task's loss: `grad_norm/image` and `grad_norm/answer`.

    After a training step, both losses of its samples are computed again, one after the other. Training is not changed
    by it, to the last bit, and no further gradient is stored. It costs as much as two losses: 4 % of those of 50 steps.

    Args:
        every_n_steps: Optimizer steps from one measurement to the next, from the first step on.

    Raises:
        UserError: the update rule has no `task_losses`.

    Example:
        >>> TaskGradientNorms(every_n_steps=10).every_n_steps
        10
    """

    metric_names = ("grad_norm/image", "grad_norm/answer")
    """What it logs."""

    def __init__(self, every_n_steps: int = 50) -> None:
        check_range(1, 10**9, "TaskGradientNorms", every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module: Any = pl_module
        if not module.has_task_losses:
            raise UserError(
                f"TaskGradientNorms: {type(module.update).__name__} does not tell the tasks apart; take the callback "
                "out of trainer.callbacks, or implement `task_losses` in the rule"
            )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        accumulated = trainer.fit_loop.total_batch_idx % trainer.accumulate_grad_batches
        if accumulated or (trainer.global_step - 1) % self.every_n_steps:
            return
        module: Any = pl_module
        with isolate_rng(), torch.enable_grad():
            norms: dict[str, Tensor] = module.task_gradient_norms()
        pl_module.log_dict({f"grad_norm/{task}": norm for task, norm in norms.items()})
