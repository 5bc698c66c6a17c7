"""Frozen parameters: left out of training checkpoints, and told apart from those of another base model by a digest."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unirl.errors import UserError

DIGEST = "frozen_parameters_sha256"
"""Key of a training checkpoint that leaves the frozen parameters out: their digest."""


def frozen_names(model: nn.Module) -> list[str]:
    """The names of the parameters that are not trained.

    Args:
        model: A built model.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
        >>> frozen_names(model)
        ['1.weight', '1.bias']
    """
    return [name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors with their names, types and shapes, in hexadecimal. Reads each tensor once.

    Args:
        tensors: By name, in any order.
    """
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def frozen_digest(model: nn.Module) -> str:
    """The digest of the parameters of a model that are not trained.

    Args:
        model: A built model, not sharded.
    """
    names = set(frozen_names(model))
    return digest({name: p for name, p in model.named_parameters(remove_duplicate=False) if name in names})


def exclude_from_state_dict(module: nn.Module, names: Iterable[str]) -> None:
    """Leave parameters out of the state dict of a module. A state dict without them can be loaded.

    Args:
        module: Changed in place.
        names: Of the parameters.

    Example:
        >>> module = nn.Linear(2, 2)
        >>> exclude_from_state_dict(module, ["weight"])
        >>> list(module.state_dict())
        ['bias']
        >>> module.load_state_dict({"bias": torch.zeros(2)})
        <All keys matched successfully>
    """
    excluded = frozenset(names)
    module.register_state_dict_post_hook(partial(_drop, excluded))
    module.register_load_state_dict_post_hook(partial(_expect, excluded))


def check_digest(saved: str | None, current: str | None) -> None:
    """Refuse a checkpoint whose frozen parameters are not those of the model that it is loaded into.

    Args:
        saved: The digest in the checkpoint; None if it holds all parameters.
        current: The digest of the model; None if its checkpoints hold all parameters.

    Raises:
        UserError: the digests differ, or the model would not load such a checkpoint.
    """
    if saved is None or saved == current:
        return
    if current is None:
        raise UserError(
            "the checkpoint was saved without the frozen parameters; set model.exclude_frozen_parameters: true for "
            "this run, too"
        )
    raise UserError(
        "the checkpoint was saved without the frozen parameters, and those of the base model are not the ones it was "
        "trained with; give the base checkpoint, model.lora and model.trainable_modules of that run"
    )


def _drop(names: frozenset[str], module: nn.Module, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    for name in names:
        state_dict.pop(prefix + name, None)


def _expect(names: frozenset[str], module: nn.Module, incompatible_keys: Any) -> None:
    missing = incompatible_keys.missing_keys  # with the prefix of a module that wraps this one, such as an average
    missing[:] = [name for name in missing if name not in names and name.partition(".")[2] not in names]
