"""Autoregressive decoding of image codes, one after another, with classifier-free guidance."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unirl.functional.seeding import draw_rows


@dataclass(frozen=True)
class SampledCodes:
    """The result of autoregressive decoding.

    Args:
        codes: Sampled codes.
        log_probs: Log-probability of each code given the codes before it, nats.

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
    """Sample codes one after another. Nothing in the loop waits for the device.

    Args:
        step: `(embeddings, uniforms) -> (next embeddings, codes, log-probabilities)`: one code of each image, from the
            embeddings of its last token. Keeps its own key-value cache. See `sample_inverse_cdf`.
        start: Embeddings of the token before the first code.
        length: Number of codes of an image.
        uniforms: Random numbers in [0, 1), from `sample_uniforms`.

    Shapes:
        start (R, D), uniforms (length, B); R is B, or 2 B with guidance.
    """
    embeds, codes, log_probs = start, [], []
    for i in range(length):
        embeds, code, log_prob = step(embeds, uniforms[i])
        codes.append(code)
        log_probs.append(log_prob)
    return SampledCodes(torch.stack(codes, 1), torch.stack(log_probs, 1))


def sample_inverse_cdf(logits: Tensor, temperature: float, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """One code of each row by inverse transform sampling, and its log-probability.

    Its randomness is one uniform number for each code, which can be an input of a compiled step.

    Args:
        logits: Logits of all codes, guidance already applied.
        temperature: Divides the logits. 0 takes the most likely code, with its log-probability at temperature 1.
        uniforms: Random numbers in [0, 1).

    Shapes:
        logits (B, K), uniforms (B,); returns codes (B,) int64 and log-probabilities (B,), nats.

    Example:
        >>> logits = torch.tensor([[0.25, 0.75]]).log()
        >>> [sample_inverse_cdf(logits, 1.0, torch.tensor([u]))[0].item() for u in (0.2, 0.3)]
        [0, 1]
    """
    log_probs = (logits.float() / (temperature or 1.0)).log_softmax(-1)
    if temperature == 0:
        code = log_probs.argmax(-1, keepdim=True)
    else:
        total = log_probs.exp().cumsum(-1)
        code = torch.searchsorted(total, uniforms[:, None] * total[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)
    return code.squeeze(1), log_probs.gather(1, code).squeeze(1)


def sample_uniforms(length: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """The random numbers of `sample_codes`, (length, batch), in [0, 1)."""

    def draw(rows: int, source: torch.Generator | None) -> Tensor:
        return torch.rand(length, rows, generator=source, dtype=torch.float32, device=device).T

    return draw_rows(draw, batch, generator).T.contiguous()


def guide(cond: Tensor, uncond: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, `(1 + w) * cond - w * uncond`, in float32.

    Source: Ho & Salimans 2022 (arXiv 2207.12598).
    """
    return torch.lerp(uncond.float(), cond.float(), 1 + guidance)
