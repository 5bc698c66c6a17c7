"""Autoregressive decoding of image codes: one after another, each under guidance, over a static cache."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampledCodes:
    """What autoregressive decoding drew.

    Args:
        codes: The codes.
        log_probs: Log-probability of each code after those before it, nats.

    Shapes:
        each (B, N).
    """

    codes: Tensor
    log_probs: Tensor


@torch.no_grad()
def sample_codes(
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
    start: Tensor,
    length: int,
    uniforms: Tensor,
) -> SampledCodes:
    """Draw codes one after another. Nothing in the loop waits for the device.

    Args:
        step: `(embeddings, chance) -> (the next embeddings, code, log-probability)`: one code for every picture, from
            the embeddings of what came last; remembers what went before. See `pick`.
        start: Embeddings of what comes before the first code.
        length: How many codes.
        chance: Uniform numbers in [0, 1), drawn before the loop.

    Shapes:
        start (R, 1, D), chance (length, B); R is B, or 2 B under guidance.
    """
    embeds, codes, log_probs = start, [], []
    for i in range(length):
        embeds, code, log_prob = step(embeds, uniforms[i])
        codes.append(code)
        log_probs.append(log_prob)
    return SampledCodes(torch.stack(codes, 1), torch.stack(log_probs, 1))


def sample_inverse_cdf(logits: Tensor, temperature: float, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """One code of each row by the inverse of its cumulative distribution, and its log-probability.

    One uniform number a code is all the chance that it needs, so a captured step can be fed with it.

    Args:
        logits: Of all codes, guided already.
        temperature: Divides the logits; 0 takes the likeliest code, with its log-probability at temperature 1.
        chance: Uniform numbers in [0, 1).

    Shapes:
        logits (B, K), chance (B,); returns (B,) int64 and (B,).

    Example:
        >>> logits = torch.tensor([[0.25, 0.75]]).log()
        >>> pick(logits, 1.0, torch.tensor([0.2]))[0].item(), pick(logits, 1.0, torch.tensor([0.3]))[0].item()
        (0, 1)
    """
    log_probs = (logits.float() / (temperature or 1.0)).log_softmax(-1)
    if temperature == 0:
        code = log_probs.argmax(-1, keepdim=True)
    else:
        total = log_probs.exp().cumsum(-1)
        code = torch.searchsorted(total, uniforms[:, None] * total[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)
    return code.squeeze(1), log_probs.gather(1, code).squeeze(1)


def sample_uniforms(length: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """The chance of a whole drawing, (length, batch), in [0, 1)."""
    return torch.rand(length, batch, generator=generator, device=device)


def guide(cond: Tensor, uncond: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, `(1 + w) * cond - w * uncond`, which is `uncond + (1 + w) * (cond - uncond)`."""
    return torch.lerp(uncond.float(), cond.float(), 1 + guidance)
