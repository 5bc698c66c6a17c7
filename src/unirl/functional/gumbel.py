"""Random numbers that come from a given generator."""

import torch
from torch import Tensor


def gumbel(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise of the same shape, device and type.

    Args:
        like: Gives shape, device and type.
        generator: The only source of randomness.
    """
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=torch.float32)
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(like.dtype)


def conditional_gumbel(logits: Tensor, drawn: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gumbel noise from its posterior given that `logits + noise` was largest at `drawn`.

    The maximum of the perturbed logits is Gumbel around their log-sum-exp, whatever its place; all others are Gumbels
    cut off at it (Maddison et al. 2014, arXiv 1411.0030).

    Args:
        logits: Unnormalised log-probabilities.
        drawn: The codes that were sampled from them.
        generator: The only source of randomness.

    Shapes:
        logits (..., K), drawn (...); returns (..., K).

    Example:
        >>> z = torch.zeros(1, 4)
        >>> (z + conditional_gumbel(z, torch.tensor([2]))).argmax().item()
        2
    """
    top = gumbel(logits[..., :1], generator) + logits.logsumexp(-1, keepdim=True)
    free = gumbel(logits, generator) + logits
    cut = -torch.logaddexp(-free, -top)
    perturbed = torch.where(torch.zeros_like(logits).scatter(-1, drawn.unsqueeze(-1), 1.0) > 0, top, cut)
    return perturbed - logits


def straight_through(
    logits: Tensor, drawn: Tensor, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """The drawn codes as one-hot vectors whose gradient is that of `softmax((logits + noise) / temperature)`.

    Source: UniRL (arXiv 2505.23380), SFT end to end; Jang et al. 2017 (arXiv 1611.01144).

    Args:
        logits: What the codes were sampled from.
        drawn: The codes.
        temperature: Of the softmax; smaller is closer to the one-hot and noisier in gradient.
        generator: The only source of randomness.

    Shapes:
        logits (..., K), drawn (...); returns (..., K), exactly one-hot forward.
    """
    with torch.no_grad():
        noise = conditional_gumbel(logits, drawn, generator)
    soft = ((logits + noise) / temperature).softmax(-1)
    hard = torch.zeros_like(soft).scatter(-1, drawn.unsqueeze(-1), 1.0)
    return hard + (soft - soft.detach())
