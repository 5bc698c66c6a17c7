"""Do batch, group and devices divide?"""

from typing import Any

from unirl.doctor.findings import Finding


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
    text = f"{prompts} prompts x group {group} = {prompts * group} drawings a step, {share * group} a device"
    return [Finding("ok", "sizes", text), *_held_out(data, devices)]


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


def _held_out(data: Any, devices: int) -> list[Finding]:
    count = len(getattr(data, "examples", ()))
    if count == 0:
        text = "there are no held-out prompts: validation draws nothing"
        return [Finding("warning", "sizes", text, "raise data.held_out")]
    if count < devices:
        text = f"{count} held-out prompts for {devices} devices: some validate nothing"
        return [Finding("warning", "sizes", text, f"take data.held_out {devices} or more")]
    return []
