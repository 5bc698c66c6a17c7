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
    found: Any = value
    if isinstance(found, Tensor):
        return found.to(device)  # type: ignore[return-value]
    if isinstance(found, dict):
        return {name: moved(inner, device) for name, inner in found.items()}  # type: ignore[return-value]
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return [moved(inner, device) for inner in found]  # type: ignore[return-value]
    if isinstance(found, Images | Answers | Rollout):
        return replace(found, **{f.name: moved(getattr(found, f.name), device) for f in fields(found)})  # type: ignore
    return value
