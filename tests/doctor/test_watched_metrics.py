"""Metrics that callbacks and schedules watch are logged, and before the run ends; and a run trains, and saves."""

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau

from unirl import EvaluationConfig, PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.doctor.run_length import check_length
from unirl.doctor.watched_metrics import check_watched_metrics
from unirl.rewards.keyword import Keyword
from unirl.testing import TinyBackbone
from unirl.training.logged import logged_metrics
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

ROOT = Path(__file__).parents[2]
OVERALL = "val/generation/overall"


def data(**options: Any) -> PromptsDataModule:
    return PromptsDataModule(ShapesPrompts(), **({"steps_per_epoch": 4, "num_val_prompts": 6} | options))


def model(**options: Any) -> SelfImprovement:
    evaluation = EvaluationConfig(num_understanding=6, num_diversity_prompts=2)
    return SelfImprovement(
        TinyBackbone(), SFT(), [Keyword()], ShapesJudge(), RolloutConfig(group_size=2), evaluation, **options
    )


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "max_epochs": 2}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(callbacks=list(callbacks), **(quiet | options))


def found(*callbacks: Callback, module: Any = None, prompts: Any = None, **options: Any) -> Sequence[str]:
    findings = check_watched_metrics(module or model(), prompts or data(), trainer(*callbacks, **options))
    return [f"{finding.level} {finding}" for finding in findings]


class Watching(Callback):
    """A custom callback with a monitor."""

    monitor = "val/overall"
    metric_names = ()


class Foreign(Callback):
    """A callback that may log anything."""


def plateau(monitor: str, mode: Any) -> SelfImprovement:
    return model(lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor, mode=mode))


def test_a_metric_that_no_part_of_the_run_logs_is_an_error_with_the_nearest_names() -> None:
    cases: list[tuple[str, Any, Sequence[Callback]]] = [
        ("ModelCheckpoint's monitor 'generation/overal'", None, [ModelCheckpoint(monitor="generation/overal")]),
        ("EarlyStopping's monitor 'val/overal'", None, [EarlyStopping("val/overal")]),
        ("Watching's monitor 'val/overall'", None, [Watching()]),
        ("model.lr_scheduler's monitor 'overall'", plateau("overall", "max"), []),
        ("ModelCheckpoint's filename 'overall'", None, [ModelCheckpoint(filename="{epoch}-{overall:.3f}")]),
    ]
    for start, module, callbacks in cases:
        (finding,) = found(*callbacks, module=module)
        assert finding.startswith(f"error metrics: {start}: this run logs no such metric; nearest: "), finding
        assert OVERALL in finding.partition("; logged are ")[0]
        assert "frac_accepted, frac_reward_zero_std, grad_norm" in finding.partition("; logged are ")[2]
    watching = [ModelCheckpoint(monitor=name, mode="max") for name in ("a", "b", "reward")]
    assert len(found(*watching)) == 2


def test_a_metric_that_another_callback_may_log_is_a_warning() -> None:
    (finding,) = found(ModelCheckpoint(monitor="mine"), Foreign())
    assert finding.startswith("warning metrics: ModelCheckpoint's monitor 'mine' is logged only if Foreign logs it")


def test_metrics_that_are_logged_pass() -> None:
    name = "{epoch}-{step:06d}-{val/generation/overall:.3f}"
    good = ModelCheckpoint(monitor=OVERALL, mode="max", filename=name, auto_insert_metric_name=False)
    assert not found(good, ModelCheckpoint(every_n_train_steps=2), EarlyStopping("loss"), module=plateau("loss", "min"))
    assert not found(good, module=SimpleNamespace())  # a module of another kind: nothing is known


def test_a_validation_comes_before_the_end() -> None:
    watching = ModelCheckpoint(monitor=OVERALL, mode="max")
    never: list[dict[str, Any]] = [
        {"limit_val_batches": 0},
        {"prompts": data(num_val_prompts=0)},
        {"check_val_every_n_epoch": 3},
        {"max_steps": 3},
        {"val_check_interval": 9, "check_val_every_n_epoch": None},
    ]
    for options in never:
        (finding,) = found(watching, **options)
        assert finding.startswith("error"), options
    for options in ({"max_steps": 3, "val_check_interval": 2}, {"max_steps": 4}, {"val_check_interval": "00:00:01:00"}):
        assert not found(watching, **options), options


def test_a_mode_that_keeps_the_worst_is_a_warning() -> None:
    for name, mode in ((OVERALL, "min"), ("reward", "min"), ("loss", "max"), ("val/consistency/imbalance", "max")):
        (finding,) = found(ModelCheckpoint(monitor=name, mode=mode))
        assert finding.startswith("warning"), name
        assert finding.endswith(f"; set mode: {'max' if mode == 'min' else 'min'}")
    assert found(module=plateau("reward", "min"))
    assert not found(ModelCheckpoint(monitor="grad_norm"))


@pytest.mark.parametrize("filename", ["{epoch:zz}", "{step", "{loss:d}", "{}", "{val/generation/overall}"])
def test_a_name_of_a_checkpoint_that_cannot_be_made_is_an_error(filename: str) -> None:
    assert [finding for finding in found(ModelCheckpoint(filename=filename)) if finding.startswith("error")]


def test_a_run_trains_for_as_long_as_it_should_and_saves() -> None:
    def length(*callbacks: Callback, **options: Any) -> str:
        return "\n".join(f"{one.level} {one}" for one in check_length(data(), trainer(*callbacks, **options)))

    errors: list[dict[str, Any]] = [
        *({"max_steps": 0}, {"max_epochs": 0}, {"limit_train_batches": 0}, {"max_time": timedelta()}),
        *({"min_steps": 9}, {"min_epochs": 3}, {"min_steps": 3, "max_steps": 2}),
    ]
    for options in errors:
        assert length(**options).startswith("error length: trainer."), options
    for options in ({}, {"min_epochs": 2}, {"min_steps": 8}, {"max_epochs": -1, "min_steps": 9}, {"fast_dev_run": 1}):
        assert not length(**options), options
    assert "warning checkpoints: ModelCheckpoint saves nothing before the end" in length(check_val_every_n_epoch=3)
    assert "warning checkpoints" in length(ModelCheckpoint(every_n_train_steps=100))
    for saving in (ModelCheckpoint(every_n_train_steps=8), ModelCheckpoint(save_top_k=0, every_n_epochs=9)):
        assert not length(saving)


def test_every_monitor_in_documentation_and_configs_is_logged() -> None:
    patterns = ("*.md", "docs/**/*.md", "configs/**/*.yaml", "plugins/*/*.md", "plugins/*/configs/*.yaml")
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"monitor(?::|=|\s)\s*[\"']?([a-z_]+(?:/[a-z_]+)*)", text))
    logged = logged_metrics(model(), data(), [])
    assert logged is not None
    assert OVERALL in named
    assert not named - set(logged.names)


def test_a_schedule_that_waits_for_a_validation_ends_no_run() -> None:
    module = plateau(OVERALL, "max")
    module.trainer = trainer(check_val_every_n_epoch=2)  # type: ignore[assignment]
    module.backbone.build()
    settings = module.configure_optimizers()["lr_scheduler"]
    assert (settings["frequency"], settings["strict"]) == (2, False)
    assert isinstance(settings["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau)
