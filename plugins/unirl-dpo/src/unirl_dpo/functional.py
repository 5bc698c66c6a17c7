"""Preference pairs within groups, and their loss."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Variant = Literal["sigmoid", "ipo"]
"""The logistic loss of DPO, or the squared loss of IPO."""
Pairing = Literal["extremes", "all"]
"""The best and the worst sample of each group, or all pairs of a group with different scores."""
ROUNDING = 1e-6
"""Tolerance of comparisons with a margin, since scores are sums of floats."""


def preference_loss(gaps: Tensor, beta: float, variant: Variant = "sigmoid", label_smoothing: float = 0.0) -> Tensor:
    """Preference loss of each pair.

    Args:
        gaps: Log-ratio of policy and reference of the chosen sample minus that of the rejected one, in nats.
        beta: Strength of the regularization to the reference, above 0.
        variant: "sigmoid": `-log sigmoid(beta * gap)`. "ipo": `(gap - 1 / (2 * beta))^2`.
        label_smoothing: Assumed probability that a pair is in the wrong order (cDPO). For "sigmoid" only.

    Shapes:
        gaps (P,); returns (P,).

    Source: DPO, Rafailov et al. 2023 (arXiv 2305.18290), equation 7; IPO, Azar et al. 2023 (arXiv 2310.12036),
        equation 17; cDPO, Mitchell 2023, "A note on DPO with noisy preferences".

    Example:
        >>> import torch
        >>> [round(loss, 4) for loss in preference_loss(torch.tensor([0.0, 10.0]), beta=0.1).tolist()]
        [0.6931, 0.3133]
        >>> preference_loss(torch.tensor([0.0, 5.0]), beta=0.1, variant="ipo").tolist()
        [25.0, 0.0]
    """
    if variant == "ipo":
        return (gaps - 1 / (2 * beta)).square()
    in_order, reversed_order = F.logsigmoid(beta * gaps), F.logsigmoid(-beta * gaps)
    return -(1 - label_smoothing) * in_order - label_smoothing * reversed_order


def preference_pairs(
    scores: Tensor, group_size: int, pairing: Pairing = "extremes", margin: float = 0.0, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Pairs of a chosen and a rejected sample of the same group, as indices of samples.

    Samples of equal scores are no pair. Of several best or worst samples, "extremes" takes the first.

    Args:
        scores: One number for each sample.
        group_size: Samples of each prompt.
        pairing: Which pairs.
        margin: Least difference of their scores.
        weights: Weight of each sample; samples of weight 0 are in no pair. None weighs all alike.

    Shapes:
        scores and weights (B,); returns chosen (P,) and rejected (P,), in the order of their groups.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.0, 1.0, 0.5, 1.0, 1.0, 1.0])
        >>> [rows.tolist() for rows in preference_pairs(scores, 3)]
        [[1], [0]]
        >>> [rows.tolist() for rows in preference_pairs(scores, 3, "all")]
        [[1, 1, 2], [0, 2, 0]]
    """
    groups = scores.view(-1, group_size)
    included = torch.ones_like(groups, dtype=torch.bool) if weights is None else weights.view(-1, group_size) > 0
    high, low = groups.masked_fill(~included, -torch.inf), groups.masked_fill(~included, torch.inf)
    if pairing == "all":
        group, chosen, rejected = _is_pair(high.unsqueeze(2) - low.unsqueeze(1), margin).nonzero(as_tuple=True)
    else:
        group = _is_pair(high.amax(1) - low.amin(1), margin).nonzero().flatten()
        chosen, rejected = high.argmax(1)[group], low.argmin(1)[group]
    return group * group_size + chosen, group * group_size + rejected


def _is_pair(difference: Tensor, margin: float) -> Tensor:
    return (difference > 0) & (difference >= margin - ROUNDING)


def pair_weights(chosen: Tensor, rejected: Tensor, group_size: int, weights: Tensor) -> Tensor:
    """Weight of each pair: the product of the weights of its samples, divided by the number of pairs of its group.

    Args:
        chosen: Indices of the chosen samples.
        rejected: Indices of the rejected samples.
        group_size: Samples of each prompt.
        weights: Weight of each sample.

    Shapes:
        chosen and rejected (P,), weights (B,); returns (P,).

    Example:
        >>> import torch
        >>> chosen, rejected = torch.tensor([0, 0, 4]), torch.tensor([1, 2, 3])
        >>> pair_weights(chosen, rejected, 3, torch.ones(6)).tolist()
        [0.5, 0.5, 1.0]
    """
    group = chosen // group_size
    return weights[chosen] * weights[rejected] / group.bincount()[group]


def best_samples(scores: Tensor, group_size: int, candidates: Tensor) -> Tensor:
    """The best candidate of each group that has any, as indices of samples. Of several, the first is taken.

    Args:
        scores: One number for each sample.
        group_size: Samples of each prompt.
        candidates: Which samples may be taken.

    Shapes:
        scores (B,), candidates (B,) bool; returns (at most B / group_size,).

    Example:
        >>> import torch
        >>> candidates = torch.tensor([False, True, True, False, False, False])
        >>> best_samples(torch.tensor([3.0, 1.0, 2.0, 0.0, 0.0, 0.0]), 3, candidates).tolist()
        [2]
    """
    groups = candidates.view(-1, group_size)
    best = scores.view(-1, group_size).masked_fill(~groups, -torch.inf).argmax(1)
    group = groups.any(1).nonzero().flatten()
    return group * group_size + best[group]
