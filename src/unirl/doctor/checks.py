"""Which checks are made when."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from packaging.utils import canonicalize_name

from unirl.backbones import Backbone
from unirl.backbones.checkpoints import has_weights, local, locate, read_json, reason
from unirl.doctor.findings import Finding, refuse, size
from unirl.errors import UserError
from unirl.hooks.discovery import OWN
from unirl.hooks.host import Host, host


class Made(Protocol):
    """What a command line was parsed into, as `LightningCLI` holds it: all made, nothing built."""

    model: Any
    datamodule: Any
    trainer: Any


def before_building(run: Made) -> None:
    """The cheap part of the doctor, for `fit`: nothing is built. The backbone itself looks for its checkpoint at once.

    Args:
        run: About to start.

    Raises:
        UserError: it would fail.
    """
    findings = [*check_settings(run, run.trainer), *check_disk(log_folder(run.trainer))]
    refuse(findings)
    for one in findings:
        if one.level == "warning":
            rank_zero_warn(str(one))


def check_settings(run: Made, trainer: Trainer) -> Iterator[Finding]:
    """Devices, sizes, and what only validation would load.

    Args:
        run: Made, not built.
        trainer: Of the run.
    """
    yield from check_devices(trainer)
    yield from check_sizes(run.model, run.datamodule, trainer.num_devices * trainer.num_nodes)
    yield from check_validation(run.datamodule, trainer.val_check_interval, trainer.check_val_every_n_epoch)
    yield from check_shares(run.datamodule, trainer)
    yield from check_features(run.model)


PATIENCE = 10.0
"""Seconds for the hub to answer."""


def check_checkpoint(backbone: Backbone) -> list[Finding]:
    """Whether the checkpoint named by a backbone's attribute `checkpoint` is there and has a readable config.

    Args:
        backbone: Not built.
    """
    name = getattr(backbone, "checkpoint", None)
    if not isinstance(name, str):
        return []
    try:
        folder = local(name)
        if folder is not None:
            return [_local(name, folder)]
    except UserError as error:
        return [Finding("error", "checkpoint", str(error))]
    return [_on_hub(name)]


def _local(name: str, folder: Path) -> Finding:
    read_json(folder / "config.json")
    if not has_weights(folder):
        return Finding("error", "checkpoint", f"{name} holds a config and no weights", "download or save it again")
    return Finding("ok", "checkpoint", f"{name}, {size(_bytes(folder))} on this machine")


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _on_hub(name: str) -> Finding:
    from huggingface_hub import HfApi, try_to_load_from_cache  # noqa: PLC0415 - local folders need not pay for it

    try:
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            json.loads(Path(cached).read_text(encoding="utf-8"))
            return Finding("ok", "checkpoint", f"{name}, in the hub's cache at {Path(cached).parent}")
        files = HfApi().model_info(name, timeout=PATIENCE, files_metadata=True).siblings or []
    except Exception as error:  # the hub's client raises what it likes
        advice = "check the name and the network, or download it and give the folder"
        text = f"{name!r} is not here, and the hub gave no such checkpoint ({reason(error)})"
        return Finding("error", "checkpoint", text, advice)
    total = size(sum(file.size or 0 for file in files))
    return Finding("ok", "checkpoint", f"{name} is on the hub; up to {total} will be downloaded")


HALF = ("bf16", "16")


def check_devices(trainer: Trainer) -> list[Finding]:
    """Devices and precision of a trainer that could be made; making it has failed where devices are not there.

    Args:
        trainer: As `fit` makes it; nothing is launched.
    """
    kind, count, nodes = trainer.strategy.root_device.type, trainer.num_devices, trainer.num_nodes
    strategy = type(trainer.strategy).__name__.removesuffix("Strategy")
    where = f"{count} {kind} on each of {nodes} nodes" if nodes > 1 else f"{count} {kind}"
    findings = [Finding("ok", "devices", f"{where}, strategy {strategy}")]
    cores = os.cpu_count() or 1
    if kind == "cpu" and count > cores:
        text = f"{count} processes on {cores} CPU cores"
        findings.append(Finding("warning", "devices", text, f"--trainer.devices {cores} or fewer will be faster"))
    if kind == "cpu" and torch.cuda.is_available():
        text = "training on the CPU, and there is a GPU"
        findings.append(Finding("warning", "devices", text, "--trainer.accelerator gpu uses it"))
    return [*findings, _precision(str(trainer.precision), kind)]


def there() -> str:
    """What this machine has, and how to ask for it."""
    gpus = torch.cuda.device_count()
    if not gpus:
        cores = os.cpu_count()
        return f"here are {cores} CPU cores and no GPU: --trainer.accelerator cpu --trainer.devices 1"
    return f"here are {gpus} GPUs: --trainer.accelerator gpu --trainer.devices {gpus} or fewer"


def _precision(precision: str, kind: str) -> Finding:
    if kind == "cpu" and precision.startswith(HALF):
        text = f"{precision} on a CPU: slower than float32 on most, and rounded"
        return Finding("warning", "precision", text, "--trainer.precision 32-true")
    if kind == "cuda" and precision.startswith("bf16") and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        return Finding("warning", "precision", f"{name} only emulates {precision}", "--trainer.precision 16-mixed")
    return Finding("ok", "precision", precision)


def check_disk(folder: Path, one: float = 0.0, kept: float = 0.0) -> list[Finding]:
    """Whether a folder can be written and has room. Nothing is left there.

    Args:
        folder: Where logs and checkpoints will be; it need not exist.
        one: Bytes of a checkpoint; 0 looks only whether it can be written.
        kept: How many are kept at once; infinite where all are.
    """
    here = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=here) as file:
            file.write(b"0")
            file.flush()
        free = shutil.disk_usage(here).free
    except OSError as error:
        text = f"{here} cannot be written ({error.strerror or error})"
        return [Finding("error", "disk", text, "give another --trainer.default_root_dir, or make room")]
    return [_room(here, free, one, kept)] if one else []


def log_folder(trainer: Trainer) -> Path:
    """Where a trainer will write.

    Args:
        trainer: Nothing of it has run.
    """
    return Path((trainer.log_dir if trainer.loggers else None) or trainer.default_root_dir)


def kept_at_once(trainer: Trainer) -> float:
    """How many checkpoints may be there at once, the one being written included; infinite where all are kept.

    Args:
        trainer: Whose callbacks save them.
    """
    count = 0.0
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            count += math.inf if callback.save_top_k == -1 else callback.save_top_k
            count += callback.save_last is True
    return count + 1 if count else 0.0


def _room(here: Path, free: int, one: float, kept: float) -> Finding:
    fit, each = math.floor(free / one), f"{size(one)} each"
    if math.isinf(kept):
        text = f"every checkpoint is kept, {each}; {size(free)} free at {here} hold {fit}"
        return Finding("warning" if fit else "error", "disk", text, "set save_top_k of ModelCheckpoint")
    text = f"{kept:.0f} checkpoints at once, {each}; {size(free)} are free at {here}"
    if one * kept <= free:
        return Finding("ok", "disk", text)
    return Finding("error", "disk", text, "make room, keep fewer (save_top_k), or give --trainer.default_root_dir")


HUBS = ("hf-hub:", "hf_hub:", "timm/")
ADVICE = 'take a name from timm.list_models(pretrained=True), a folder that timm saved, or "model.evaluation.diversity_model: null"'


def check_features(model: Any) -> list[Finding]:
    """Whether timm knows the `diversity_model`, or it is a folder that timm can have saved. Nothing is loaded.

    Args:
        model: The LightningModule.
    """
    config = getattr(model, "evaluation", None)
    name = getattr(config, "diversity_model", None)
    if config is None or name is None or not config.num_diversity_prompts or name.startswith(HUBS):
        return []
    if not name or not (Path(name).is_dir() or ":" in name):
        return [] if _known(name) else [Finding("error", "diversity_model", f"timm has no model {name!r}", ADVICE)]
    try:
        folder = locate(name)
    except UserError as error:
        return [Finding("error", "diversity_model", str(error), ADVICE)]
    if (folder / "config.json").is_file():
        return []
    return [Finding("error", "diversity_model", f"{folder} has no config.json, so timm did not save it", ADVICE)]


def _known(name: str) -> bool:
    import timm  # noqa: PLC0415 - takes a second that others need not pay

    return timm.is_model(name)


MOST = 100_000
"""Drawings of a step on one device, far above what any holds: more is a slip of the keyboard."""


def check_sizes(model: Any, data: Any, devices: int) -> list[Finding]:
    """Sizes of a step against the number of processes. What a rule refuses, its `check` has refused before.

    Args:
        model: The LightningModule.
        data: The LightningDataModule.
        devices: Processes of the run, over all nodes.
    """
    prompts, group = (
        getattr(data, "prompts_per_step", None),
        getattr(getattr(model, "rollout", None), "group_size", None),
    )
    if prompts is None or group is None:  # a module of somebody's own
        return []
    if prompts % devices:
        text = f"data.prompts_per_step {prompts} does not divide among {devices} devices"
        more = prompts + -prompts % devices
        return [Finding("error", "sizes", text, f"take a multiple of {devices}, such as {more}, or other devices")]
    share = prompts // devices
    if share * group > MOST:
        text = f"{prompts} prompts x group {group} are {share * group} drawings a step on a device, above {MOST}"
        return [Finding("error", "sizes", text, "take a smaller model.rollout.group_size or data.prompts_per_step")]
    text = f"{prompts} prompts x group {group} = {prompts * group} drawings a step, {share * group} a device"
    found = [Finding("ok", "sizes", text)]
    if not len(getattr(data, "val_examples", ())):
        text = "there are no held-out prompts: validation draws nothing"
        found.append(Finding("warning", "sizes", text, "raise data.num_val_prompts"))
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
    steps, batch = getattr(data, "steps_per_epoch", None), getattr(data, "val_batch_size", None)
    if not steps or not batch:  # a module of somebody's own
        return []
    devices, count = trainer.num_devices * trainer.num_nodes, len(data.val_examples)
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


def check_plugins() -> list[Finding]:
    """What loaded, with its version, and what did not."""
    try:
        found = host()
    except UserError as error:
        return [Finding("error", "plugins", str(error), "unirl plugins lists them")]
    return [_loaded(found), *(_broken(str(plugin)) for plugin in found.inspected() if plugin.status == "failed")]


def check_import_name() -> list[Finding]:
    """Whether another installed distribution brings a package called `unirl`, and so may have overwritten this one."""
    owners = {canonicalize_name(name) for name in metadata.packages_distributions().get("unirl", [])}
    return [
        Finding(
            "warning",
            "import name",
            f"the distribution {other!r} also owns the import name unirl: files of both may be mixed",
            f"pip uninstall {other}, then pip install --force-reinstall --no-deps {OWN}",
        )
        for other in sorted(owners - {OWN})
    ]


def _loaded(found: Host) -> Finding:
    origins = dict.fromkeys(plugin.origin for plugin in found.plugins if plugin.status == "loaded")
    return Finding("ok", "plugins", ", ".join(origins))


def _broken(text: str) -> Finding:
    return Finding("warning", "plugins", text, "mend or uninstall it; nothing that this config names is of it")
