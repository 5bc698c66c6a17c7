"""Policy-gradient terms of single decisions, and how decisions are averaged."""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["sample", "token"]
"""Mean over samples of each sample's mean (GRPO), or mean over all decisions of the batch (DAPO)."""


def clipped_objective(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """What PPO maximises for each decision: the smaller of the plain and the clipped ratio times the advantage.

    Args:
        log_ratio: Log-probability now minus that of the policy that decided, nats.
        advantages: How much better than expected each sample was.
        low: How far below 1 a ratio may go.
        high: How far above 1; more than `low` lets unlikely decisions grow (DAPO, arXiv 2503.14476).

    Shapes:
        log_ratio (B, A), advantages (B,); returns (B, A).

    Source: Schulman et al. 2017 (arXiv 1707.06347), equation 7.

    Example:
        >>> clipped_objective(torch.tensor([[2.0], [0.5]]).log(), torch.tensor([1.0, -1.0]), 0.2, 0.3).tolist()
        [[1.2999999523162842], [-0.800000011920929]]
    """
    ratio, gain = log_ratio.exp(), advantages.unsqueeze(1)
    return torch.minimum(ratio * gain, ratio.clamp(1 - low, 1 + high) * gain)


def clip_ratio(log_ratio: Tensor, weights: Tensor, low: float, high: float) -> Tensor:
    """Weighted share of the decisions whose ratio lies outside the clipping range.

    Args:
        log_ratio: Log-probability now minus that of the policy that sampled, nats.
        weights: Of the decisions.
        low: The range begins at 1 - low.
        high: The range ends at 1 + high.

    Shapes:
        log_ratio and weights (B, A); returns a scalar in [0, 1].

    Example:
        >>> clip_ratio(torch.tensor([[0.0, 1.0]]), torch.ones(1, 2), 0.2, 0.2).item()
        0.5
    """
    ratio = log_ratio.exp()
    outside = (ratio < 1 - low) | (ratio > 1 + high)
    return (outside * weights).sum() / weights.sum().clamp(min=1e-9)


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) at each decision that the policy took; never negative, 0 where they agree.

    Args:
        log_probs: Of the policy, nats.
        reference: Of the reference, nats.

    Source: Schulman 2020, "Approximating KL divergence"; GRPO (arXiv 2402.03300), equation 4.

    Example:
        >>> k3(torch.tensor([-1.0]), torch.tensor([-1.0])).item()
        0.0
    """
    difference = reference - log_probs
    return difference.exp() - difference - 1


def decision_weights(mask: Tensor, reduction: Reduction, typical: Tensor | None = None) -> Tensor:
    """Weights of the decisions, so that `(values * weights).sum(1).mean()` is the reduction asked for.

    Args:
        mask: Which decisions count.
        reduction: Mean over samples, or over all decisions.
        typical: How many decisions a sample of the batch has on average, where the mask is of some of its samples.

    Shapes:
        mask (B, A) bool, typical a scalar; returns (B, A).

    Example:
        >>> mask = torch.tensor([[True, True, True], [True, False, False]])
        >>> decision_weights(mask, "sample").sum(1).tolist(), decision_weights(mask, "token").sum(1).tolist()
        ([1.0, 1.0], [1.5, 0.5])
    """
    counts = mask.sum(1, keepdim=True).float()
    typical = counts.mean() if typical is None else typical
    return mask / (counts if reduction == "sample" else typical).clamp(min=1)


def geometric_mean(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Geometric mean of the probabilities of each sample's decisions: long samples are no less likely than short ones.

    Args:
        log_probs: Of the decisions, nats.
        mask: Which of them count.

    Shapes:
        log_probs and mask (B, A); returns (B,), in [0, 1].

    Example:
        >>> mask = torch.tensor([[True, True, False]])
        >>> round(geometric_mean(torch.tensor([[0.1, 0.4, 0.5]]).log(), mask).item(), 4)
        0.2
    """
    return (log_probs * decision_weights(mask, "sample")).sum(1).exp()
