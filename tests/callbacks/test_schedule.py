"""Schedules of the tasks' weights: when they change, what is refused, and that a resumed run follows them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl import ImageSampling, PromptsDataModule, RolloutConfig, SelfImprovement, TaskSchedule, UserError
from unirl.rewards.likelihood import Likelihood
from unirl.testing import TinyBackbone
from unirl.types import AnswerSampling
from unirl.updates import GRPO, SFT, PosteriorLabels, UpdateRule
from unirl_shapes.prompts import ShapesPrompts

POSTERIOR = PosteriorLabels(num_candidates=2, min_posterior=0.0)


class Recorder(SelfImprovement):
    """Records the weights and the loss of each batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        rule: Any = self.update
        self.steps = [*getattr(self, "steps", []), (rule.image_weight, rule.answer_weight, loss.item())]
        return loss


def fit(
    folder: Path,
    schedule: TaskSchedule,
    rule: UpdateRule,
    num_iterations: int = 1,
    ckpt_path: Path | None = None,
    max_steps: int = 6,
    **options: Any,
) -> Recorder:
    model = Recorder(
        TinyBackbone(),
        rule,
        [Likelihood()],
        rollout=RolloutConfig(2, num_iterations, ImageSampling(), AnswerSampling(3), accept_threshold=0.0),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
    )
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        default_root_dir=folder,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=max_steps,
        limit_val_batches=0,
        callbacks=[saving, schedule],
        **options,
    )
    trainer.fit(model, PromptsDataModule(ShapesPrompts(), 2, 12, num_val_prompts=6), ckpt_path=ckpt_path)
    return model


def weights(model: Recorder) -> list[tuple[float, float]]:
    return [step[:2] for step in model.steps]


def test_understanding_first_then_generation(tmp_path: Path) -> None:
    """In the first phase images have no loss, and in the second one answers have none."""
    schedule = TaskSchedule({0: 0.0, 2: 1.0}, {2: 0.0})
    model = fit(tmp_path, schedule, GRPO(answer_labels="posterior", posterior=POSTERIOR), max_steps=3)
    assert weights(model) == [(0.0, 1.0), (0.0, 1.0), (1.0, 0.0)]
    logged = model.trainer.callback_metrics
    assert logged["loss/answer"] == logged["answer_labels/frac_trained"] == 0


def test_steps_are_optimizer_steps(tmp_path: Path) -> None:
    model = fit(tmp_path, TaskSchedule({2: 0.5}), SFT(), max_steps=3, accumulate_grad_batches=2)
    assert [image for image, _ in weights(model)] == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]


def test_a_weight_changes_with_a_new_rollout(tmp_path: Path) -> None:
    model = fit(tmp_path, TaskSchedule({2: 0.5}), SFT(), num_iterations=3)
    assert [image for image, _ in weights(model)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_a_resumed_run_follows_the_schedule(tmp_path: Path) -> None:
    """Resumed in the middle of a rollout, after the step of the change and before it takes effect."""

    def run(name: str, ckpt_path: Path | None = None, max_steps: int = 6) -> list[Any]:
        schedule = TaskSchedule({0: 0.0, 1: 1.0}, {4: 0.0})
        rule = GRPO(answer_labels="posterior", posterior=POSTERIOR)
        return fit(tmp_path / name, schedule, rule, 3, ckpt_path, max_steps).steps

    complete, head = run("complete"), run("head", max_steps=2)
    assert head + run("tail", tmp_path / "head" / "step=2.ckpt") == complete
    assert [step[0] for step in complete] == [0.0] * 3 + [1.0] * 3


def test_what_cannot_be_scheduled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no step is given"):
        TaskSchedule()
    with pytest.raises(UserError, match=r"answer_weight: from step 3 -1.0; it must be from 0"):
        TaskSchedule(answer_weight={3: -1.0})
    with pytest.raises(UserError, match=r"image_weight: step -1; it must be from 0"):
        TaskSchedule({-1: 1.0})
    with pytest.raises(UserError, match="from step 5 on, every weight is 0"):
        fit(tmp_path, TaskSchedule({5: 0.0}), GRPO(answer_weight=0.0))
    with pytest.raises(UserError, match="unscheduled has no image_weight"):
        fit(tmp_path, TaskSchedule({5: 0.0}), Unscheduled())


class Unscheduled(UpdateRule):
    """Has no weights."""

    def loss(self, *args: Any) -> Any:
        raise NotImplementedError


def test_each_phase_is_checked_before_the_model_is_built(tmp_path: Path) -> None:
    """Weights that the config does not begin with can need other settings."""

    class Checked(SFT):
        def check(self, *args: Any) -> None:
            if not self.answer_weight:
                raise UserError("this phase is refused")

    with pytest.raises(UserError, match="this phase is refused"):
        fit(tmp_path, TaskSchedule(answer_weight={3: 0.0}), Checked())
