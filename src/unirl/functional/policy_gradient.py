"""Policy-gradient terms of single decisions. B samples, A decisions each: image codes, or tokens of an answer."""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["sample", "token"]
"""How decisions are averaged: "sample" is the mean over samples of each sample's mean (GRPO, arXiv 2402.03300), "token"
the mean over all decisions of the batch (DAPO, arXiv 2503.14476)."""


def clipped_objective(log_ratio: Tensor, advantages: Tensor, epsilon_low: float, epsilon_high: float) -> Tensor:
    """PPO's clipped surrogate objective of each decision, to be maximized.

    Args:
        log_ratio: Log-probability under the current policy minus that under the policy that sampled, in nats.
        advantages: Advantage of each sample.
        epsilon_low: The ratio is clipped below 1 - epsilon_low.
        epsilon_high: The ratio is clipped above 1 + epsilon_high. More than `epsilon_low` lets unlikely decisions gain
            probability (DAPO, arXiv 2503.14476).

    Shapes:
        log_ratio (B, A), advantages (B,); returns (B, A).

    Source: Schulman et al. 2017 (arXiv 1707.06347), equation 7.

    Example:
        >>> clipped_objective(torch.tensor([[2.0], [0.5]]).log(), torch.tensor([1.0, -1.0]), 0.2, 0.3).tolist()
        [[1.2999999523162842], [-0.800000011920929]]
    """
    ratio, advantages = log_ratio.float().exp(), advantages.float().unsqueeze(1)
    return torch.minimum(ratio * advantages, ratio.clamp(1 - epsilon_low, 1 + epsilon_high) * advantages)


def clip_ratio(
    log_ratio: Tensor, weights: Tensor, epsilon_low: float, epsilon_high: float, total: Tensor | None = None
) -> Tensor:
    """Weighted share of the decisions whose probability ratio is outside of the clipping range.

    Args:
        log_ratio: Log-probability under the current policy minus that under the policy that sampled, in nats.
        weights: Weight of each decision, 0 or more.
        epsilon_low: The range begins at 1 - epsilon_low.
        epsilon_high: The range ends at 1 + epsilon_high.
        total: Sum of the weights. Defaults to that of `weights`; give that of all samples where these are some of them,
            so that the results add up.

    Shapes:
        log_ratio and weights (B, A), total a scalar; returns a scalar in [0, 1].

    Example:
        >>> clip_ratio(torch.tensor([[0.0, 1.0]]), torch.ones(1, 2), 0.2, 0.2).item()
        0.5
    """
    ratio = log_ratio.float().exp()
    outside = (ratio < 1 - epsilon_low) | (ratio > 1 + epsilon_high)
    weights = weights.float()
    total = weights.sum() if total is None else total
    return (outside * weights).sum() / total.clamp(min=1e-9)


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """The k3 estimate of KL(policy || reference) at each decision sampled from the policy. Never negative.

    Args:
        log_probs: Log-probabilities under the policy, in nats.
        reference: Log-probabilities of the same decisions under the reference, in nats.

    Shapes:
        both (B, A); returns (B, A).

    Source: Schulman 2020, "Approximating KL divergence"; GRPO (arXiv 2402.03300), equation 4.

    Example:
        >>> k3(torch.tensor([-1.0]), torch.tensor([-1.0])).item()
        0.0
    """
    difference = reference.float() - log_probs.float()
    return difference.exp() - difference - 1


def decision_weights(mask: Tensor, reduction: Reduction, mean_length: Tensor | None = None) -> Tensor:
    """Weights of the decisions, with which `(values * weights).sum(1).mean()` is the chosen reduction.

    Args:
        mask: True for decisions that count.
        reduction: Mean over samples, or over all decisions.
        mean_length: Mean number of decisions of a sample of the batch, for "token". Defaults to that of `mask`; give it
            where `mask` has some samples of the batch only.

    Shapes:
        mask (B, A) bool, mean_length a scalar; returns (B, A).

    Example:
        >>> mask = torch.tensor([[True, True, True], [True, False, False]])
        >>> decision_weights(mask, "sample").sum(1).tolist(), decision_weights(mask, "token").sum(1).tolist()
        ([1.0, 1.0], [1.5, 0.5])
    """
    lengths = mask.sum(1, keepdim=True).float()
    mean_length = lengths.mean() if mean_length is None else mean_length
    return mask / (lengths if reduction == "sample" else mean_length).clamp(min=1)


def geometric_mean(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Geometric mean of the probabilities of each sample's decisions, which does not depend on their number.

    Args:
        log_probs: Log-probability of each decision, in nats.
        mask: True for decisions that count.

    Shapes:
        log_probs and mask (B, A); returns (B,), in [0, 1].

    Example:
        >>> mask = torch.tensor([[True, True, False]])
        >>> round(geometric_mean(torch.tensor([[0.1, 0.4, 0.5]]).log(), mask).item(), 4)
        0.2
    """
    return (log_probs.float() * decision_weights(mask, "sample")).sum(1).exp()
