"""Whether the weights in a checkpoint are those of a model: their names and shapes, without reading them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from torch import nn

from unirl.checkpoint.sharded import META, is_sharded_checkpoint, tensor_sizes
from unirl.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of tensors by name."""
ADAPTER = ".lora_A."
"""In the name of the first matrix of an adapter, whose rows are its rank."""
STATES = "optimizer_states"


def read_rest(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds besides the tensors of a sharded one, whose bytes are not read; None if it is broken.

    Args:
        path: A file, or the folder of a sharded checkpoint.
    """
    try:
        return dict(torch.load(path / META if path.is_dir() else path, "cpu", weights_only=True, mmap=True))
    except Exception:  # a damaged file can fail in any way; `find_corruption` says what is wrong
        return None


def check_strategy(path: Path, strategy: Strategy) -> None:
    """Refuse a sharded checkpoint where the strategy cannot load it.

    Args:
        path: A file, or the folder of a sharded checkpoint.
        strategy: Of the trainer.

    Raises:
        UserError: says which one can.
    """
    if is_sharded_checkpoint(path) and not isinstance(strategy, ModelParallelStrategy | FSDPStrategy):
        raise UserError(
            f"{path} is a sharded checkpoint, and {type(strategy).__name__} loads single files only; set "
            f"trainer.strategy: fsdp2, or write its model with unirl export --ckpt {path} --out FOLDER"
        )


def check_weights(path: Path, checkpoint: Mapping[str, Any], module: nn.Module, training: bool = True) -> None:
    """Refuse a checkpoint of another model.

    Args:
        path: A file, or the folder of a sharded checkpoint.
        checkpoint: What `read_rest` returned.
        module: The LightningModule, built; also on the meta device.
        training: Whether optimizer states are loaded, too.

    Raises:
        UserError: names or shapes of tensors differ.
    """
    sharded = is_sharded_checkpoint(path)
    saved = tensor_sizes(path) if sharded else _shapes(checkpoint.get("state_dict", {}))
    current = _shapes(module.state_dict())
    excluded = {name for name, _ in module.named_parameters(remove_duplicate=False)} - current.keys()
    lacking = [name for name in current if name not in saved]
    unknown = [name for name in saved if name not in current and name not in excluded]
    other = [name for name in current if name in saved and saved[name] != current[name]]
    if not (lacking or unknown or other):
        if training and not sharded:
            _check_trained(path, checkpoint, module)
        return
    counts = {
        f"lacks {len(lacking)} tensors of this run's model": lacking,
        f"has {len(unknown)} that this model does not have": unknown,
        f"has {len(other)} of another shape": other,
    }
    found = [f"{text}, such as {names[0]}" for text, names in counts.items() if names]
    raise UserError(f"checkpoint {path} is of another model: it {', '.join(found)}; {_advice(saved, current)}")


def _check_trained(path: Path, checkpoint: Mapping[str, Any], module: nn.Module) -> None:
    """An optimizer knows its parameters by their order only."""
    groups = [group for state in checkpoint.get(STATES, []) for group in state["param_groups"]]
    saved, trained = [len(group["params"]) for group in groups], sum(p.requires_grad for p in module.parameters())
    if len(groups) == 1 and saved != [trained]:  # a callback may have added others
        raise UserError(
            f"checkpoint {path} has optimizer states of {saved[0]} parameters, and this run trains {trained}; give the "
            "model.trainable_modules and model.lora of its run"
        )


def _advice(saved: Shapes, current: Shapes) -> str:
    """What to set, where it is the adapters that differ."""
    before, now = _rank(saved), _rank(current)
    if before == now:
        return "give the model.backbone of its run"
    if before is None:
        return "it has no adapters: set model.lora: null"
    return f"its adapters are of rank {before}: give the model.lora of its run"


def _rank(shapes: Shapes) -> int | None:
    return next((shape[0] for name, shape in shapes.items() if ADAPTER in name), None)


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    named: Iterable[tuple[str, Any]] = tensors.items()
    return {name: tuple(value.shape) for name, value in named if isinstance(value, torch.Tensor)}
