"""Exporting the backbone of a training checkpoint in its public format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from unirl.backbones import Backbone
from unirl.backbones.checkpoints import load_exactly
from unirl.backbones.frozen import DIGEST, check_digest, digest
from unirl.backbones.lora import LoRA, add_adapters, merged
from unirl.backbones.sampling_config import SamplingConfig
from unirl.checkpoint.integrity import find_corruption
from unirl.checkpoint.io import replace_folder
from unirl.checkpoint.resume import corrupt_message, partial_path
from unirl.checkpoint.sharded import META, sharded_weights
from unirl.errors import UserError
from unirl.hooks.arguments import PluginArgument, resolve
from unirl.types import AnswerSampling, ImageSampling

PREFIX = "backbone."
"""What the names of the backbone's tensors start with in a checkpoint."""


def export(ckpt: Path, config: Path, out: Path) -> None:
    """Write the backbone of a checkpoint with `save_pretrained`. LoRA adapters are merged into the weights.

    The sampling settings of the run's validation are written beside them.

    Args:
        ckpt: A file, or the folder of a sharded checkpoint.
        config: The config of the run that saved it.
        out: A folder that is empty or does not exist. It appears when everything is written.

    Raises:
        UserError: the checkpoint is corrupt, or does not fit the model of the config.
    """
    weights = backbone_weights(ckpt)
    backbone: Any = _build_backbone(config)
    _add_excluded(weights, backbone, ckpt)
    load_exactly(backbone, weights, ckpt)
    partial = partial_path(out)
    backbone.sampling_config = _read_sampling_config(config)
    with merged(backbone):
        backbone.save_pretrained(partial)
    backbone.sampling_config.save_pretrained(partial)  # a plugin may leave it out
    if out.exists():
        out.rmdir()
    replace_folder(partial, out)


def backbone_weights(ckpt: Path) -> dict[str, Tensor]:
    """The tensors of the backbone in a checkpoint, by name.

    Args:
        ckpt: A file, or the folder of a sharded checkpoint.

    Raises:
        UserError: the checkpoint is corrupt, holds more than data, or has no backbone.
    """
    if (problem := find_corruption(ckpt)) is not None:
        raise UserError(corrupt_message(ckpt, problem, "--ckpt"))
    if ckpt.is_dir():
        state_dict: Mapping[str, Tensor] = sharded_weights(ckpt)
    else:
        state_dict = torch.load(ckpt, "cpu", weights_only=True, mmap=True).get("state_dict", {})
    weights = {name.removeprefix(PREFIX): value for name, value in state_dict.items() if name.startswith(PREFIX)}
    if not weights:
        raise UserError(f"{ckpt} holds no backbone; give a checkpoint that `unirl fit` saved")
    return weights


def _add_excluded(weights: dict[str, Tensor], backbone: Backbone, ckpt: Path) -> None:
    """Add parameters that the checkpoint leaves out (`exclude_frozen_parameters`), from the backbone."""
    rest = torch.load(ckpt / META if ckpt.is_dir() else ckpt, "cpu", weights_only=True, mmap=True)
    if (saved := rest.get(DIGEST)) is not None:
        parameters = dict(backbone.named_parameters(remove_duplicate=False))
        excluded = {name: parameter for name, parameter in parameters.items() if name not in weights}
        check_digest(saved, digest(excluded))
        weights |= excluded


def _read_sampling_config(config: Path) -> SamplingConfig:
    """The settings of a run's validation, as `SelfImprovement.sampling_config`."""
    model = _read_model(config)
    rollout, evaluation = model.get("rollout") or {}, model.get("evaluation") or {}
    images = evaluation.get("image_sampling") or rollout.get("image_sampling") or {}
    answers = (rollout.get("answer_sampling") or {}) | {"temperature": 0.0}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--image_sampling", type=ImageSampling)
    parser.add_argument("--answer_sampling", type=AnswerSampling)
    options = {"image_sampling": images, "answer_sampling": answers}
    instances = parser.instantiate(parser.parse_object(options))
    return SamplingConfig(instances.image_sampling, instances.answer_sampling)


def _read_model(config: Path) -> dict[str, Any]:
    """The section `model` of a run's config, whose backbone is given."""
    try:
        model: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]
        model["backbone"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{config} is not the config of a run ({reason}); name it with --config") from None
    return model


def _build_backbone(config: Path) -> Backbone:
    """The backbone of a config, with its adapters and its initial weights."""
    model = _read_model(config)
    options = {"backbone": model["backbone"], "lora": model.get("lora")}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--backbone", type=Backbone)
    parser.add_argument("--lora", type=LoRA | None)
    options["backbone"] = resolve(options["backbone"], PluginArgument("backbone"))
    instances = parser.instantiate(parser.parse_object(options))
    backbone: Backbone = instances.backbone
    backbone.build()
    if instances.lora is not None:
        add_adapters(backbone, instances.lora)
    return backbone
