"""Gradient norms by task: what they measure, and that training does not notice."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from unirl import (
    AnswerSampling,
    ImageSampling,
    PromptsDataModule,
    RolloutConfig,
    SelfImprovement,
    TaskGradientNorms,
    UserError,
)
from unirl.rewards.likelihood import Likelihood
from unirl.testing import TinyBackbone
from unirl.updates import GRPO, SFT, KLPenalty, UpdateRule
from unirl_shapes.prompts import ShapesPrompts


class Recorder(Callback):
    """Records the norms that are logged for each step."""

    def __init__(self) -> None:
        self.norms: dict[str, list[float]] = {}

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith("grad_norm"):
                self.norms.setdefault(name, []).append(value.item())


def fit(
    folder: Path, rule: UpdateRule, *callbacks: Callback, lr: float = 1e-12, loss_batch_size: int | None = None
) -> Any:
    sampling = ImageSampling(), AnswerSampling(3)
    model = SelfImprovement(
        TinyBackbone(),
        rule,
        [Likelihood()],
        rollout=RolloutConfig(3, 1, *sampling, accept_threshold=0.0, loss_batch_size=loss_batch_size),
        optimizer=lambda p: torch.optim.SGD(p, lr=lr),
    )
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_steps=3, limit_val_batches=0, callbacks=list(callbacks), **quiet
    )
    trainer.fit(model, PromptsDataModule(ShapesPrompts(), 2, 12, num_val_prompts=6))
    return model


def norms(folder: Path, rule: UpdateRule, *callbacks: Callback, **options: Any) -> dict[str, list[float]]:
    recorder = Recorder()
    fit(folder, rule, *callbacks, recorder, **options)
    return recorder.norms


@pytest.mark.parametrize("rule", [GRPO, partial(SFT, weight_by_failure_rate=False)], ids=["grpo", "sft"])
def test_each_norm_is_that_of_a_run_which_trains_one_task(tmp_path: Path, rule: Any) -> None:
    """Weights hardly move, so that all runs see the same samples at the same weights."""
    both = norms(tmp_path, rule(answer_labels="prompt"), TaskGradientNorms(every_n_steps=1))
    image = norms(tmp_path, rule(answer_labels="prompt", answer_weight=0.0))
    answer = norms(tmp_path, rule(answer_labels="prompt", image_weight=0.0))
    assert min(both["grad_norm/image"] + both["grad_norm/answer"]) > 0
    assert both["grad_norm/image"] == pytest.approx(image["grad_norm"], rel=1e-4)
    assert both["grad_norm/answer"] == pytest.approx(answer["grad_norm"], rel=1e-4)
    parts = norms(tmp_path, rule(answer_labels="prompt"), TaskGradientNorms(every_n_steps=1), loss_batch_size=2)
    assert parts == {name: pytest.approx(values, rel=1e-4) for name, values in both.items()}


def test_training_is_the_same_with_it(tmp_path: Path) -> None:
    def rule() -> GRPO:
        return GRPO(kl=KLPenalty(0.1))

    plain = fit(tmp_path, rule(), lr=0.1).state_dict()
    watched = fit(tmp_path, rule(), TaskGradientNorms(every_n_steps=2), lr=0.1).state_dict()
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())


def test_it_measures_every_n_steps(tmp_path: Path) -> None:
    class Counted(SFT):
        calls = 0

        def task_losses(self, *args: Any) -> dict[str, torch.Tensor]:
            Counted.calls += 1
            return super().task_losses(*args)

    fit(tmp_path, Counted(), TaskGradientNorms(every_n_steps=2))
    assert Counted.calls == 4  # both tasks, after the first step and the third


def test_a_rule_with_one_loss_is_refused(tmp_path: Path) -> None:
    class OneLoss(UpdateRule):
        def loss(self, *args: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(UserError, match=r"OneLoss does not tell the tasks .* implement `task_losses`"):
        fit(tmp_path, OneLoss(), TaskGradientNorms())
