"""Gumbel noise, and the straight-through Gumbel-softmax of codes that were sampled before."""

import torch
from torch import Tensor

from unirl.functional.seeding import draw_rows


def gumbel(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise, float32.

    Args:
        like: Gives the shape and the device. Images are its first dimension where some of a batch are scored.
        generator: The only source of randomness.

    Shapes:
        returns the shape of `like`.

    Example:
        >>> gumbel(torch.zeros(2, 3), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """

    def draw(rows: int, source: torch.Generator | None) -> Tensor:
        return torch.rand(rows, *like.shape[1:], generator=source, device=like.device, dtype=torch.float32)

    uniform = draw_rows(draw, len(like), generator)
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


def conditional_gumbel(logits: Tensor, codes: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gumbel noise from its posterior, given that `logits + noise` is largest at `codes`.

    The maximum of the perturbed logits is Gumbel distributed around their log-sum-exp, independent of its index. The
    others are Gumbel distributed, truncated at the maximum (Maddison et al. 2014, arXiv 1411.0030).

    Args:
        logits: Unnormalized log-probabilities of K codes.
        codes: The codes that were sampled from them.
        generator: The only source of randomness.

    Shapes:
        logits (..., K), codes (...); returns (..., K), float32.

    Example:
        >>> logits = torch.zeros(1, 4)
        >>> (logits + conditional_gumbel(logits, torch.tensor([2]))).argmax().item()
        2
    """
    logits = logits.float()
    maximum = gumbel(logits[..., :1], generator) + logits.logsumexp(-1, keepdim=True)
    unconditional = gumbel(logits, generator) + logits
    truncated = -torch.logaddexp(-unconditional, -maximum)
    is_code = torch.zeros_like(logits).scatter(-1, codes.unsqueeze(-1), 1.0) > 0
    return torch.where(is_code, maximum, truncated) - logits


def straight_through(
    logits: Tensor, codes: Tensor, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """Sampled codes as one-hot vectors with the gradient of `softmax((logits + noise) / temperature)`.

    Args:
        logits: The logits that the codes were sampled from.
        codes: The codes.
        temperature: Temperature of the softmax, above 0. Smaller values are closer to one-hot and have gradients of
            higher variance.
        generator: The only source of randomness.

    Shapes:
        logits (..., K), codes (...); returns (..., K), float32, exactly one-hot in the forward pass.

    Source: Jang et al. 2017 (arXiv 1611.01144); UniRL (arXiv 2505.23380) for end-to-end SFT.

    Example:
        >>> logits = torch.zeros(1, 3, requires_grad=True)
        >>> straight_through(logits, torch.tensor([1]), 1.0).tolist()
        [[0.0, 1.0, 0.0]]
    """
    logits = logits.float()
    with torch.no_grad():
        noise = conditional_gumbel(logits, codes, generator)
    soft = ((logits + noise) / temperature).softmax(-1)
    hard = torch.zeros_like(soft).scatter(-1, codes.unsqueeze(-1), 1.0)
    return hard + (soft - soft.detach())
