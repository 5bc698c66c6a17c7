"""Optimizers and schedules of any kind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn
from transformers import get_scheduler

from unirl import UserError, WarmupSchedule
from unirl.backbones.showo import Showo
from unirl.doctor.settings import check_schedule
from unirl.rewards.keyword import Keyword
from unirl.training.optimizers import check_run_length, gradient_norm
from unirl.updates.sft import SFT


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


@pytest.mark.parametrize(
    ("decay", "name"), [("constant", "constant_with_warmup"), ("linear", "linear"), ("cosine", "cosine")]
)
@pytest.mark.parametrize("warmup", [0, 3])
def test_the_schedule_is_that_of_transformers(decay: str, name: str, warmup: int) -> None:
    ours = WarmupSchedule(optimizer(), warmup, decay, 10)  # type: ignore[arg-type]
    theirs = get_scheduler(name, optimizer(), warmup, 10)
    for step in range(12):
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr()), step
        for schedule in (ours, theirs):
            schedule.optimizer.step()
            schedule.step()


def test_a_resumed_schedule_takes_its_length_from_the_config() -> None:
    first = WarmupSchedule(optimizer(), 0, "linear", 10)
    second = WarmupSchedule(optimizer(), 0, "linear", 20)
    first.step()
    second.load_state_dict(first.state_dict())
    assert (second.total_steps, second.last_epoch) == (20, 1)
    assert second.optimizer.param_groups[0]["lr"] == second.get_last_lr()[0] == pytest.approx(0.95 * second.base_lrs[0])


@pytest.mark.parametrize(("decay", "last"), [("constant", 1.0), ("linear", 0.0), ("cosine", 0.0)])
def test_the_schedule_ends_with_the_run(decay: str, last: float, runs, shapes_checkpoint: Path, tmp_path: Path) -> None:
    schedule = lambda o: WarmupSchedule(o, warmup_steps=2, decay=decay)  # type: ignore[arg-type]  # noqa: E731
    model = runs.module(Showo(str(shapes_checkpoint)), SFT(), [Keyword()], lr_scheduler=schedule)
    rates: list[float] = []
    model.optimizer_zero_grad = lambda *_: rates.append(model.optimizers().param_groups[0]["lr"])  # type: ignore
    trainer = runs.trainer(tmp_path, limit_val_batches=0)
    trainer.fit(model, runs.data())
    assert rates[:3] == pytest.approx([0, 0.5e-3, 1e-3])
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(last * 1e-3)


@pytest.mark.parametrize("limit", [{"max_time": "00:00:01:00", "max_epochs": None}, {"max_epochs": -1}])
@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_a_decay_needs_a_last_step(decay: str, limit: dict[str, Any], runs, tmp_path: Path) -> None:
    """Before the model is loaded. Endless and time-limited runs keep a constant rate, or say how long it decays."""
    trainer = runs.trainer(tmp_path, **limit)
    schedule = lambda o: WarmupSchedule(o, decay=decay)  # type: ignore[arg-type]  # noqa: E731
    model = runs.module(Showo("not loaded"), SFT(), [Keyword()], lr_scheduler=schedule)
    with pytest.raises(UserError, match=rf"decay {decay} ends with the run, .* no last step .* set trainer\.max_steps"):
        trainer.fit(model, runs.data())
    (finding,) = check_schedule(model, trainer)
    assert finding.level == "error"
    for allowed in (lambda o: WarmupSchedule(o, 5), lambda o: WarmupSchedule(o, 5, "linear", 10), None):
        check_run_length(allowed, trainer.max_epochs, trainer.max_steps)
    check_run_length(schedule, -1, 10)


def test_schedules_of_torch_and_lightning(runs, shapes_checkpoint: Path, tmp_path: Path) -> None:
    schedules = {
        "step": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=2, gamma=0.5),
        "plateau": lambda o: ReduceLROnPlateau(o, monitor="reward", patience=0, factor=0.5),
    }
    for name, schedule in schedules.items():
        model = runs.module(
            Showo(str(shapes_checkpoint)),
            SFT(),
            [Keyword()],
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
            lr_scheduler=schedule,
        )
        trainer = runs.trainer(tmp_path / name, limit_val_batches=0, max_steps=4, enable_checkpointing=False)
        trainer.fit(model, runs.data())
        assert isinstance(trainer.optimizers[0], torch.optim.SGD)
        assert name != "step" or trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.025)


def test_gradient_norm_is_that_of_all_gradients_together() -> None:
    weights = [nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(i))) for i in range(3)]
    sum((w * (i + 1)).sum() for i, w in enumerate(weights[:2])).backward()
    assert gradient_norm(weights).item() == pytest.approx((3 * 1 + 3 * 4) ** 0.5)
    assert gradient_norm([nn.Parameter(torch.zeros(1))]) == 0
