"""Which drawings of a group are compared, and what a comparison costs."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Variant = Literal["sigmoid", "ipo"]
"""DPO's logistic loss, or IPO's squared one."""
Pairing = Literal["extremes", "all"]
"""Best against worst of each group, or all pairs of it that differ enough."""
ROUNDING = 1e-6
"""How far below a margin a difference may lie, for scores are sums of floats."""


def preference_loss(gaps: Tensor, beta: float, variant: Variant = "sigmoid", label_smoothing: float = 0.0) -> Tensor:
    """The loss of each pair.

    Args:
        gaps: `(lp_w - ref_w) - (lp_l - ref_l)`: how much more than the reference the policy prefers the winner, nats.
        beta: How closely the policy is held to the reference; above 0.
        variant: "sigmoid": `-log sigmoid(beta * gap)`. "ipo": `(gap - 1 / (2 * beta))^2`.
        label_smoothing: The chance that a pair is the wrong way round (cDPO); of "sigmoid" only.

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
    right, wrong = F.logsigmoid(beta * gaps), F.logsigmoid(-beta * gaps)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def preference_pairs(
    scores: Tensor, group_size: int, pairing: Pairing = "extremes", margin: float = 0.0, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Pairs of a better and a worse sample of one group, as indices of samples.

    Samples that scored alike are no pair. Of several that are best or worst alike, "extremes" takes the first.

    Args:
        scores: One number a sample.
        group_size: Samples of a prompt.
        pairing: Which pairs.
        margin: Least difference of their scores.
        weights: How much each sample counts; those of weight 0 are in no pair.

    Shapes:
        scores and weights (B,); returns winners (P,) and losers (P,), in order of their groups.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.0, 1.0, 0.5, 1.0, 1.0, 1.0])
        >>> [rows.tolist() for rows in preference_pairs(scores, 3)]
        [[1], [0]]
        >>> [rows.tolist() for rows in preference_pairs(scores, 3, "all")]
        [[1, 1, 2], [0, 2, 0]]
    """
    groups = scores.view(-1, group_size)
    kept = torch.ones_like(groups, dtype=torch.bool) if weights is None else weights.view(-1, group_size) > 0
    high, low = groups.masked_fill(~kept, -torch.inf), groups.masked_fill(~kept, torch.inf)
    if pairing == "all":
        group, winner, loser = _differ(high.unsqueeze(2) - low.unsqueeze(1), margin).nonzero(as_tuple=True)
    else:
        group = _differ(high.amax(1) - low.amin(1), margin).nonzero().flatten()
        winner, loser = high.argmax(1)[group], low.argmin(1)[group]
    return group * group_size + winner, group * group_size + loser


def _differ(better_by: Tensor, margin: float) -> Tensor:
    return (better_by > 0) & (better_by >= margin - ROUNDING)


def pair_weights(winners: Tensor, losers: Tensor, group_size: int, weights: Tensor) -> Tensor:
    """How much each pair counts: the product of its samples' weights, shared among the pairs of its group.

    Args:
        winners: Indices of samples.
        losers: Likewise.
        group_size: Samples of a prompt.
        weights: How much each sample counts.

    Shapes:
        winners and losers (P,), weights (B,); returns (P,).

    Example:
        >>> import torch
        >>> winners, losers = torch.tensor([0, 0, 4]), torch.tensor([1, 2, 3])
        >>> pair_weights(winners, losers, 3, torch.ones(6)).tolist()
        [0.5, 0.5, 1.0]
    """
    group = winners // group_size
    return weights[winners] * weights[losers] / group.bincount()[group]


def best_samples(scores: Tensor, group_size: int, allowed: Tensor) -> Tensor:
    """The best of the allowed samples of each group that has any, the first of several; as indices of samples.

    Args:
        scores: One number a sample.
        group_size: Samples of a prompt.
        allowed: Which samples may be taken.

    Shapes:
        scores (B,), allowed (B,) bool; returns (at most B / group_size,).

    Example:
        >>> import torch
        >>> allowed = torch.tensor([False, True, True, False, False, False])
        >>> best_samples(torch.tensor([3.0, 1.0, 2.0, 0.0, 0.0, 0.0]), 3, allowed).tolist()
        [2]
    """
    candidates = allowed.view(-1, group_size)
    best = scores.view(-1, group_size).masked_fill(~candidates, -torch.inf).argmax(1)
    group = candidates.any(1).nonzero().flatten()
    return group * group_size + best[group]
