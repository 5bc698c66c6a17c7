"""From a checkpoint of training to the public format of its backbone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from unirl.backbones import Backbone
from unirl.backbones.checkpoints import load_exactly
from unirl.backbones.lora import LoRA, add_adapters, merged
from unirl.checkpoint.integrity import find_corruption
from unirl.checkpoint.io import partial_path, replace_folder
from unirl.checkpoint.resume import corrupt_message
from unirl.checkpoint.sharded import sharded_weights
from unirl.errors import UserError
from unirl.hooks.arguments import PluginArgument, resolve

PREFIX = "backbone."


def export(ckpt: Path, config: Path, out: Path) -> None:
    """Write the backbone of a checkpoint as `save_pretrained` does; adapters are merged into its weights.

    Args:
        ckpt: A file, or the folder of a sharded checkpoint.
        config: Of the run that saved it.
        out: Not there, or empty; it appears when all is written.

    Raises:
        UserError: the checkpoint is broken, or is not of the model that the config describes.
    """
    weights = backbone_weights(ckpt)
    backbone: Any = _built(config)
    load_exactly(backbone, weights, ckpt)
    part = partial_path(out)
    with merged(backbone):
        backbone.save_pretrained(part)
    if out.exists():
        out.rmdir()
    replace_folder(part, out)


def backbone_weights(ckpt: Path) -> dict[str, Tensor]:
    """The backbone's tensors in a checkpoint, by name.

    Args:
        ckpt: A file, or the folder of a sharded checkpoint.

    Raises:
        UserError: it is broken, holds more than data, or has no backbone in it.
    """
    if (why := find_corruption(ckpt)) is not None:
        raise UserError(corrupt_message(ckpt, why))
    if ckpt.is_dir():
        found: Mapping[str, Tensor] = sharded_weights(ckpt)
    else:
        found = torch.load(ckpt, "cpu", weights_only=True, mmap=True).get("state_dict", {})
    weights = {name.removeprefix(PREFIX): value for name, value in found.items() if name.startswith(PREFIX)}
    if not weights:
        raise UserError(f"{ckpt} holds no backbone; give a checkpoint that `unirl fit` saved")
    return weights


def _built(config: Path) -> Backbone:
    """The backbone that a config describes, with its adapters; its weights are those it began with."""
    try:
        options = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]
        given = {"backbone": options["backbone"], "lora": options.get("lora")}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{config} is no config of a run ({said}); name it with --config") from None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--backbone", type=Backbone)
    parser.add_argument("--lora", type=LoRA | None)
    given["backbone"] = resolve(given["backbone"], PluginArgument("backbone", many=False))
    made = parser.instantiate_classes(parser.parse_object(given))
    made.backbone.build()
    if made.lora is not None:
        add_adapters(made.backbone, made.lora)
    built: Backbone = made.backbone
    return built
