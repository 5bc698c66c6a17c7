"""Settings that the state in a checkpoint holds, or was made with: a run that resumes it cannot have others."""

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn

from unirl.backbones.fingerprint import fingerprint
from unirl.errors import UserError
from unirl.types import Example

SETTINGS = "settings"
"""Checkpoint key: the settings of the run that saved it."""
BASE, AVERAGING = "model.backbone.checkpoint", "trainer.callbacks (weight averaging)"
CHECKPOINT = "checkpoint"
"""Key of the name of a model that is loaded."""
REASONS = {
    ("model.optimizer", "model.lr_scheduler", "trainer.callbacks "): "restores optimizer, schedule and callbacks",
    ("model.judge", "model.rewards", "model.evaluation", "data.num_val", "trainer.limit_val"): (
        "is compared with the validations"
    ),
    ("data.", "trainer."): "counts the batches",
    ("model.",): "has the model",
}
"""Why a resumed run cannot have other settings, by the beginnings of their names; the first that fits."""
MODEL = ("model.backbone", "model.lora")
"""Settings without which the weights of a checkpoint are those of another model, also where nothing is trained."""
STARTABLE = (AVERAGING, "trainer.limit_val_batches")
"""Settings that may be given where the checkpoint was saved without."""
FREE = ("model.rollout", "model.update")
"""Settings that a resumed run may change. The samples that a checkpoint holds were made with them."""
FOLDERS = ("dirpath",)
"""Arguments of callbacks that differ from one run to the next."""
PROGRESS = ("last_epoch", "base_lrs", "_step_count", "_last_lr", "_initial_step", "_is_initial", "best", "best_score")
"""What schedules hold besides their settings."""
SHOWN = 4
"""Differences that a message names."""

Settings = dict[str, Any]
"""Plain values by option; those of an object by their names."""


def held_settings(module: Any, trainer: Any = None, datamodule: Any = None) -> Settings:
    """The settings of a run that its checkpoints hold. Call it before a checkpoint is loaded.

    Args:
        module: A `SelfImprovement`, built or not.
        trainer: Of the run; None leaves its settings out.
        datamodule: Of the run; None leaves its settings out.

    Returns:
        Plain values, which `torch.load(weights_only=True)` reads.
    """
    base = [_checkpoint(one.name) for one in module.backbone.pretrained_models]
    settings: Settings = {"model.backbone": _class_path(module.backbone), BASE: base, "model.lora": _plain(module.lora)}
    trainable = None if module.trainable_modules is None else sorted(set(module.trainable_modules))
    settings |= {"model.trainable_modules": trainable, **_optimizer_settings(module.optimizer, module.lr_scheduler)}
    settings |= {"model.judge": _described(module.judge), "model.rewards": [_described(one) for one in module.rewards]}
    settings |= {"model.rollout": _sampling_settings(module.rollout), "model.update": _described(module.update)}
    evaluator = module.evaluator
    settings["model.evaluation"] = _plain(evaluator.config) | {
        "image_sampling": _plain(evaluator.image_sampling),
        "answer_sampling": _plain(evaluator.answer_sampling),
        "diversity_model": _checkpoint(evaluator.config.diversity_model),
    }
    if datamodule is not None:
        settings |= _data_settings(datamodule)
    if trainer is not None:
        settings |= _trainer_settings(trainer)
    return settings


def check_held(saved: Settings, current: Settings, ckpt_path: str, training: bool = True) -> None:
    """Refuse to resume a checkpoint with other settings than it holds.

    Args:
        saved: The settings in the checkpoint.
        current: Those of the run.
        ckpt_path: The checkpoint.
        training: Whether the run trains; an evaluation needs the same model only.

    Raises:
        UserError: names options, their values in both, and what takes the new ones.
    """
    keys = [key for key in current if key in saved and key not in FREE and (training or key in MODEL)]
    found = [one for key in keys for one in _differences(key, saved[key], current[key])]
    if not found:
        return
    listed = [f"{option} is {_shown(new)}, and was {_shown(old)}" for option, old, new in found[:SHOWN]]
    more = f"; {len(found) - SHOWN} more differ" if len(found) > SHOWN else ""
    advice = "give the settings of the checkpoint"
    if training:
        advice += (
            f", or start a new run from its weights: unirl export --ckpt {ckpt_path} --out FOLDER, then "
            "--model.backbone.init_args.checkpoint FOLDER without --ckpt_path"
        )
    reasons = dict.fromkeys(_reason(option) for option, _, _ in found)
    what = f"{'a resumed run' if training else 'it'} {' and '.join(reasons)} of its checkpoint"
    raise UserError(f"{'; '.join(listed)}{more} when {ckpt_path} was saved: {what}; {advice}")


def same_sampling(saved: Settings, current: Settings) -> bool:
    """Whether the samples in a checkpoint are those that the run would have made.

    Args:
        saved: The settings in the checkpoint; empty for one that has none.
        current: Those of the run.
    """
    return all(saved[key] == current[key] for key in FREE if key in saved and key in current)


def _reason(option: str) -> str:
    if option == AVERAGING:
        return "has the model"
    return next(reason for prefixes, reason in REASONS.items() if option.startswith(prefixes))


