"""Weights of a checkpoint folder, in every form they come in. Shared by all backbones."""

import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from unirl.backbones.files import read_json, reason
from unirl.errors import UserError

WEIGHT_NAMES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pt",
)
UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError)
"""What reading a broken file of weights raises."""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder: safetensors or weights-only pickles, in one file or in shards.

    Raises:
        UserError: no weights, or a file that is truncated.
    """
    weights: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        try:
            part = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        except FileNotFoundError:
            raise UserError(f"{folder}: the shard {file.name} is missing; download it again") from None
        except UNREADABLE as error:
            raise _unreadable(file, error) from None
        weights.update(part)
    return weights


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} cannot be read ({reason(error)}); it is truncated or broken, download it again")


def tensor_names(folder: Path) -> set[str]:
    """The names of a checkpoint folder's tensors, none of which is read; of none where it holds no weights.

    Raises:
        UserError: an index of shards or a file is broken.
    """
    names: set[str] = set()
    for file in _weight_files(folder) if has_weights(folder) else ():
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as tensors:
                    names.update(tensors.keys())
            else:
                names.update(torch.load(file, "meta", weights_only=True))
        except UNREADABLE as error:
            raise _unreadable(file, error) from None
    return names


def has_weights(folder: Path) -> bool:
    """Whether a checkpoint folder names weights that are all there; none is read.

    Raises:
        UserError: an index of shards is broken.
    """
    if not any((folder / f"{name}{end}").is_file() for name in WEIGHT_NAMES for end in ("", ".index.json")):
        return False
    return all(file.is_file() for file in _weight_files(folder))


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict):
                raise UserError(f"{index} has no weight_map that names the shards; download it again")
            return sorted({folder / shard for shard in shards.values()})
    raise UserError(f"{folder} holds no weights; expected one of: {', '.join(WEIGHT_NAMES)}, or their shards")


def load_exactly(module: torch.nn.Module, weights: dict[str, Tensor], where: Path, ignore: Iterable[str] = ()) -> None:
    """Load weights; every parameter must be there, with its shape, and nothing may be left over.

    Args:
        module: Receives the weights; may be on the meta device.
        weights: Tensors by name.
        where: For the error message.
        ignore: Beginnings of names that may be left over.

    Raises:
        UserError: naming the first tensor that does not fit.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in weights]
    extra = [name for name in weights if name not in wanted and not name.startswith(tuple(ignore))]
    wrong = [n for n, w in wanted.items() if n in weights and weights[n].shape != w.shape]
    if wrong:
        got, expected = tuple(weights[wrong[0]].shape), tuple(wanted[wrong[0]].shape)
        raise UserError(f"{where}: {wrong[0]} has shape {got}, but config.json makes it {expected}; they do not belong")
    if missing or extra:
        kind, names = ("lacks", missing) if missing else ("has unknown", extra)
        raise UserError(f"{where}: the checkpoint {kind} {names[0]} ({len(names)} such tensors); wrong checkpoint?")
    module.load_state_dict({name: weights[name] for name in wanted}, assign=True)
