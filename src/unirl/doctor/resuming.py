"""Checks of the checkpoint that a run resumes, before anything is written or loaded."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from unirl.backbones.frozen import DIGEST, check_digest, exclude_from_state_dict, frozen_names
from unirl.backbones.lora import select_trainable
from unirl.checkpoint.integrity import find_corruption
from unirl.checkpoint.resume import corrupt_message, latest_readable, resolve_last
from unirl.checkpoint.weights import check_strategy, check_weights, read_rest
from unirl.doctor.findings import Finding
from unirl.errors import UserError
from unirl.training.held_settings import SETTINGS, check_held, held_settings
from unirl.training.module import SelfImprovement

CONFIG = "config"
"""Checkpoint key: the config of the run that saved it, in YAML."""
PLACES = (
    *("config.", "ckpt_path.", "name.", "requires_plugins.", "plugin_options.", "images.", "results.", "export."),
    *("trainer.default_root_dir.", "trainer.logger.", "trainer.enable_", "trainer.num_sanity_val_steps."),
)
"""Options that say where a run writes and what it shows; and those that mean nothing to a resumed run."""
SHOWN = 8
"""Options that a message names."""


class ParsedRun(Protocol):
    """A parsed command line: everything is instantiated, nothing is built."""

    subcommand: str | None
    model: Any
    datamodule: Any
    trainer: Any

    @property
    def ckpt_path(self) -> Path | list[Path] | None:
        """The checkpoint to resume, or the folders whose newest one it is; None for a new run."""

    def config_text(self) -> str:
        """The config of the run, in YAML."""


def check_resume(run: ParsedRun, verify: bool = False) -> Iterator[Finding]:
    """Check that a run can resume its checkpoint, and that its options are in force then.

    Args:
        run: Not started.
        verify: Also read the whole checkpoint, which the trainer does when it loads it.
    """
    path, problem = _find(run.ckpt_path, verify)
    if problem is not None:
        yield Finding("error", "resume", problem)
    checkpoint = None if path is None or problem is not None else read_rest(path)
    if path is None or checkpoint is None:
        return
    training = run.subcommand == "fit"
    try:
        if run.trainer is not None:
            check_strategy(path, run.trainer.strategy)
        if isinstance(run.model, SelfImprovement):
            _check_model(path, checkpoint, run, training)
    except UserError as error:
        yield Finding("error", "resume", str(error))
        return
    step = int(checkpoint.get("global_step", 0))
    if training and run.trainer is not None and 0 <= run.trainer.max_steps < step:
        text = f"trainer.max_steps is {run.trainer.max_steps}, and {path} is at step {step}"
        yield Finding("error", "resume", text, f"set it to {step} or more, or name an earlier checkpoint")
        return
    yield from _changed(checkpoint.get(CONFIG), run.config_text(), step) if training else ()
    if verify:
        yield Finding("ok", "resume", f"{path}, at step {step}, fits this run")


def _check_model(path: Path, checkpoint: Mapping[str, Any], run: ParsedRun, training: bool) -> None:
    if not run.model.exclude_frozen_parameters:
        check_digest(checkpoint.get(DIGEST), None)
    if (saved := checkpoint.get(SETTINGS)) is not None:
        check_held(saved, held_settings(run.model, run.trainer, run.datamodule), str(path), training)
    elif (model := _on_meta(run.model)) is not None:
        check_weights(path, checkpoint, model, training)


def _find(given: Path | list[Path] | None, verify: bool) -> tuple[Path | None, str | None]:
    """The checkpoint, and why it cannot be loaded, where it is read whole."""
    if isinstance(given, list):
        if not verify:
            return latest_readable(given), None
        found, problem = resolve_last(given)
        return None if found is None else Path(found), problem
    problem = find_corruption(given) if verify and given is not None else None
    return given, None if problem is None or given is None else corrupt_message(given, problem)


def _on_meta(model: SelfImprovement) -> SelfImprovement | None:
    """A copy of a module whose model has no weights; None where a plugin cannot be built like that."""
    model = copy.deepcopy(model)
    try:
        model.backbone.build(meta=True)
        select_trainable(model.backbone, model.trainable_modules, model.lora)
    except Exception:  # building the model, which comes next, says what is wrong
        return None
    if model.exclude_frozen_parameters:
        exclude_from_state_dict(model, [f"backbone.{name}" for name in frozen_names(model.backbone)])
    return model


def _changed(saved: str | None, current: str, step: int) -> Iterator[Finding]:
    """The options that a resumed run takes from its own config, where they are others than before."""
    if saved is None:  # saved without the command line
        return
    found = list(_differences(yaml.safe_load(saved), yaml.safe_load(current)))
    if found:
        listed = [f"{option} {_shown(new)} (was {_shown(old)})" for option, old, new in found[:SHOWN]]
        more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        yield Finding("warning", "resume", f"other options hold from step {step} on: {', '.join(listed)}{more}")


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if f"{prefix}.".startswith(PLACES):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping) and old.get("class_path") == new.get("class_path"):
        for name in [*old, *(name for name in new if name not in old)]:
            key = prefix if name in ("init_args", "dict_kwargs") else f"{prefix}.{name}".lstrip(".")
            yield from _differences(old.get(name), new.get(name), key)
    elif old != new and repr(old) != repr(new):  # NaN differs from itself
        yield prefix, old, new


def _shown(value: Any) -> str:
    value = value.get("class_path", value) if isinstance(value, Mapping) else value
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
