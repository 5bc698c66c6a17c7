"""A sample beside the others of its group."""

from torch import Tensor


def group_mean(values: Tensor, group_size: int) -> Tensor:
    """Mean of each sample's group, prompt-major.

    Args:
        values: One number a sample.
        group_size: Samples of a prompt.

    Shapes:
        values (B,); returns (B,).

    Example:
        >>> import torch
        >>> group_mean(torch.tensor([0.0, 1.0, 4.0, 4.0]), 2).tolist()
        [0.5, 0.5, 4.0, 4.0]
    """
    return values.view(-1, group_size).mean(1).repeat_interleave(group_size)
