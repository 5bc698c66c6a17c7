"""A learning rate schedule that needs no count of steps in the config."""

import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override


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
        rest = self.total_steps - self.warmup_steps
        if self.decay == "linear":
            return max(0.0, (self.total_steps - step) / max(1, rest))
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - self.warmup_steps) / max(1, rest))))

    @override
    def state_dict(self) -> dict[str, Any]:
        # The settings come from the config, so that a resumed run may be given more steps.
        settings = ("warmup_steps", "decay", "total_steps")
        return {name: value for name, value in super().state_dict().items() if name not in settings}
