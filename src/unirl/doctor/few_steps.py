"""Sampling in few steps, for measuring memory: the steps of a sampler are alike, and need not all be computed."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones import Backbone
from unirl.sampling.autoregressive import SampledCodes, sample_codes
from unirl.sampling.kv_cache import Prefix
from unirl.sampling.masked import MaskedSample, sample_masked
from unirl.sampling.text import sample_answers
from unirl.types import AnswerSampling, ImageSampling

STEPS = 2
"""Steps that are computed. Each takes the memory that the last one takes: see the functions below."""


@contextmanager
def few_steps(backbone: Backbone) -> Iterator[None]:
    """Within a `with` block, few steps of our samplers are computed where a backbone calls them.

    Args:
        backbone: Its samples have no meaning meanwhile.
    """
    samplers = {sample_codes: _sample_codes, sample_answers: _sample_answers, sample_masked: _sample_masked}
    with ExitStack() as stack:
        for module in {sys.modules[kind.__module__] for kind in type(backbone).__mro__}:
            for original, shorter in samplers.items():
                name = original.__name__
                if getattr(module, name, None) is original:
                    stack.callback(setattr, module, name, original)
                    setattr(module, name, shorter)
        yield


def _sample_codes(step: Any, start: Tensor, length: int, uniforms: Tensor) -> SampledCodes:
    """Caches have their full length from the first code."""
    few = sample_codes(step, start, min(length, STEPS), uniforms)
    codes, log_probs = (part[:, -1:].expand(-1, length).contiguous() for part in (few.codes, few.log_probs))
    return SampledCodes(codes, log_probs)


def _sample_masked(
    logits: Callable[[Tensor, Tensor], Tensor],
    blank: Tensor,
    sampling: ImageSampling,
    generator: torch.Generator | None = None,
) -> MaskedSample:
    """All steps have the same shapes; those after the first ones get logits without computing them."""
    computed = 0

    def few_logits(codes: Tensor, known: Tensor) -> Tensor:
        nonlocal computed
        computed += 1
        if computed <= STEPS:
            few_logits.last = logits(codes, known)  # type: ignore[attr-defined]
        return few_logits.last  # type: ignore[attr-defined]

    return sample_masked(few_logits, blank, sampling, generator)


def _sample_answers(
    model: Any,
    prefix: Prefix,
    questions: Sequence[Sequence[int]],
    sampling: AnswerSampling,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The cache is longest at the last token: questions are as much longer as answers are shorter."""
    skipped = max(0, sampling.max_tokens - STEPS)
    longer = [[*question, *[question[-1]] * skipped] for question in questions]
    few = AnswerSampling(sampling.max_tokens - skipped, sampling.temperature)
    ids, mask, log_probs = sample_answers(model, prefix, longer, few, *rest)
    return F.pad(ids, (0, skipped)), F.pad(mask, (0, skipped), value=True), F.pad(log_probs, (0, skipped))
