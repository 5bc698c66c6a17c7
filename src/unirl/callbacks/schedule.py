"""Training the two tasks one after the other, or with weights that change during training."""

from collections.abc import Iterator, Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from unirl.errors import UserError, check_range

TASKS = ("image_weight", "answer_weight")


class TaskSchedule(Callback):
    """Changes the weights of the two tasks during training: understanding first, then generation, for example.

    Each weight is constant from one given step to the next; before the first one it is that of the update rule. Steps
    are optimizer steps. A weight changes with the next rollout where a step is in the middle of one (`num_iterations`).

    Args:
        image_weight: `image_weight` of the update rule, by the step from which it holds. None leaves it as it is.
        answer_weight: The same of `answer_weight`.

    Raises:
        UserError: there is no step, or a number is out of range.

    Example:
        >>> schedule = TaskSchedule(image_weight={0: 0.0, 100: 1.0}, answer_weight={0: 1.0, 100: 0.0})
        >>> schedule.weights(99), schedule.weights(100)
        ({'image_weight': 0.0, 'answer_weight': 1.0}, {'image_weight': 1.0, 'answer_weight': 0.0})
    """

    def __init__(
        self, image_weight: dict[int, float] | None = None, answer_weight: dict[int, float] | None = None
    ) -> None:
        given = {"image_weight": image_weight, "answer_weight": answer_weight}
        self.schedules: dict[str, dict[int, float]] = {name: dict(sorted(s.items())) for name, s in given.items() if s}
        if not self.schedules:
            raise UserError(
                "TaskSchedule: no step is given; set image_weight or answer_weight, such as {0: 0.0, 100: 1.0}"
            )
        for name, schedule in self.schedules.items():
            check_range(0, 10**9, f"TaskSchedule: {name}", **{"step": min(schedule)})
            for step, weight in schedule.items():
                check_range(0, 1e6, f"TaskSchedule: {name}", **{f"from step {step}": weight})
        self._initial: dict[str, float] = {}
        self._step: int | None = None

    def weights(self, step: int) -> dict[str, float]:
        """The weights that hold in an optimizer step, by name.

        Args:
            step: Index of the step, from 0.
        """
        current = dict(self._initial)
        for name, schedule in self.schedules.items():
            past = [weight for start, weight in schedule.items() if start <= step]
            current |= {name: past[-1]} if past else {}
        return current

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        module: Any = pl_module
        rule = type(module.update).__name__.lower()
        for name in self.schedules:
            if not hasattr(module.update, name):
                raise UserError(f"TaskSchedule: {rule} has no {name}; take it out of the callback's options")
        self._initial = {name: getattr(module.update, name) for name in TASKS if hasattr(module.update, name)}
        for step, weights in self._phases():
            if not any(weights.values()):
                raise UserError(f"TaskSchedule: from step {step} on, every weight is 0; one must be above 0 to train")
            _set_weights(module, weights)
            module.update.check(module.backbone, module.rollout.group_size, module.rollout.image_sampling)
        _set_weights(module, self._initial)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        module: Any = pl_module
        iteration, _ = module.position()
        if iteration == 0 or self._step is None:
            self._step = trainer.global_step
        _set_weights(module, self.weights(self._step))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._step = state_dict["step"]

    def _phases(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Each step from which other weights hold, and the weights."""
        for step in sorted({0, *(step for schedule in self.schedules.values() for step in schedule)}):
            yield step, self.weights(step)


def _set_weights(module: Any, weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        setattr(module.update, name, weight)
