"""Masked parallel decoding: draw all codes at once, keep the confident ones, draw the rest again.

Source: Chang et al. 2022 (MaskGIT, arXiv 2202.04200) as Show-o uses it (Xie et al. 2024, arXiv 2408.12528).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unirl.functional.gumbel import gumbel
from unirl.types import ImageSampling


@dataclass(frozen=True)
class MaskedSample:
    """What masked decoding drew.

    Args:
        codes: The codes.
        log_probs: Log-probability of each code in the step that fixed it, nats.
        steps: Number of the step that fixed each code, from 1.

    Shapes:
        each (B, N).
    """

    codes: Tensor
    log_probs: Tensor
    steps: Tensor


def unknown_after(length: int, steps: int) -> list[int]:
    """How many codes are still unknown after each step of the cosine schedule.

    Args:
        length: Number of codes.
        steps: Number of denoising steps.

    Example:
        >>> unknown_after(16, 4)
        [14, 11, 6, 0]
    """
    unknown, plan = length, []
    for step in range(1, steps):
        unknown = max(1, min(unknown - 1, math.floor(length * math.cos(math.pi / 2 * step / steps))))
        plan.append(unknown)
    return [*plan, 0]


@torch.no_grad()
def sample_masked(
    logits: Callable[[Tensor, Tensor], Tensor],
    blank: Tensor,
    sampling: ImageSampling,
    generator: torch.Generator | None = None,
) -> MaskedSample:
    """Draw codes in parallel, from nothing.

    Args:
        logits: `(codes, known) -> (B, N, K)`: logits of all codes, given those that are known so far.
        blank: Any codes; shape and device of the result.
        sampling: Steps, temperature and confidence noise.
        generator: The only source of randomness.

    Shapes:
        blank (B, N) int64.
    """
    codes, known = blank, torch.zeros_like(blank, dtype=torch.bool)
    fixed_log_probs = torch.zeros(blank.shape, device=blank.device)
    steps, noise = torch.zeros_like(blank), sampling.confidence_noise
    for step, unknown in enumerate(unknown_after(blank.shape[1], sampling.steps), start=1):
        drawn, log_probs = _draw(logits(codes, known).float() / sampling.temperature, generator)
        noise *= 1 - step / sampling.steps  # cumulative, as the public sampler does it
        confidence = (log_probs + noise * gumbel(log_probs, generator)).masked_fill(known, math.inf)
        fixed = ~known
        if unknown:
            fixed = fixed.scatter(1, confidence.topk(unknown, dim=1, largest=False).indices, False)
        codes = torch.where(fixed, drawn, codes)
        fixed_log_probs = torch.where(fixed, log_probs, fixed_log_probs)
        steps = steps.masked_fill(fixed, step)
        known = known | fixed
    return MaskedSample(codes, fixed_log_probs, steps)


def _draw(logits: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """One code per position from its own distribution, and the log-probability of it."""
    log_probs = logits.log_softmax(-1)
    drawn = torch.multinomial(log_probs.exp().flatten(0, 1), 1, generator=generator).view(logits.shape[:-1])
    return drawn, log_probs.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)


def choose_steps(
    length: int, steps: int, scored: int | None, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Numbers of the denoising steps to score, of those that fix a code, ascending.

    The first of them is chosen by how many codes a step fixes, the others with equal chance. So a mean over the codes
    of the chosen steps is in expectation the mean over all codes, though steps fix unequally many of them.

    Args:
        length: Number of codes.
        steps: Steps of the sampler; where they are more than the codes, some of them fix none.
        scored: How many to choose, without replacement; None chooses all.
        generator: The only source of randomness.
        device: Of the generator and the result.

    Source: Midzuno 1952, "On the sampling system with probability proportionate to sum of sizes".

    Example:
        >>> choose_steps(16, 3, None, None, torch.device("cpu")).tolist()
        [1, 2, 3]
    """
    left = torch.tensor([length, *unknown_after(length, steps)], device=device)
    fixed = -left.diff()
    fixing = fixed.nonzero().flatten() + 1
    if scored is None or scored >= len(fixing):
        return fixing
    first = fixed[fixing - 1].float().multinomial(1, generator=generator)
    order = torch.randperm(len(fixing), generator=generator, device=device)
    chosen = torch.cat((first, order[order != first][: scored - 1]))
    return fixing[chosen.sort().values]


def random_contexts(
    batch: int, length: int, steps: int, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Contexts that a sampler in random order meets: a step of the schedule by chance, and what is known before it.

    Args:
        batch: How many.
        length: Number of codes.
        steps: Denoising steps of the schedule.
        generator: The only source of randomness.
        device: Of the generator and the results.

    Shapes:
        returns what is known (B, N) bool, and (B,): how many codes the step fixes, relative to an average step.

    Example:
        >>> known, weights = random_contexts(3, 16, 4, torch.Generator().manual_seed(0), torch.device("cpu"))
        >>> known.sum(1).tolist(), weights.tolist()
        ([0, 10, 2], [0.5, 1.5, 0.75])
    """
    left = torch.tensor([length, *unknown_after(length, steps)], device=device)
    step = torch.randint(steps, (batch,), generator=generator, device=device)
    rank = torch.rand(batch, length, generator=generator, device=device).argsort(1).argsort(1)
    known = rank >= left[step, None]
    return known, (left[step] - left[step + 1]) * steps / length
