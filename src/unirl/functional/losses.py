"""Means over what counts."""

from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is true; 0 where it is true nowhere.

    Shapes:
        values and mask of one shape; returns a scalar.

    Example:
        >>> import torch
        >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])).item()
        2.0
    """
    return (values * mask).sum() / mask.sum().clamp(min=1)
