"""Checks of settings against each other."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint, OnExceptionCheckpoint, Timer

from unirl.doctor.settings import check_accumulation, check_limits, check_sizes, check_val_interval


def sizes(prompts: int, group_size: int, devices: int, num_val_prompts: int = 100) -> str:
    model = SimpleNamespace(rollout=SimpleNamespace(group_size=group_size))
    data = SimpleNamespace(prompts_per_step=prompts, val_examples=["a"] * num_val_prompts)
    return "\n".join(f"{finding.level} {finding}" for finding in check_sizes(model, data, devices))


def test_prompts_must_divide_among_devices() -> None:
    assert sizes(12, 8, 4) == "ok sizes: 12 prompts x group_size 8 = 96 images a step, 24 a device"
    assert sizes(12, 8, 5).endswith("take a multiple of 5, such as 15, or other devices")
    assert sizes(4, 8, 16).startswith("error")


def test_the_adaptive_sampler_needs_groups() -> None:
    data = SimpleNamespace(prompts_per_step=4, val_examples=["a"], adaptive_sampler=object())
    levels = {
        size: [f.level for f in check_sizes(SimpleNamespace(rollout=SimpleNamespace(group_size=size)), data, 1)]
        for size in (1, 2)
    }
    assert levels == {1: ["ok", "error"], 2: ["ok"]}


def test_too_few_held_out_prompts() -> None:
    data = SimpleNamespace(steps_per_epoch=5, val_batch_size=2, val_examples=["a"] * 3)
    trainer = {"num_devices": 2, "num_nodes": 2, "limit_train_batches": 1.0}
    (finding,) = check_limits(data, SimpleNamespace(**trainer, limit_val_batches=1.0))
    assert finding.level == "error"
    assert str(finding).startswith("sizes: 3 held-out prompts for 4 devices")
    assert "data.num_val_prompts" in finding.advice
    assert not check_limits(data, SimpleNamespace(**trainer, limit_val_batches=0))
    data.val_examples = ["a"] * 4
    assert not check_limits(data, SimpleNamespace(**trainer, limit_val_batches=1.0))


def test_an_epoch_has_a_validation() -> None:
    data = SimpleNamespace(steps_per_epoch=50)
    cases: list[tuple[Any, int | None, bool]] = [
        (50, 1, False),
        (51, 1, True),
        (51, None, False),
        (0.5, 1, False),
        (0.01, 1, True),
        (None, 1, False),
    ]
    for interval, every_n_epoch, wrong in cases:
        findings = check_val_interval(data, interval, every_n_epoch)
        assert [finding.level for finding in findings] == ["error"] * wrong, (interval, every_n_epoch)


def accumulation(batches: int, *callbacks: Any, steps: int = 10, **options: Any) -> str:
    settings = {"accelerator": "cpu", "logger": False, "accumulate_grad_batches": batches} | options
    trainer = Trainer(callbacks=list(callbacks), enable_progress_bar=False, enable_model_summary=False, **settings)
    return "\n".join(map(str, check_accumulation(SimpleNamespace(steps_per_epoch=steps), trainer)))


@pytest.mark.parametrize(
    ("callback", "advice"),
    [
        (
            ModelCheckpoint(train_time_interval=timedelta(minutes=1)),
            "set ModelCheckpoint's every_n_train_steps instead",
        ),
        (ModelCheckpoint(save_on_exception=True), "set ModelCheckpoint's every_n_train_steps instead"),
        (OnExceptionCheckpoint("."), "set ModelCheckpoint's every_n_train_steps instead"),
        (Timer(timedelta(hours=1)), "set trainer.max_steps, or the Timer's interval: epoch"),
    ],
)
def test_callbacks_that_save_between_two_batches_of_a_step(callback: Any, advice: str) -> None:
    text = accumulation(4, callback)
    assert "between two of the 4 batches of a step (trainer.accumulate_grad_batches)" in text
    assert text.endswith(advice)
    assert not accumulation(1, callback)


@pytest.mark.parametrize(
    ("batches", "steps", "options", "advice"),
    [
        (2, 10, {"val_check_interval": 5}, "set trainer.val_check_interval to a multiple of 2"),
        (2, 10, {"val_check_interval": 0.5}, "set trainer.val_check_interval to a multiple of 2"),
        (2, 10, {"val_check_interval": 4}, ""),
        (2, 9, {"val_check_interval": 1.0}, ""),
        (
            2,
            9,
            {"val_check_interval": 4, "check_val_every_n_epoch": None},
            "set data.steps_per_epoch to a multiple of 2",
        ),
        (2, 9, {"val_check_interval": 18, "check_val_every_n_epoch": None}, ""),
        (4, 12, {"val_check_interval": 6, "limit_train_batches": 6}, ""),
        (4, 12, {"val_check_interval": 6, "limit_val_batches": 0}, ""),
        (4, 12, {"val_check_interval": 6, "enable_checkpointing": False}, ""),
        (4, 12, {"val_check_interval": "00:00:10:00"}, "set a number of batches, a multiple of 4"),
        (4, 12, {"max_time": "00:00:10:00"}, "set trainer.max_steps, or the Timer's interval: epoch"),
    ],
)
def test_validations_that_do_not_follow_a_step(batches: int, steps: int, options: dict[str, Any], advice: str) -> None:
    text = accumulation(batches, steps=steps, **options)
    assert text.endswith(advice)
    assert bool(text) == bool(advice)


def test_all_batches_of_an_accumulation_schedule_count() -> None:
    schedule = GradientAccumulationScheduler({0: 2, 4: 3})
    assert accumulation(1, schedule, steps=12, val_check_interval=4).endswith("to a multiple of 6")
    assert not accumulation(1, schedule, ModelCheckpoint(every_n_train_steps=1), steps=12, val_check_interval=6)
