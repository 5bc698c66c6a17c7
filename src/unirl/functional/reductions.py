"""Means over what counts."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values under a mask, or weighted; 0 where all weights are 0.

    Shapes:
        values and mask, bool or weights from 0 on, of one shape; returns a scalar.

    Example:
        >>> import torch
        >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])).item()
        2.0
    """
    return (values * mask).sum() / mask.sum().clamp(min=1e-9)


def zero_loss(model: nn.Module) -> Tensor:
    """A loss of 0 that reaches every trainable parameter: with several processes, each must go backwards through all.

    Example:
        >>> nothing(nn.Linear(2, 2)).item()
        0.0
    """
    shares = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters() if p.requires_grad]
    return torch.stack([share.sum() * 0 for share in shares]).sum()
