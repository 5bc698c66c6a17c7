"""Options of Lightning's Trainer that do not fit these runs, or each other, refused in one sentence."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Callback,
    Checkpoint,
    DeviceStatsMonitor,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelPruning,
    ThroughputMonitor,
)
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from unirl.callbacks import fault_tolerance_callbacks
from unirl.errors import UserError, suggest

PROFILERS = ("simple", "advanced", "pytorch", "xla")
DEVICE_WORDS = ("accelerator", "device", "gpu", "cuda", "mps", "tpu", "node", "strategy")
REFUSED_CALLBACKS: dict[type, str] = {
    BaseFinetuning: "it trains the head of a network before its backbone, and here the backbone is all of the model; "
    "model.trainable_modules chooses what is trained",
    BatchSizeFinder: "there is no batch_size to find; `unirl doctor --measure` measures the memory of a step",
    LearningRateFinder: "it changes an attribute of the model that is not there; set the optimizer's lr",
    ModelPruning: "it prunes the weights before they are loaded",
}
"""Callbacks of Lightning that a run cannot have, and why."""
OF_EVERY_RUN = {
    **{"Guards": "guards", "LogImages": "images", "ResultsTable": "results", "ExportPretrained": "export"},
    **dict.fromkeys(type(callback).__name__ for callback in fault_tolerance_callbacks()),
}
"""Callbacks that every run has, with the group of their options."""
NEED_LOGGER = (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor)
_SAME_STATE = re.compile(r"Found more than one stateful callback of type `(\w+)`")
_ADDRESS = re.compile(r" object at 0x[0-9a-f]+")


def check_trainer_options(options: Namespace) -> None:
    """Refuse options that contradict the run or each other.

    Args:
        options: Those under `trainer`, with callbacks and plugins as objects.

    Raises:
        UserError: for the first of them.
    """
    for problem in _problems(options):
        raise UserError(f"trainer.{problem}")


def is_about_devices(message: str) -> bool:
    """Whether a message of the Trainer is about the devices of this machine.

    Args:
        message: Of an exception.

    Example:
        >>> is_about_devices("No supported gpu backend found!"), is_about_devices("limit_val_batches is 1.5")
        (True, False)
    """
    return any(word in message.lower() for word in DEVICE_WORDS)


def _problems(options: Namespace) -> Iterator[str]:
    if options.barebones:
        yield (
            "barebones: true: it switches off logging, checkpoints and the validation before training, which guards "
            "and results need; leave it out, and set trainer.profiler: simple to see where the time goes"
        )
    if options.overfit_batches:
        yield (
            f"overfit_batches {options.overfit_batches}: prompts are drawn anew for each step, so no batches can be "
            "kept; to overfit, give a file of few prompts (data.prompts: jsonl), and limit_train_batches for the length"
        )
    yield from _folder_problems(options)
    yield from _callback_problems(options)
    yield from _plugin_problems(options)
    if isinstance(options.profiler, str):
        if options.profiler not in PROFILERS:
            yield f"profiler {options.profiler!r}; {suggest(options.profiler, PROFILERS)}"
        elif options.profiler == "xla" and find_spec("torch_xla") is None:
            yield "profiler 'xla' is for TPUs and needs torch_xla, which is not installed; take simple or advanced"
    if options.gradient_clip_algorithm and not options.gradient_clip_val:
        yield (
            f"gradient_clip_algorithm {options.gradient_clip_algorithm}: without trainer.gradient_clip_val no gradient "
            "is clipped; set both, or neither"
        )


def _folder_problems(options: Namespace) -> Iterator[str]:
    folder = str(options.default_root_dir)
    protocol, separator, _ = folder.partition("://")
    if not separator:
        return
    try:
        get_filesystem(folder)
    except (ImportError, ValueError) as error:
        yield f"default_root_dir {folder}: {error}; install what it names, or give a folder of this machine"
    linking = [one for one in _listed(options.callbacks) if getattr(one, "save_last", None) == "link"]
    if linking and protocol != "file":
        yield (
            f"default_root_dir {folder}, and ModelCheckpoint has save_last: link, which links files of this machine "
            "only; set save_last: true, or give a folder of this machine"
        )


def _callback_problems(options: Namespace) -> Iterator[str]:
    callbacks = _listed(options.callbacks)
    saving = [type(callback).__name__ for callback in callbacks if isinstance(callback, Checkpoint)]
    if options.enable_checkpointing is False and saving:
        yield (
            f"enable_checkpointing: false, and trainer.callbacks has {', '.join(saving)}, which saves checkpoints; "
            "take one of them out: --trainer.callbacks null takes out all callbacks of the config"
        )
    for callback in callbacks:
        yield from _refused(callback, has_logger=options.logger is not False and options.logger != [])
    if any(isinstance(one, GradientAccumulationScheduler) for one in callbacks) and options.accumulate_grad_batches > 1:
        yield (
            f"accumulate_grad_batches {options.accumulate_grad_batches}, and trainer.callbacks has "
            "GradientAccumulationScheduler, which sets it, too; take one of them out"
        )


def _refused(callback: Callback, has_logger: bool) -> Iterator[str]:
    name = type(callback).__name__
    if name in OF_EVERY_RUN:
        group = OF_EVERY_RUN[name]
        yield f"callbacks: {name} is part of every run; " + (
            f"set its options under {group}" if group else "leave it out"
        )
    for kind, reason in REFUSED_CALLBACKS.items():
        if isinstance(callback, kind):
            yield f"callbacks: {name} cannot be used: {reason}"
    if isinstance(callback, NEED_LOGGER) and not has_logger:
        yield f"callbacks: {name} writes to a logger, and trainer.logger is false; take one of them out"


def trainer_error(error: Exception) -> UserError:
    """What the Trainer refuses, as one line.

    Args:
        error: As its constructor raised it.
    """
    text = str(error)
    if match := _SAME_STATE.match(text):
        return UserError(
            f"trainer.callbacks: several {match[1]} with the same settings, whose states a checkpoint could not tell "
            "apart; keep one, or give them another monitor, mode, or interval"
        )
    return UserError(f"trainer: {_ADDRESS.sub('', text)}")


def _plugin_problems(options: Namespace) -> Iterator[str]:
    if any(isinstance(plugin, AsyncCheckpointIO) for plugin in _listed(options.plugins)):
        yield (
            "plugins: AsyncCheckpointIO cannot be used: a checkpoint that is written while training goes on may be "
            "half written when the run is killed; leave it out, and checkpoints are written at once and verified"
        )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
