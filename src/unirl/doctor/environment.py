"""Checks of the machine and of what is installed: devices, disk, plugins."""

import math
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from packaging.utils import canonicalize_name

from unirl.doctor.findings import Finding, format_bytes
from unirl.errors import UserError
from unirl.hooks.discovery import OWN_DISTRIBUTION
from unirl.hooks.host import host
from unirl.training.config import check_precision

HALF_PRECISION = ("bf16", "16")


# --- devices ---


def check_devices(trainer: Trainer) -> list[Finding]:
    """Check devices and precision. Devices that do not exist have been refused when the trainer was made.

    Args:
        trainer: The trainer of the run; not started.
    """
    device, count, nodes = trainer.strategy.root_device.type, trainer.num_devices, trainer.num_nodes
    strategy = type(trainer.strategy).__name__.removesuffix("Strategy")
    devices = f"{count} {device} on each of {nodes} nodes" if nodes > 1 else f"{count} {device}"
    findings = [Finding("ok", "devices", f"{devices}, strategy {strategy}")]
    cores = os.cpu_count() or 1
    if device == "cpu" and count > cores:
        text = f"{count} processes on {cores} CPU cores"
        findings.append(Finding("warning", "devices", text, f"--trainer.devices {cores} or fewer will be faster"))
    if device == "cpu" and torch.cuda.is_available():
        text = "training on the CPU, although there is a GPU"
        findings.append(Finding("warning", "devices", text, "--trainer.accelerator gpu uses it"))
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        text = f"trainer.num_nodes {nodes}, and MASTER_ADDR is not set: this process would wait for other nodes"
        advice = "start it on every node by torchrun or SLURM (docs/clusters.md), or set trainer.num_nodes: 1"
        findings.append(Finding("warning", "devices", text, advice))
    return [*findings, _check_precision(str(trainer.precision), device)]


def available_devices() -> str:
    """The devices of this machine and the options that use them."""
    gpus = torch.cuda.device_count()
    if not gpus:
        cores = os.cpu_count()
        return f"this machine has {cores} CPU cores and no GPU: --trainer.accelerator cpu --trainer.devices 1"
    return f"this machine has {gpus} GPUs: --trainer.accelerator gpu --trainer.devices {gpus} or fewer"


def _check_precision(precision: str, device: str) -> Finding:
    try:
        check_precision(precision)
    except UserError as error:
        return Finding("error", "precision", str(error))
    if device == "cpu" and precision.startswith(HALF_PRECISION):
        text = f"{precision} on a CPU: slower than float32 on most, and less exact"
        return Finding("warning", "precision", text, "--trainer.precision 32-true")
    if (
        device == "cuda"
        and precision.startswith("bf16")
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        name = torch.cuda.get_device_name()
        return Finding("warning", "precision", f"{name} only emulates {precision}", "--trainer.precision 16-mixed")
    return Finding("ok", "precision", precision)


# --- disk ---


def check_disk(folder: Path, checkpoint_bytes: float = 0.0, max_checkpoints: float = 0.0) -> list[Finding]:
    """Check that a folder is writable and has room for the checkpoints. Nothing is left there.

    Args:
        folder: Of logs and checkpoints; need not exist.
        checkpoint_bytes: Size of a checkpoint. 0 checks only that the folder is writable.
        max_checkpoints: Checkpoints that exist at once; infinite if all are kept.
    """
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(b"0")
            file.flush()
        free = shutil.disk_usage(parent).free
    except OSError as error:
        text = f"{parent} cannot be written ({error.strerror or error})"
        return [Finding("error", "disk", text, "give another --trainer.default_root_dir, or free some space")]
    return [_check_free_space(parent, free, checkpoint_bytes, max_checkpoints)] if checkpoint_bytes else []


def _check_free_space(folder: Path, free: int, checkpoint_bytes: float, max_checkpoints: float) -> Finding:
    room, each = math.floor(free / checkpoint_bytes), f"{format_bytes(checkpoint_bytes)} each"
    if math.isinf(max_checkpoints):
        text = f"every checkpoint is kept, {each}; {format_bytes(free)} free at {folder} hold {room}"
        return Finding("warning" if room else "error", "disk", text, "set save_top_k of ModelCheckpoint")
    text = f"{max_checkpoints:.0f} checkpoints at once, {each}; {format_bytes(free)} are free at {folder}"
    if checkpoint_bytes * max_checkpoints <= free:
        return Finding("ok", "disk", text)
    advice = "free some space, keep fewer checkpoints (save_top_k), or give --trainer.default_root_dir"
    return Finding("error", "disk", text, advice)


def log_folder(trainer: Trainer) -> Path:
    """The folder to which a trainer will write.

    Args:
        trainer: Not started.
    """
    if (folder := getattr(trainer, "run_folder", None)) is not None:
        return folder.root  # the folder itself is made when the run starts
    return Path((trainer.log_dir if trainer.loggers else None) or trainer.default_root_dir)


def max_checkpoints(trainer: Trainer) -> float:
    """Largest number of checkpoints that exist at once, with the one that is being written; infinite if all are kept.

    Args:
        trainer: With the callbacks that save them.
    """
    count = 0.0
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            count += math.inf if callback.save_top_k == -1 else callback.save_top_k
            count += callback.save_last is True
    return count + 1 if count else 0.0


# --- plugins ---


def check_plugins() -> list[Finding]:
    """List the plugins that were loaded, with their versions, and those that failed."""
    try:
        plugin_host = host()
    except UserError as error:
        return [Finding("error", "plugins", str(error), "unirl plugins lists them")]
    origins = dict.fromkeys(plugin.origin for plugin in plugin_host.plugins if plugin.status == "loaded")
    advice = "fix or uninstall it; the config does not use it"
    failed = [plugin for plugin in plugin_host.inspected() if plugin.status == "failed"]
    return [
        Finding("ok", "plugins", ", ".join(origins)),
        *(Finding("warning", "plugins", str(plugin), advice) for plugin in failed),
    ]


def check_import_name() -> list[Finding]:
    """Warn if another distribution installs a package `unirl`, and so may have overwritten files of this one."""
    owners = {canonicalize_name(name) for name in metadata.packages_distributions().get("unirl", []) if name}
    return [
        Finding(
            "warning",
            "import name",
            f"the distribution {other!r} also installs a package unirl: files of both may be mixed",
            f"pip uninstall {other}, then pip install --force-reinstall --no-deps {OWN_DISTRIBUTION}",
        )
        for other in sorted(owners - {OWN_DISTRIBUTION})
    ]
