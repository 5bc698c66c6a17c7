"""Do batch, group and devices divide?"""

import math
from typing import Any

from unirl.doctor.findings import Finding

MOST = 100_000
"""Drawings of a step on one device, far above what any holds: more is a slip of the keyboard."""


def check_sizes(model: Any, data: Any, devices: int) -> list[Finding]:
    """Sizes of a step against the number of processes. What a rule refuses, its `check` has refused before.

    Args:
        model: The LightningModule.
        data: The LightningDataModule.
        devices: Processes of the run, over all nodes.
    """
    prompts, group = getattr(data, "prompts_per_step", None), getattr(model, "group_size", None)
    if prompts is None or group is None:  # a module of somebody's own
        return []
    if prompts % devices:
        text = f"data.prompts_per_step {prompts} does not divide among {devices} devices"
        more = prompts + -prompts % devices
        return [Finding("error", "sizes", text, f"take a multiple of {devices}, such as {more}, or other devices")]
    share = prompts // devices
    if share * group > MOST:
        text = f"{prompts} prompts x group {group} are {share * group} drawings a step on a device, above {MOST}"
        return [Finding("error", "sizes", text, "take a smaller model.group_size or data.prompts_per_step")]
    text = f"{prompts} prompts x group {group} = {prompts * group} drawings a step, {share * group} a device"
    found = [Finding("ok", "sizes", text)]
    if not len(getattr(data, "examples", ())):
        text = "there are no held-out prompts: validation draws nothing"
        found.append(Finding("warning", "sizes", text, "raise data.held_out"))
    return found


def check_validation(data: Any, interval: float | int | None, every: int | None) -> list[Finding]:
    """Whether validation falls into an epoch.

    Args:
        data: The LightningDataModule.
        interval: `trainer.val_check_interval`.
        every: `trainer.check_val_every_n_epoch`; None counts steps over epochs.
    """
    steps = getattr(data, "steps_per_epoch", None)
    if not isinstance(steps, int) or not interval or every is None:
        return []
    if isinstance(interval, int) and interval > steps:
        text = f"trainer.val_check_interval {interval} is longer than an epoch of {steps} steps"
        advice = f"take at most {steps}, or trainer.check_val_every_n_epoch: null"
        return [Finding("error", "validation", text, advice)]
    if isinstance(interval, float) and int(interval * steps) < 1:
        text = f"trainer.val_check_interval {interval} of {steps} steps is less than one step"
        return [Finding("error", "validation", text, f"take {1 / steps:.3g} or more")]
    return []


def check_shares(data: Any, trainer: Any) -> list[Finding]:
    """Whether shares of an epoch and of a validation are at least a batch; Lightning refuses others at their first.

    The same for each process's share of the held-out prompts.

    Args:
        data: The LightningDataModule.
        trainer: Of the run, with `limit_train_batches` and `limit_val_batches`.
    """
    steps, batch = getattr(data, "steps_per_epoch", None), getattr(data, "validation_batch", None)
    if not steps or not batch:  # a module of somebody's own
        return []
    devices, count = trainer.num_devices * trainer.num_nodes, len(data.examples)
    if 0 < count < devices and trainer.limit_val_batches:
        text = f"{count} held-out prompts for {devices} devices, each of which validates on its own share"
        return [Finding("error", "sizes", text, f"take {devices} or more, or trainer.limit_val_batches: 0")]
    lengths = {"train": steps, "val": math.ceil(count // devices / batch)}
    limits = {name: (length, getattr(trainer, f"limit_{name}_batches")) for name, length in lengths.items()}
    return [
        Finding(
            "error",
            "validation" if name == "val" else "sizes",
            f"trainer.limit_{name}_batches {limit} of {length} batches is less than one",
            f"take {1 / length:.3g} or more, a whole number of batches, or 0 for none",
        )
        for name, (length, limit) in limits.items()
        if isinstance(limit, float) and limit > 0 and length and int(limit * length) < 1
    ]
