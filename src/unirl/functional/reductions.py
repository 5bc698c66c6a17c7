"""Means under a mask, and a loss of 0."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values under a mask, or weighted mean. 0 where all weights are 0.

    Args:
        values: Numbers.
        mask: True for values that count, or weights of 0 or more.

    Shapes:
        values and mask of the same shape; returns a scalar.

    Example:
        >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])).item()
        2.0
    """
    return (values.float() * mask).sum() / mask.sum().float().clamp(min=1e-9)


def zero_loss(model: nn.Module) -> Tensor:
    """A loss of 0 whose gradient, 0 too, reaches every trainable parameter.

    DDP and FSDP wait for a gradient of each parameter on every rank: add it to losses that may be computed from none of
    a rank's samples.

    Args:
        model: With at least one trainable parameter.

    Shapes:
        returns a scalar.

    Example:
        >>> zero_loss(nn.Linear(2, 2)).item()
        0.0
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if any(isinstance(p, DTensor) for p in trainable):  # their missing gradients are filled after the backward pass
        return torch.zeros((), dtype=torch.float32, device=trainable[0].device, requires_grad=True)
    return torch.stack([p.sum() * 0 for p in trainable]).sum()