def _optimizer_settings(optimizer: Any, lr_scheduler: Any) -> Settings:
    """Those of optimizer and schedule, which are made for one parameter here."""
    instance = optimizer([nn.Parameter(torch.zeros(1, dtype=torch.float32, device="cpu"))])
    groups = [{name: value for name, value in group.items() if name != "params"} for group in instance.param_groups]
    settings = {"class": _class_path(instance), **{name: _plain(value) for name, value in groups[0].items()}}
    if len(groups) > 1:
        settings["param_groups"] = _plain(groups)
    if lr_scheduler is None:
        return {"model.optimizer": settings, "model.lr_scheduler": None}
    scheduler = lr_scheduler(instance)
    state = {"class": _class_path(scheduler), **_without_progress(_plain(scheduler.state_dict()))}
    # OneCycleLR keeps its largest and least learning rate in the groups.
    added = {name: value for name, value in instance.param_groups[0].items() if name not in groups[0]}
    state |= {name: _plain(value) for name, value in added.items() if name not in ("params", "initial_lr")}
    return {"model.optimizer": settings, "model.lr_scheduler": state}


def _without_progress(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _without_progress(value) for name, value in state.items() if name not in PROGRESS}
    return [_without_progress(one) for one in state] if isinstance(state, list) else state


def _sampling_settings(config: Any) -> Settings:
    """Those that decide which samples are generated."""
    return {name: value for name, value in _plain(config).items() if name not in ("reward_timeout", "loss_batch_size")}


def _data_settings(data: Any) -> Settings:
    """The length of steps and epochs, by which a checkpoint counts, and what its validations measured."""
    names = ("prompts_per_step", "steps_per_epoch")
    settings = {f"data.{name}": getattr(data, name) for name in names if isinstance(getattr(data, name, None), int)}
    examples: Sequence[Example] | None = getattr(data, "val_examples", None)
    if examples is not None:
        sha256 = hashlib.sha256()
        for one in examples:
            asked = [(question.text, question.answer) for question in one.questions]
            sha256.update(repr((one.prompt, one.category, asked)).encode(errors="surrogatepass"))
        held_out = f"{len(examples)} held-out prompts (sha256 {sha256.hexdigest()[:8]})"
        settings["data.num_val_prompts of data.prompts"] = held_out
    return settings


def _trainer_settings(trainer: Trainer) -> Settings:
    names = ("accumulate_grad_batches", "limit_train_batches", "limit_val_batches")
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    # As text: 1 is one batch, and 1.0 all of them.
    settings: Settings = {f"trainer.{name}": str(getattr(trainer, name)) for name in names}
    averaging = [type(one).__name__ for one in callbacks if isinstance(one, WeightAveraging)]
    return settings | {AVERAGING: averaging} | dict(_callback_settings(callbacks))


def _callback_settings(callbacks: Sequence[Callback]) -> Iterator[tuple[str, Settings]]:
    """Arguments of callbacks that are part of their state, such as the patience of EarlyStopping."""
    for callback in callbacks:
        try:
            state = dict(callback.state_dict())
        except Exception:  # a callback of a plugin that is not set up yet
            continue
        arguments = inspect.signature(type(callback)).parameters
        held = {name: _plain(value) for name, value in state.items() if name in arguments and name not in FOLDERS}
        if held:
            yield f"trainer.callbacks {callback.state_key}", held


def _described(plugin: Any) -> Settings | None:
    """Class and constructor arguments of a plugin, as far as its attributes have them."""
    if plugin is None:
        return None
    arguments = [name for name in inspect.signature(type(plugin)).parameters if hasattr(plugin, name)]
    checkpoints = [one.name for one in getattr(plugin, "pretrained_models", ())]
    values = {name: getattr(plugin, name) for name in arguments}
    plain = {name: _checkpoint(one) if one in checkpoints else _plain(one) for name, one in values.items()}
    return {"class": _class_path(plugin), **plain}


def _checkpoint(name: str | None) -> Settings | None:
    """A model that a plugin loads, which may lie elsewhere when the run is resumed."""
    return None if name is None else {CHECKPOINT: name, "sha256": fingerprint(name)}


def _plain(value: Any) -> Any:
    """A value as `weights_only` reads it: objects by their class."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key if isinstance(key, str | int) else str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return sorted(map(repr, value)) if isinstance(value, set | frozenset) else _class_path(value)


def _class_path(value: Any) -> str:
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _differences(option: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each option whose value differs. Of objects, only arguments that both have: a new version has new ones."""
    if option in STARTABLE and not _holds(old):
        return
    if _is(old, CHECKPOINT) and _is(new, CHECKPOINT):
        yield from _other_checkpoint(option, old, new)
    elif isinstance(old, dict) and isinstance(new, dict) and old.get("class") == new.get("class"):
        names = [name for name in new if name in old] if "class" in old else sorted({*old, *new}, key=str)
        for name in names:
            yield from _differences(f"{option}.{name}", old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _are_dicts(old + new):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{option}[{i}]" if len(new) > 1 else option, one, other)
    elif old != new and repr(old) != repr(new):  # NaN differs from itself
        yield option, old, new


def _other_checkpoint(option: str, old: Settings, new: Settings) -> Iterator[tuple[str, Any, Any]]:
    """Models are the same where their bytes are; where these are not known, where they have the same name."""
    names, hashes = (old[CHECKPOINT], new[CHECKPOINT]), (old["sha256"], new["sha256"])
    if None in hashes:
        if names[0] != names[1]:
            yield option, *names
    elif hashes[0] != hashes[1]:
        yield option, f"{names[0]} with other weights" if names[0] == names[1] else names[0], names[1]


def _holds(value: Any) -> bool:
    """Whether a setting was in use: weights were averaged, validations were made."""
    return bool(value) and value not in ("0", "0.0")


def _is(value: Any, key: str) -> bool:
    return isinstance(value, dict) and key in value


def _are_dicts(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _shown(value: Any) -> str:
    if isinstance(value, list) and _are_dicts(value):
        value = ", ".join(map(_shown, value))
    elif isinstance(value, dict):
        value = value.get("class", value.get(CHECKPOINT, value))
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
