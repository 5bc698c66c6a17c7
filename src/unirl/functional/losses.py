"""Means over what counts."""

from torch import Tensor


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
