"""Checks of a run's settings against each other: sizes, validation, accumulation, the model of the diversity metric."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint, OnExceptionCheckpoint, Timer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from unirl.backbones.checkpoints import locate
from unirl.doctor.benchmark_prompts import check_benchmark_prompts
from unirl.doctor.environment import check_devices, check_disk, log_folder
from unirl.doctor.findings import Finding, raise_errors
from unirl.doctor.resuming import ParsedRun, check_resume
from unirl.doctor.run_length import check_length
from unirl.doctor.scored_prompts import check_prompts
from unirl.doctor.watched_metrics import check_watched_metrics
from unirl.errors import UserError
from unirl.training.config import missing_verdicts
from unirl.training.optimizers import check_run_length

MAX_IMAGES = 100_000
"""Images of a step on a device: far more than any device can hold, so more is a typing error."""
HUB_PREFIXES = ("hf-hub:", "hf_hub:", "timm/")


def check_before_fit(run: ParsedRun) -> None:
    """The fast checks, for `fit`. The checkpoint is not checked: building the backbone, which comes next, does so.

    Args:
        run: Not started.

    Raises:
        UserError: the run would fail.
    """
    findings = [*check_settings(run, run.trainer), *check_resume(run), *check_disk(log_folder(run.trainer))]
    raise_errors(findings)
    for finding in findings:
        if finding.level == "warning":
            rank_zero_warn(str(finding))


def check_settings(run: ParsedRun, trainer: Trainer) -> Iterator[Finding]:
    """All checks that load nothing.

    Args:
        run: Not started.
        trainer: Of the run.
    """
    interval = getattr(trainer, "val_check_interval", None)  # not set where the interval is a time
    yield from check_devices(trainer)
    yield from check_sizes(run.model, run.datamodule, trainer.num_devices * trainer.num_nodes)
    yield from check_val_interval(run.datamodule, interval, trainer.check_val_every_n_epoch)
    yield from check_limits(run.datamodule, trainer)
    yield from check_accumulation(run.datamodule, trainer)
    yield from check_schedule(run.model, trainer)
    yield from check_diversity_model(run.model)
    yield from check_prompts(run, trainer)
    yield from check_benchmark_prompts(run)
    yield from check_samplers(trainer)
    if getattr(run, "subcommand", "fit") == "fit":
        yield from check_length(run.datamodule, trainer)
        yield from check_watched_metrics(run.model, run.datamodule, trainer)


def check_samplers(trainer: Any) -> Iterator[Finding]:
    """Check that Lightning does not divide among the devices what the data module has divided already.

    Args:
        trainer: Of the run.
    """
    if trainer.num_devices * trainer.num_nodes > 1 and trainer._accelerator_connector.use_distributed_sampler:
        text = "trainer.use_distributed_sampler true: each device would get a share of its share of the prompts"
        yield Finding("error", "sizes", text, "leave it out: the data module gives each device its own prompts")


def check_schedule(model: Any, trainer: Any) -> list[Finding]:
    """Check that a schedule which decays to the last step of a run has one.

    Args:
        model: The LightningModule.
        trainer: Of the run.
    """
    try:
        check_run_length(getattr(model, "lr_scheduler", None), trainer.max_epochs, trainer.max_steps)
    except UserError as error:
        problem, _, advice = str(error).partition("; ")
        return [Finding("error", "schedule", problem, advice)]
    return []


def check_verdicts(model: Any) -> Iterator[Finding]:
    """Check that an update rule that learns from accepted samples has a reward that accepts some.

    Args:
        model: The LightningModule, which warns by itself when it is made.
    """
    if problem := missing_verdicts(model.update, model.rewards, model.rollout.accept_threshold):
        yield Finding("warning", "rewards", *problem)


def check_sizes(model: Any, data: Any, devices: int) -> list[Finding]:
    """Check the sizes of a step against the number of devices.

    Args:
        model: The LightningModule.
        data: The LightningDataModule.
        devices: Number of devices over all nodes.
    """
    prompts = getattr(data, "prompts_per_step", None)
    group_size = getattr(getattr(model, "rollout", None), "group_size", None)
    if prompts is None or group_size is None:  # custom modules
        return []
    if prompts % devices:
        text = f"data.prompts_per_step {prompts} does not divide among {devices} devices"
        multiple = prompts + -prompts % devices
        return [Finding("error", "sizes", text, f"take a multiple of {devices}, such as {multiple}, or other devices")]
    images = prompts // devices * group_size
    if images > MAX_IMAGES:
        text = f"{prompts} prompts x group_size {group_size} are {images} images a step on a device, above {MAX_IMAGES}"
        return [Finding("error", "sizes", text, "take a smaller model.rollout.group_size or data.prompts_per_step")]
    text = f"{prompts} prompts x group_size {group_size} = {prompts * group_size} images a step, {images} a device"
    findings = [Finding("ok", "sizes", text), *_check_adaptive(data, group_size)]
    return findings


def _check_adaptive(data: Any, group_size: int) -> Iterator[Finding]:
    sampler = getattr(data, "adaptive_sampler", None)
    if sampler is not None and group_size == 1:
        text = "data.sampler adaptive: model.rollout.group_size is 1, and the reward of one image has no variance"
        yield Finding("error", "sizes", text, "take 2 or more images, or data.sampler: uniform")


def check_val_interval(data: Any, interval: float | int | None, every_n_epoch: int | None) -> list[Finding]:
    """Check that an epoch is long enough for the validation interval.

    Args:
        data: The LightningDataModule.
        interval: `trainer.val_check_interval`.
        every_n_epoch: `trainer.check_val_every_n_epoch`; None counts batches over epochs.
    """
    steps = getattr(data, "steps_per_epoch", None)
    if not isinstance(steps, int) or not interval or every_n_epoch is None:
        return []
    if isinstance(interval, int) and interval > steps:
        text = f"trainer.val_check_interval {interval} is longer than an epoch of {steps} steps"
        return [Finding("error", "validation", text, f"take at most {steps}, or trainer.check_val_every_n_epoch: null")]
    if isinstance(interval, float) and int(interval * steps) < 1:
        text = f"trainer.val_check_interval {interval} of {steps} steps is less than one step"
        return [Finding("error", "validation", text, f"take {1 / steps:.3g} or more")]
    return []


def check_limits(data: Any, trainer: Any) -> list[Finding]:
    """Check that `limit_train_batches`, `limit_val_batches` and the held-out prompts give each device a batch.

    Args:
        data: The LightningDataModule.
        trainer: Of the run.
    """
    steps, batch_size = getattr(data, "steps_per_epoch", None), getattr(data, "val_batch_size", None)
    if not steps or not batch_size:  # a custom module
        return []
    devices, count = trainer.num_devices * trainer.num_nodes, len(data.val_examples)
    if 0 < count < devices and trainer.limit_val_batches:
        text = f"{count} held-out prompts for {devices} devices, each of which needs one"
        advice = f"set data.num_val_prompts to {devices} or more, or trainer.limit_val_batches: 0"
        return [Finding("error", "sizes", text, advice)]
    lengths = {"train": steps, "val": math.ceil(count // devices / batch_size)}
    limits = {name: (length, getattr(trainer, f"limit_{name}_batches")) for name, length in lengths.items()}
    return [
        Finding(
            "error",
            "validation" if name == "val" else "sizes",
            f"trainer.limit_{name}_batches {limit} of {length} batches is less than one batch",
            f"take {1 / length:.3g} or more, a number of batches, or 0 for none",
        )
        for name, (length, limit) in limits.items()
        if isinstance(limit, float) and limit > 0 and length and int(limit * length) < 1
    ]


def check_accumulation(data: Any, trainer: Any) -> list[Finding]:
    """Check that no checkpoint is saved between two batches of an optimizer step.

    A checkpoint holds no gradients, so a run that is resumed from there would lose those of the first batches.
    ModelCheckpoint counts optimizer steps, but it can also save after a time, after an exception, after a validation,
    which comes after a number of batches, and when a timer ends the run.

    Args:
        data: The LightningDataModule.
        trainer: Of the run.
    """
    schedules = [c.scheduling for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)]
    accumulated = [trainer.accumulate_grad_batches, *(n for schedule in schedules for n in schedule.values())]
    if max(accumulated) == 1 or not trainer.checkpoint_callbacks:
        return []
    problems = [problem for callback in trainer.callbacks for problem in _saves_between_batches(callback)]
    problems += _validates_between_batches(data, trainer, math.lcm(*accumulated))
    where = f"between two of the {max(accumulated)} batches of a step (trainer.accumulate_grad_batches)"
    text = "a checkpoint would be saved without the accumulated gradients"
    return [Finding("error", "checkpoints", f"{problem} {where}: {text}", advice) for problem, advice in problems]


def _saves_between_batches(callback: object) -> Iterator[tuple[str, str]]:
    """What a callback does between two batches of a step, and what to set instead."""
    advice = "set ModelCheckpoint's every_n_train_steps instead"
    if isinstance(callback, ModelCheckpoint) and callback._train_time_interval is not None:
        yield "ModelCheckpoint's train_time_interval may end", advice
    if isinstance(callback, OnExceptionCheckpoint) or getattr(callback, "save_on_exception", False):
        yield f"{type(callback).__name__} may save after an exception", advice
    if isinstance(callback, Timer) and callback._interval == "step":
        yield "trainer.max_time, or a Timer, may end the run", "set trainer.max_steps, or the Timer's interval: epoch"


def _validates_between_batches(data: Any, trainer: Any, multiple: int) -> Iterator[tuple[str, str]]:
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        yield "trainer.val_check_interval, a time, may end", f"set a number of batches, a multiple of {multiple}"
        return
    length, interval = getattr(data, "steps_per_epoch", None), trainer.val_check_interval
    if not length or not interval or not trainer.limit_val_batches:
        return
    limit = trainer.limit_train_batches
    length = min(length, limit) if isinstance(limit, int) else int(length * limit)
    every = interval if isinstance(interval, int) else int(length * interval)
    over_epochs = trainer.check_val_every_n_epoch is None
    if not length or not every or every % length == 0 or (every > length and not over_epochs):
        return  # validation is at the end of an epoch, which ends with an optimizer step
    problem = f"a validation every {every} batches comes"
    if every % multiple:
        yield problem, f"set trainer.val_check_interval to a multiple of {multiple}"
    elif over_epochs and length % multiple:  # a step does not continue in the next epoch
        yield problem, f"set data.steps_per_epoch to a multiple of {multiple}"


def check_diversity_model(model: Any) -> list[Finding]:
    """Check that timm knows the `diversity_model`, or that it is a folder that timm saved. Nothing is loaded.

    Args:
        model: The LightningModule.
    """
    config = getattr(model, "evaluation", None)
    name = getattr(config, "diversity_model", None)
    if config is None or name is None or not config.num_diversity_prompts or name.startswith(HUB_PREFIXES):
        return []
    if name and (Path(name).is_dir() or ":" in name):
        problem = _check_timm_folder(name)
    else:
        problem = None if _is_timm_model(name) else f"timm has no model {name!r}"
    if problem is None:
        return []
    advice = "take a name from timm.list_models(pretrained=True), a folder that timm saved, or null"
    return [Finding("error", "diversity_model", f"model.evaluation.diversity_model: {problem}", advice)]


def _check_timm_folder(name: str) -> str | None:
    try:
        folder = locate(name)
    except UserError as error:
        return str(error)
    return None if (folder / "config.json").is_file() else f"{folder} has no config.json, so timm did not save it"


def _is_timm_model(name: str) -> bool:
    import timm  # noqa: PLC0415 - takes a second

    return timm.is_model(name)
