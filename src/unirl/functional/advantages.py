"""Statistics of groups: the samples of one prompt. B = prompts x group_size, prompt-major."""

import torch
from torch import Tensor


def group_mean(values: Tensor, group_size: int) -> Tensor:
    """Mean of each group, repeated for each of its samples.

    Args:
        values: One number for each sample.
        group_size: Samples of each prompt.

    Shapes:
        values (B,); returns (B,).

    Example:
        >>> group_mean(torch.tensor([0.0, 1.0, 4.0, 4.0]), 2).tolist()
        [0.5, 0.5, 4.0, 4.0]
    """
    return values.float().view(-1, group_size).mean(1).repeat_interleave(group_size)


def group_std(values: Tensor, group_size: int) -> Tensor:
    """Standard deviation of each group, with Bessel's correction; 0 for groups of one sample.

    Args:
        values: One number for each sample.
        group_size: Samples of each prompt.

    Shapes:
        values (B,); returns (B / group_size,).

    Example:
        >>> group_std(torch.tensor([0.0, 2.0, 4.0, 4.0]), 2).tolist()
        [1.4142135381698608, 0.0]
    """
    return values.float().view(-1, group_size).std(1, correction=min(1, group_size - 1))


def zero_variance_groups(scores: Tensor, group_size: int, weights: Tensor | None = None) -> Tensor:
    """Which groups have equal scores only.

    Scores are compared with each other: the mean of equal floats may differ from them, so that a computed standard
    deviation need not be 0.

    Args:
        scores: One number for each sample.
        group_size: Samples of each prompt.
        weights: Weight of each sample; samples of weight 0 are ignored. None weighs all alike.

    Shapes:
        scores and weights (B,); returns (B / group_size,) bool.

    Example:
        >>> zero_variance_groups(torch.tensor([0.1, 0.1, 0.0, 1.0]), 2).tolist()
        [True, False]
        >>> zero_variance_groups(torch.tensor([0.0, 1.0, 1.0]), 3, torch.tensor([0.0, 1.0, 0.5])).tolist()
        [True]
    """
    groups = scores.view(-1, group_size)
    included = torch.ones_like(groups, dtype=torch.bool) if weights is None else weights.view(-1, group_size) > 0
    first = groups.gather(1, included.int().argmax(1, keepdim=True))
    return ((groups == first) | ~included).all(1)


def group_advantages(
    scores: Tensor,
    group_size: int,
    scale_rewards: bool = True,
    epsilon: float = 1e-4,
    weights: Tensor | None = None,
) -> Tensor:
    """Group relative advantages: the score minus the mean of its group. Exactly 0 in groups of equal scores.

    Args:
        scores: One number for each sample.
        group_size: Samples of each prompt.
        scale_rewards: Divide by the standard deviation of the group (GRPO, arXiv 2402.03300). Off as in Dr. GRPO
            (arXiv 2503.20783).
        epsilon: Added to the standard deviation.
        weights: Weight of each sample in the mean and standard deviation of its group, 0 or more. None weighs all
            alike.

    Shapes:
        scores and weights (B,); returns (B,).

    Example:
        >>> group_advantages(torch.tensor([0.0, 1.0, 3.0, 3.0]), 2, scale_rewards=False).tolist()
        [-0.5, 0.5, 0.0, 0.0]
    """
    groups = scores.float().view(-1, group_size)
    shares = torch.ones_like(groups) if weights is None else weights.float().view(-1, group_size)
    total = shares.sum(1, keepdim=True).clamp(min=1e-9)
    advantages = groups - (groups * shares).sum(1, keepdim=True) / total
    if scale_rewards:
        effective_size = total.square() / shares.square().sum(1, keepdim=True).clamp(min=1e-9)
        variance = (advantages.square() * shares).sum(1, keepdim=True) / total
        bessel = effective_size / (effective_size - 1).clamp(min=1e-9)
        advantages = advantages / ((variance * bessel).sqrt() + epsilon)
    return advantages.masked_fill(zero_variance_groups(scores, group_size, weights)[:, None], 0.0).flatten()
