"""Checks of what a run needs: memory of a device and space for checkpoints."""

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer

from unirl.backbones import Backbone
from unirl.backbones.checkpoints import describe_error, locate_local
from unirl.doctor.environment import check_disk, log_folder, max_checkpoints
from unirl.doctor.findings import Finding, format_bytes
from unirl.doctor.measure import Measurement, measure
from unirl.doctor.setup import Setup
from unirl.doctor.text_lengths import check_lengths
from unirl.errors import UserError

SPARE = 1.1
"""What a device must hold, relative to the peak: allocators leave gaps, and kernels need memory of their own."""
FLOAT = 4
"""Bytes of a weight or an optimizer state in a checkpoint."""
STRATEGIES = {"DDPStrategy": "ddp", "FSDP2Strategy": "fsdp2", "ModelParallelStrategy": "fsdp2"}
"""Names under `--trainer.strategy` by class."""
ADVICE = (
    "lower model.rollout.loss_batch_size, data.prompts_per_step, model.rollout.group_size or data.val_batch_size; set "
    "the backbone's gradient_checkpointing or model.lora; or use fsdp2 on more devices"
)


def check_resources(model: Any, data: Any, setup: Setup, trainer: Trainer | None, really: bool) -> Iterator[Finding]:
    """Check the memory of a device and the space for checkpoints.

    Args:
        model: A `SelfImprovement` whose backbone is not built. Do not use it afterwards.
        data: A `PromptsDataModule`.
        setup: Of the run.
        trainer: Of the run; None where this machine lacks the devices.
        really: Measure other strategies, too, and run the step really where it fits.
    """
    copies = [copy.deepcopy(model) for _ in range(3)] if really else []
    saves_all = not getattr(model, "exclude_frozen_parameters", False)
    try:
        model.backbone.build(meta=True)
    except Exception as error:  # a checkpoint that is not there is an error already, and plugins may have no meta build
        if isinstance(error, UserError) and _is_local(model.backbone):  # its files are read: `fit` fails, too
            yield Finding("error", "model", str(error))
        else:
            text = f"not measured, because build(meta=True) failed: {describe_error(error)}"
            yield Finding("warning", "memory", text)
        if trainer is not None:
            yield from check_disk(log_folder(trainer))
        return
    yield from check_lengths(model, data)
    measured, finding = _measure(model, data, setup)
    yield finding
    if measured is not None and really:
        yield from _other_strategies(copies, data, setup)
        yield _really(copies[-1], data, setup, measured)
    if trainer is not None:
        yield from check_disk(
            log_folder(trainer), _checkpoint_bytes(model.backbone, saves_all), max_checkpoints(trainer)
        )


def _is_local(backbone: Any) -> bool:
    """Whether a backbone's checkpoint is a folder that is there."""
    name = getattr(backbone, "checkpoint", None)
    try:
        return isinstance(name, str) and locate_local(name) is not None
    except UserError:  # told as an error of the checkpoint
        return False


def _measure(model: Any, data: Any, setup: Setup, real: bool = False) -> tuple[Measurement | None, Finding]:
    try:
        measured = measure(model, data, setup, real=real)
    except UserError as error:
        return None, Finding("error", "model", str(error))
    except Exception as error:  # plugins may do what fake tensors cannot
        return None, Finding("warning", "memory", f"not measured: {describe_error(error)}")
    return measured, _memory_finding(measured, setup)


def _checkpoint_bytes(backbone: Backbone, saves_all: bool) -> float:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in backbone.parameters()]
    trainable = sum(size for size, is_trainable in sizes if is_trainable)
    saved = sum(size for size, _ in sizes) if saves_all else trainable
    return float(FLOAT * (saved + 2 * trainable))


def _other_strategies(copies: list[Any], data: Any, setup: Setup) -> Iterator[Finding]:
    """The same step where the other strategies share it among the devices."""
    if setup.devices == 1:
        return
    for strategy in ("DDPStrategy", "FSDP2Strategy"):
        if STRATEGIES.get(strategy) != STRATEGIES.get(setup.strategy):
            yield _measure(copies.pop(0), data, replace(setup, strategy=strategy))[1]


def _really(model: Any, data: Any, setup: Setup, expected: Measurement) -> Finding:
    """Run the step where this machine can."""
    name = getattr(model.backbone, "checkpoint", None)
    here = setup.accelerator == "cpu" or torch.cuda.is_available()
    is_local = not isinstance(name, str) or locate_local(name) is not None
    reasons = {
        "it shards over processes": setup.shards,
        "the checkpoint is not on this machine": not is_local,
        "this machine has no GPU": not here,
        "it does not fit": here and SPARE * expected.peak > available_memory(setup) > 0,
    }
    if why := [reason for reason, holds in reasons.items() if holds]:
        return Finding("ok", "memory", f"the step was not really run: {', '.join(why)}")
    return _measure(model, data, setup, real=True)[1]


def _memory_finding(measured: Measurement, setup: Setup) -> Finding:
    needed, available = SPARE * measured.peak, available_memory(setup)
    phases = ", ".join(f"{name} {format_bytes(count)}" for name, count in measured.peaks.items())
    constant = ", ".join(f"{format_bytes(count)} {name}" for name, count in measured.constant.items())
    strategy = STRATEGIES.get(setup.strategy, "one device")
    where = f"{setup.devices} {setup.accelerator} under {strategy}" if setup.devices > 1 else f"1 {setup.accelerator}"
    how = "a step was run" if measured.is_real else "run on fake tensors"
    text = (
        f"a device must hold {format_bytes(needed)}: the peak of {format_bytes(measured.peak)} and 10 % to spare "
        f"({where}; {how}). Peaks: {phases}. All the time: {constant}"
    )
    if measured.left_out:
        text += f". Left out: {'; '.join(measured.left_out)}"
    if available and needed > available:
        return Finding("warning", "memory", f"{text}; {format_bytes(available)} are available", ADVICE)
    return Finding("ok", "memory", text)


def available_memory(setup: Setup) -> float:
    """Bytes of a device of this machine; 0 if not known.

    Args:
        setup: Of the run.
    """
    if setup.accelerator == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else 0.0
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            available = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
    except OSError:
        return 0.0
    return float(available[1]) * 1024 / setup.devices if available else 0.0
