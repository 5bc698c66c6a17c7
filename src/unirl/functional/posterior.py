"""Which of several candidate answers is right: likelihood times prior. R answers, C candidates each."""

import torch
from torch import Tensor


def candidate_priors(accepted: Tensor, prior: float, num_alternatives: int = 5, mask: Tensor | None = None) -> Tensor:
    """Prior probability of each candidate, before the image is looked at.

    Accepted candidates share `prior`. The rest is shared by `num_alternatives` other answers, or by the candidates that
    are not accepted where these are more; what belongs to answers that are no candidates is left out, so that a row
    need not add up to 1. Where no candidate is accepted, all are alike.

    Args:
        accepted: Which candidates agree with what the image was meant to show.
        prior: Probability that the right answer is among the accepted ones, in (0, 1].
        num_alternatives: Number of other answers that are possible, whether they are candidates or not.
        mask: True for candidates, False for padding, whose prior is 0. None has no padding.

    Shapes:
        accepted and mask (R, C) bool; returns (R, C), float32.

    Example:
        >>> candidate_priors(torch.tensor([[True, False, False]]), 0.5, num_alternatives=5).tolist()
        [[0.5, 0.10000000149011612, 0.10000000149011612]]
    """
    mask = torch.ones_like(accepted) if mask is None else mask
    accepted, others = accepted & mask, ~accepted & mask
    num_accepted, num_others = accepted.sum(-1, keepdim=True), others.sum(-1, keepdim=True)
    shares = accepted * (prior / num_accepted.clamp(min=1).float())
    shares = shares + others * ((1 - prior) / num_others.clamp(min=num_alternatives).float())
    alike = mask / mask.sum(-1, keepdim=True).clamp(min=1).float()
    return torch.where(num_accepted > 0, shares, alike)


def posterior(log_likelihoods: Tensor, priors: Tensor) -> Tensor:
    """Posterior probability of each candidate, by Bayes' rule among the candidates.

    Args:
        log_likelihoods: Log-likelihood of each candidate, in nats.
        priors: Prior probability of each, up to a factor; 0 for padding.

    Shapes:
        both (R, C); returns (R, C), float32; each row adds up to 1.

    Example:
        >>> log_likelihoods = torch.tensor([[0.2, 0.8]]).log()
        >>> [round(p, 3) for p in posterior(log_likelihoods, torch.tensor([[0.5, 0.1]]))[0].tolist()]
        [0.556, 0.444]
    """
    return (log_likelihoods.float() + priors.float().log()).softmax(-1)
