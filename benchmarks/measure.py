"""Times both ways alternately, in one process, and checks that both compute the same."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

import plain
import torch
from sizes import ANSWERS, GUIDANCE, SEED, STEPS, TOKENS, Case
from torch import Tensor
from work import matmul_flops_per_second, plain_step_flops, step_flops

from unirl.sampling.masked import sample_masked
from unirl.types import Answers, AnswerSampling, Images, ImageSampling

T = TypeVar("T")
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Environment in which the C library returns freed memory, so that the peak of a process is that of its tensors."""


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Measured:
    """Results of a model size. Each ratio compares runs that follow each other, so a busy machine slows both.

    Args:
        step: Seconds of a guided denoising step: plain loop, UniRL.
        step_ratio: How many times faster UniRL is.
        answers: Seconds of all answers: plain loop, UniRL.
        answers_ratio: How many times faster UniRL is.
        busy: Share of a large matmul's FLOP/s reached in generation: plain loop, UniRL.
        logits_difference: Largest difference of the first step's guided logits.
        same_answers: Whether all compared answers agree in every token.
    """

    step: tuple[Spread, Spread]
    step_ratio: Spread
    answers: tuple[Spread, Spread]
    answers_ratio: Spread
    busy: tuple[Spread, Spread]
    logits_difference: float
    same_answers: bool


@torch.no_grad()
def measure(case: Case, repeats: int) -> Measured:
    """Measure a size. The logits are compared first, which also warms up both ways."""
    difference, same, peaks = logits_difference(case), True, []
    steps: tuple[list[float], list[float]] = ([], [])
    answers: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        peaks.append(matmul_flops_per_second())
        steps[0].append(timed(lambda: generate_plainly(case))[0] / case.plain_steps)
        steps[1].append(timed(lambda: generate(case))[0] / STEPS)
        rows = (torch.arange(case.plain_answers) + repeat * case.plain_answers) % ANSWERS
        slow, expected = timed(partial(answer_plainly, case, rows))
        fast, own = timed(lambda: answer(case))
        answers[0].append(slow * ANSWERS / case.plain_answers)
        answers[1].append(fast)
        same &= torch.equal(own.ids[rows], expected)
    busy = (shares(plain_step_flops(case), steps[0], peaks), shares(step_flops(case), steps[1], peaks))
    return Measured(*compared(*steps), *compared(*answers), busy, difference, same)


def generate(case: Case) -> Images:
    """UniRL's images: the text pass and all steps."""
    sampling = ImageSampling(STEPS, GUIDANCE)
    return case.backbone.sample_images(case.prompts, sampling, torch.Generator().manual_seed(SEED))


def generate_plainly(case: Case) -> Tensor:
    """The plain loop's images, with the same sampler and the number of steps of the case."""
    logits = plain.generation_logits(case.backbone, case.prompts, GUIDANCE)
    blank = torch.zeros(len(case.prompts), case.backbone.config.num_vq_tokens, dtype=torch.long)
    sampling = ImageSampling(case.plain_steps, GUIDANCE)
    return sample_masked(logits, blank, sampling, torch.Generator().manual_seed(SEED)).codes


def answer(case: Case) -> Answers:
    """UniRL's answers, all at once."""
    return case.backbone.sample_answers(Images(case.codes), case.questions, AnswerSampling(TOKENS))


def answer_plainly(case: Case, rows: Tensor) -> Tensor:
    """The plain loop's answers to some of the questions, one at a time."""
    return plain.answers(case.backbone, case.codes[rows], [case.questions[row] for row in rows], TOKENS)


def logits_difference(case: Case) -> float:
    """Largest difference between both ways of the guided logits of the first step."""
    prefix = case.backbone.prompt_prefix(case.prompts, GUIDANCE)
    ways = (
        case.backbone._guided_logits(prefix, GUIDANCE),
        plain.generation_logits(case.backbone, case.prompts, GUIDANCE),
    )
    blank = torch.zeros(len(case.prompts), case.backbone.config.num_vq_tokens, dtype=torch.long)
    own, other = (way(blank, blank.bool()) for way in ways)
    return (own - other).abs().max().item()


def timed(run: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def compared(plain_seconds: list[float], own: list[float]) -> tuple[tuple[Spread, Spread], Spread]:
    ratios = [a / b for a, b in zip(plain_seconds, own, strict=True)]
    return (Spread.of(plain_seconds), Spread.of(own)), Spread.of(ratios)


def shares(flops: float, seconds: list[float], peaks: list[float]) -> Spread:
    return Spread.of([flops / s / peak for s, peak in zip(seconds, peaks, strict=True)])
