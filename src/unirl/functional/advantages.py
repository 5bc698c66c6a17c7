"""A sample beside the others of its group."""

import torch
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


def group_std(values: Tensor, group_size: int) -> Tensor:
    """Standard deviation of each group; 0 for groups of one sample.

    Args:
        values: One number for each sample, prompt-major.
        group_size: Samples of a prompt.

    Shapes:
        values (B,); returns (B / group_size,).

    Example:
        >>> import torch
        >>> group_std(torch.tensor([0.0, 2.0, 4.0, 4.0]), 2).tolist()
        [1.4142135381698608, 0.0]
    """
    return values.view(-1, group_size).std(1, correction=min(1, group_size - 1))


def zero_variance_groups(scores: Tensor, group_size: int, weights: Tensor | None = None) -> Tensor:
    """Whether all samples of a group scored alike, to the last bit: the mean of equals may differ from them.

    Args:
        scores: One number a sample.
        group_size: Samples of a prompt.
        weights: How much each sample counts; those of weight 0 are not looked at.

    Shapes:
        scores and weights (B,); returns (B / group_size,) bool.

    Example:
        >>> import torch
        >>> zero_variance_groups(torch.tensor([0.1, 0.1, 0.0, 1.0]), 2).tolist()
        [True, False]
        >>> zero_variance_groups(torch.tensor([0.0, 1.0, 1.0]), 3, torch.tensor([0.0, 1.0, 0.5])).tolist()
        [True]
    """
    groups = scores.view(-1, group_size)
    looked_at = torch.ones_like(groups, dtype=torch.bool) if weights is None else weights.view(-1, group_size) > 0
    first = groups.gather(1, looked_at.int().argmax(1, keepdim=True))
    return ((groups == first) | ~looked_at).all(1)


def group_advantages(
    scores: Tensor,
    group_size: int,
    normalize: bool = True,
    epsilon: float = 1e-4,
    weights: Tensor | None = None,
) -> Tensor:
    """How much better each sample is than its group; exactly 0 where all of the group that counts scored alike.

    Args:
        scores: One number a sample.
        group_size: Samples of a prompt.
        normalize: Divide by the group's standard deviation (GRPO, arXiv 2402.03300); otherwise the difference from the
            mean as it is (Dr. GRPO, arXiv 2503.20783).
        epsilon: Added to the standard deviation.
        weights: How much each sample counts in its group's mean and deviation; all alike by default.

    Shapes:
        scores and weights (B,); returns (B,).

    Example:
        >>> import torch
        >>> group_advantages(torch.tensor([0.0, 1.0, 3.0, 3.0]), 2, normalize=False).tolist()
        [-0.5, 0.5, 0.0, 0.0]
    """
    groups = scores.view(-1, group_size)
    shares = torch.ones_like(groups) if weights is None else weights.view(-1, group_size)
    counts = shares.sum(1, keepdim=True).clamp(min=1e-9)
    better = groups - (groups * shares).sum(1, keepdim=True) / counts
    if normalize:
        many = counts.square() / shares.square().sum(1, keepdim=True).clamp(min=1e-9)  # samples that count, in effect
        variance = (better.square() * shares).sum(1, keepdim=True) / counts
        bessel = many / (many - 1).clamp(min=1e-9)  # as in the plain deviation
        better = better / ((variance * bessel).sqrt() + epsilon)
    return better.masked_fill(zero_variance_groups(scores, group_size, weights)[:, None], 0.0).flatten()
