"""Masked parallel decoding: sample all codes at once, keep the confident ones, sample the others again.

Source: Chang et al. 2022 (MaskGIT, arXiv 2202.04200) as Show-o uses it (Xie et al. 2024, arXiv 2408.12528).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unirl.functional.gumbel import gumbel
from unirl.functional.seeding import draw_rows, multinomial
from unirl.types import ImageSampling


@dataclass(frozen=True)
class MaskedSample:
    """The result of masked decoding.

    Args:
        codes: Sampled codes.
        log_probs: Log-probability of each code in the step that unmasked it, nats.
        steps: The step that unmasked each code, counted from 1.

    Shapes:
        each (B, N).
    """

    codes: Tensor
    log_probs: Tensor
    steps: Tensor


def cosine_schedule(length: int, steps: int) -> list[int]:
    """How many codes are still masked after each step.

    Args:
        length: Number of codes.
        steps: Number of denoising steps.

    Example:
        >>> cosine_schedule(16, 4)
        [14, 11, 6, 0]
    """
    masked, schedule = length, []
    for step in range(1, steps):
        masked = max(1, min(masked - 1, math.floor(length * math.cos(math.pi / 2 * step / steps))))
        schedule.append(masked)
    return [*schedule, 0]


@torch.no_grad()
def sample_masked(
    logits: Callable[[Tensor, Tensor], Tensor],
    blank: Tensor,
    sampling: ImageSampling,
    generator: torch.Generator | None = None,
) -> MaskedSample:
    """Sample codes in parallel, all of them masked at first.

    Args:
        logits: `(codes, known) -> (B, N, K)`: logits of all codes, given those that are known, which is (B, N) bool.
        blank: Any codes; gives shape and device of the result.
        sampling: Steps, temperature and confidence noise.
        generator: The only source of randomness.

    Shapes:
        blank (B, N) int64.
    """
    codes, known = blank, torch.zeros_like(blank, dtype=torch.bool)
    unmasked_log_probs = torch.zeros(blank.shape, dtype=torch.float32, device=blank.device)
    steps, noise = torch.zeros_like(blank), sampling.confidence_noise
    for step, num_masked in enumerate(cosine_schedule(blank.shape[1], sampling.steps), start=1):
        sampled, log_probs = _sample_codes(logits(codes, known).float() / sampling.temperature, generator)
        noise *= 1 - step / sampling.steps  # cumulative, as in the public sampler
        confidence = (log_probs + noise * gumbel(log_probs, generator)).masked_fill(known, math.inf)
        unmasked = ~known
        if num_masked:
            unmasked = unmasked.scatter(1, confidence.topk(num_masked, dim=1, largest=False).indices, False)
        codes = torch.where(unmasked, sampled, codes)
        unmasked_log_probs = torch.where(unmasked, log_probs, unmasked_log_probs)
        steps = steps.masked_fill(unmasked, step)
        known = known | unmasked
    return MaskedSample(codes, unmasked_log_probs, steps)


def _sample_codes(logits: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """One code at each position from its own distribution, and its log-probability."""
    log_probs = logits.log_softmax(-1)
    codes = multinomial(log_probs.exp(), generator)
    return codes, log_probs.gather(-1, codes.unsqueeze(-1)).squeeze(-1)


def choose_steps(
    length: int, steps: int, scored_steps: int | None, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """A random subset of the denoising steps that unmask a code, ascending, counted from 1.

    The first step is chosen with a probability proportional to the number of codes that it unmasks, the others
    uniformly. The mean over the codes of the chosen steps is then an unbiased estimate of the mean over all codes,
    although steps unmask different numbers of codes.

    Args:
        length: Number of codes.
        steps: Steps of the sampler; where there are more steps than codes, some of them unmask none.
        scored_steps: How many to choose, without replacement; None chooses all.
        generator: The only source of randomness.
        device: Of the generator and the result.

    Source: Midzuno 1952, "On the sampling system with probability proportionate to sum of sizes".

    Example:
        >>> choose_steps(16, 3, None, None, torch.device("cpu")).tolist()
        [1, 2, 3]
    """
    num_masked = torch.tensor([length, *cosine_schedule(length, steps)], device=device)
    num_unmasked = -num_masked.diff()
    candidates = num_unmasked.nonzero().flatten() + 1
    if scored_steps is None or scored_steps >= len(candidates):
        return candidates
    first = num_unmasked[candidates - 1].float().multinomial(1, generator=generator)
    order = torch.randperm(len(candidates), generator=generator, device=device)
    chosen = torch.cat((first, order[order != first][: scored_steps - 1]))
    return candidates[chosen.sort().values]


def random_contexts(
    batch: int,
    length: int,
    steps: int,
    generator: torch.Generator | None,
    device: torch.device,
    per_image: int = 1,
) -> tuple[Tensor, Tensor]:
    """Contexts of a sampler in random order: the codes that are known before a uniformly chosen step.

    Args:
        batch: Number of contexts.
        length: Number of codes.
        steps: Denoising steps of the schedule.
        generator: The only source of randomness. A `RowGenerator` gives the contexts of some images of a batch.
        device: Of the generator and the results.
        per_image: Contexts of each image; the first contexts of all images come first.

    Shapes:
        returns the known codes (B, N) bool, and (B,): how many codes the step unmasks, relative to the mean step.

    Example:
        >>> known, weights = random_contexts(3, 16, 4, torch.Generator().manual_seed(0), torch.device("cpu"))
        >>> known.sum(1).tolist(), weights.tolist()
        ([0, 10, 2], [0.5, 1.5, 0.75])
    """
    num_masked = torch.tensor([length, *cosine_schedule(length, steps)], device=device)

    def draw_steps(count: int, source: torch.Generator | None) -> Tensor:
        return torch.randint(steps, (count,), generator=source, device=device)

    def draw_noise(count: int, source: torch.Generator | None) -> Tensor:
        return torch.rand(count, length, generator=source, dtype=torch.float32, device=device)

    step = draw_rows(draw_steps, batch, generator, per_image)
    rank = draw_rows(draw_noise, batch, generator, per_image).argsort(1).argsort(1)
    known = rank >= num_masked[step, None]
    return known, (num_masked[step] - num_masked[step + 1]).float() * steps / length
