"""Everything that decides the scores of a benchmark, as plain values."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from unirl.backbones import Backbone
from unirl.backbones.checkpoints import PretrainedModel, locate, locate_local
from unirl.backbones.fingerprint import fingerprint as weights_fingerprint
from unirl.backbones.frozen import digest
from unirl.errors import UserError
from unirl.judges import Judge
from unirl.output import write_atomically
from unirl.rewards.scoring import distribution_of
from unirl.types import AnswerSampling, Example, ImageSampling

SETTINGS = "settings.json"


def options_of(plugin: object) -> dict[str, Any]:
    """The options with which a plugin was made, as far as it keeps them in attributes of their names.

    Args:
        plugin: An object.

    Example:
        >>> from unirl.prompts import GenEval
        >>> options_of(GenEval(question_sets=True))["question_sets"]
        True
    """
    options = {}
    for name in inspect.signature(type(plugin).__init__).parameters:
        value = getattr(plugin, name, inspect.Parameter.empty)
        if name != "self" and _is_plain(value):
            options[name] = value
    return options


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def judge_settings(judge: Judge, name: str) -> dict[str, Any]:
    """What decides the verdicts of a judge. Reads the weights of its models that are folders.

    Args:
        judge: The judge.
        name: Its registered name, or another one.

    Raises:
        UserError: a model of the judge is not there.
    """
    return {
        "judge": name,
        "judge_class": _path(judge),
        "judge_options": options_of(judge),
        "judge_models": {model.name: _version(model, name) for model in judge.pretrained_models},
        "judge_distribution": distribution_of(judge),
    }


def _version(model: PretrainedModel, name: str) -> str | None:
    """The commit of a model of the hub; of a folder, a hash of its config and weights."""
    try:
        folder = locate(model.name, files=model.files, revision=model.revision)
        return weights_fingerprint(model.name) if locate_local(model.name) else folder.name
    except UserError as error:
        raise UserError(f"judge {name}: {error}") from None


def image_settings(backbone: Backbone, sampling: ImageSampling, seed: int, precision: str) -> dict[str, Any]:
    """What decides the images. Reads all weights.

    Args:
        backbone: Built.
        sampling: How images are generated.
        seed: Of the images.
        precision: Of the trainer.
    """
    return {
        "checkpoint": str(getattr(backbone, "checkpoint", "")),
        "weights_sha256": digest(backbone.state_dict()),
        "backbone": _path(backbone),
        "backbone_options": {key: value for key, value in options_of(backbone).items() if key != "checkpoint"},
        "image_sampling": asdict(sampling),
        "prompt_rewriting": None,
        "seed": seed,
        "precision": precision,
    }


def answer_settings(sampling: AnswerSampling) -> dict[str, Any]:
    """What decides the answers about given images, beside the model.

    Args:
        sampling: How questions are answered.
    """
    return {"answer_sampling": asdict(sampling)}


def versions() -> dict[str, str]:
    """Versions of what computes the images and the verdicts, and the device."""
    names = ("lightning-unirl", "torch", "transformers")
    found = {name: metadata.version(name) for name in names}
    return found | {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name of settings, for folders.

    Args:
        settings: Plain values.

    Example:
        >>> fingerprint({"a": 1}) == fingerprint({"a": 1}), len(fingerprint({"a": 1}))
        (True, 12)
    """
    return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def example_fingerprint(example: Example) -> str:
    """A short name of what an image must show and what is asked about it.

    Args:
        example: The example.

    Example:
        >>> example_fingerprint(Example("a cup")) == example_fingerprint(Example("a dog"))
        False
    """
    plain = asdict(example)
    return fingerprint({one.name: plain[one.name] for one in fields(Example)})


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of the images into their folder, or compare with those that are there.

    Args:
        folder: Of the results.
        settings: Of `image_settings`.

    Raises:
        UserError: the folder's images are of other settings.
    """
    there, wanted = saved_settings(folder), json.loads(json.dumps(settings))
    if not there:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SETTINGS, (json.dumps(wanted, indent=1) + "\n").encode())
        return
    names = [name for name in wanted if there.get(name) != wanted[name]]
    if names:
        differences = ", ".join(f"{name} {_short(there.get(name))} and not {_short(wanted[name])}" for name in names)
        raise UserError(f"{folder} holds images of other settings: {differences}; take another --out")


def saved_settings(folder: Path) -> dict[str, Any]:
    """The settings of the images in a folder; empty where there are none.

    Args:
        folder: Of the results.

    Raises:
        UserError: the file is broken.
    """
    path = folder / SETTINGS
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}; take another --out") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected a JSON object, got {_short(settings)}; take another --out")
    return settings


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _path(plugin: object) -> str:
    return f"{type(plugin).__module__}.{type(plugin).__qualname__}"
