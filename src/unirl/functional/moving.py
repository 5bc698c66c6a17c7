"""Values that travel, from one device to another."""

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from unirl.types import Answers, Images, Rollout

T = TypeVar("T")


def moved(value: T, device: torch.device) -> T:
    """Any of these values with all its tensors on a device.

    Example:
        >>> answers = Answers(torch.zeros(1, 2), torch.ones(1, 2), ["a circle"])
        >>> moved(answers, torch.device("meta")).ids.device.type
        'meta'
    """
    result: Any = _moved(value, device)
    return result


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(inner, device) for name, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_moved(inner, device) for inner in value]
    if isinstance(value, Images | Answers | Rollout):
        return replace(value, **{f.name: _moved(getattr(value, f.name), device) for f in fields(value)})
    return value
