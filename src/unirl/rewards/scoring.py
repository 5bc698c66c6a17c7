"""Scoring samples with several rewards, and validation of what the rewards return."""

import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache
from importlib.metadata import entry_points, packages_distributions, version
from typing import Any

import torch
from torch import Tensor

from unirl.errors import UserError, check_plugin
from unirl.functional import group_advantages
from unirl.hooks import PROJECT
from unirl.plugin_outputs import find_mismatch, plain
from unirl.rewards.base import Reward, reaches
from unirl.rewards.timeout import time_limit
from unirl.types import Answers, Example, Images, cloned

FAILURES = (Exception, SystemExit)
"""What is reported as a failure of a reward; a reward that exits would otherwise end the run without an error."""


def score(
    rewards: Sequence[Reward],
    examples: Sequence[Example],
    images: Images,
    answers: Answers,
    accept_threshold: float | None = None,
    timeout: float | None = None,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Score samples with all rewards. Each gets copies, which it may change in place.

    Args:
        rewards: The rewards, at least one.
        examples: One for each sample.
        images: The generated images; with pixels where a reward needs them.
        answers: The answers about them, B x k rows, see `unirl.question_rows`.
        accept_threshold: Least weighted sum of an accepted sample. None leaves it to the rewards, see
            `accepted_samples`.
        timeout: Seconds that each reward may take. None sets no limit.

    Returns:
        The weighted sums, the scores of each reward by name, and which samples are accepted.

    Shapes:
        returns (B,), (B,) by name, and (B,) bool.

    Raises:
        UserError: a reward failed, took too long, or returned another number of scores, scores that are not finite, or
            a tensor on another device.

    Example:
        >>> from unirl.rewards import Keyword
        >>> ids = torch.zeros(1, 1, dtype=torch.long)
        >>> answers, example = Answers(ids, ids.bool(), ["two cups"]), Example("", "", "two cups", "counting")
        >>> total, parts, accepted = score([Keyword(weight=2.0)], [example], Images(ids), answers)
        >>> total.tolist(), parts["keyword"].tolist(), accepted.tolist()
        ([2.0], [1.0], [True])
    """
    check_plugin("rewards", rewards, Reward, is_list=True)
    parts: dict[str, Tensor] = {}
    k = len(answers) // len(examples)
    first = answers if k == 1 else answers[::k]
    for name, reward in zip(unique_names(rewards), rewards, strict=True):
        with time_limit(timeout, _describe(reward)):
            values = _call(reward, examples, images, answers if reward.all_questions else first)
        parts[name] = _check_scores(reward, values, examples, first)
    total = torch.stack([r.weight * part for r, part in zip(rewards, parts.values(), strict=True)]).sum(0)
    if not torch.isfinite(total).all():
        raise UserError("the rewards are finite, and their weighted sum is not; take smaller weights")
    if accept_threshold is not None:
        return total, parts, reaches(total, accept_threshold)
    return total, parts, accepted_samples(rewards, examples, parts)


def unique_names(rewards: Sequence[Reward]) -> list[str]:
    """The names of rewards, by which their scores are known; one that is there already gets a number.

    Args:
        rewards: In the order of the config.

    Example:
        >>> from unirl.rewards import Keyword
        >>> unique_names([Keyword(), Keyword()])
        ['keyword', 'keyword_1']
    """
    names: list[str] = []
    for reward in rewards:
        names.append(reward.name if reward.name not in names else f"{reward.name}_{len(names)}")
    return names


def accepted_samples(rewards: Sequence[Reward], examples: Sequence[Example], parts: Mapping[str, Tensor]) -> Tensor:
    """Which samples are accepted by all rewards that have a positive weight and give a verdict.

    Where none of them gives a verdict, a sample needs a score of 1 from each.

    Args:
        rewards: As given to `score`.
        examples: One for each sample.
        parts: The scores of each reward.

    Shapes:
        returns (B,) bool.

    Raises:
        UserError: `accepts` of a reward failed, or returned something else than a boolean tensor or None.
    """
    positive = [(r, part) for r, part in zip(rewards, parts.values(), strict=True) if r.weight > 0]
    accepted = [a for r, part in positive if (a := _accepts(r, examples, part)) is not None]
    accepted = accepted or [reaches(part, 1.0) for _, part in positive]
    if not accepted:  # penalties only
        return torch.zeros(len(examples), dtype=torch.bool, device=next(iter(parts.values())).device)
    return torch.stack(accepted).all(0)


def normalized_rewards(
    rewards: Sequence[Reward], parts: Mapping[str, Tensor], group_size: int, weights: Tensor | None = None
) -> Tensor | None:
    """The weighted sum of the rewards with those that ask for it standardized within groups.

    Args:
        rewards: As given to `score`.
        parts: The scores of each reward.
        group_size: Samples of each prompt.
        weights: Weight of each sample in the mean and standard deviation of its group.

    Returns:
        None where no reward asks for it.

    Shapes:
        weights (B,); returns (B,) or None.
    """
    if not any(reward.standardize for reward in rewards):
        return None
    values = [
        group_advantages(part, group_size, weights=weights) if reward.standardize else part
        for reward, part in zip(rewards, parts.values(), strict=True)
    ]
    return torch.stack([r.weight * value for r, value in zip(rewards, values, strict=True)]).sum(0)


def _call(reward: Reward, examples: Sequence[Example], images: Images, answers: Answers) -> object:
    try:
        return reward.score(list(examples), cloned(images), cloned(answers))
    except FAILURES as error:
        sample = _first_failing_sample(reward, examples, images, answers)
        hint = _pixels_hint(reward, examples, images, answers)
        raise UserError(f"{_failure(reward, error)}{hint}; {sample}. Earlier checkpoints are intact") from error


def _failure(reward: Reward, error: BaseException) -> str:
    if isinstance(error, UserError):
        return f"{_describe(reward)}: {error}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{_describe(reward)} failed with {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"


class _WithoutPixels(Images):
    """Images that record whether their missing pixels are read."""

    def __getattribute__(self, name: str) -> Any:
        if name == "pixels":
            object.__setattr__(self, "was_read", True)
        return super().__getattribute__(name)


def _pixels_hint(reward: Reward, examples: Sequence[Example], images: Images, answers: Answers) -> str:
    if reward.needs_pixels or images.pixels is not None:
        return ""
    values = {field.name: getattr(images, field.name) for field in fields(images)}
    recorded = _WithoutPixels(**values)
    with suppress(*FAILURES):
        reward.score(examples, recorded, answers)
    decoded = "it reads images.pixels, which are decoded only if its class sets needs_pixels = True"
    return f"; {decoded}" if hasattr(recorded, "was_read") else ""


def _first_failing_sample(reward: Reward, examples: Sequence[Example], images: Images, answers: Answers) -> str:
    k = len(answers) // len(examples)
    for i, example in enumerate(examples):
        own = slice(i * k, i * k + min(k, len(example.questions)))
        try:
            reward.score([example], cloned(images[i : i + 1]), cloned(answers[own]))
        except FAILURES:
            return f"the first sample it fails on: prompt {example.prompt!r}, answer {answers.text[own.start]!r}"
    return "it fails on no single sample"


def _check_scores(reward: Reward, values: object, examples: Sequence[Example], answers: Answers) -> Tensor:
    first = f"the first sample: prompt {examples[0].prompt!r}, answer {answers.text[0]!r}"
    mismatch = find_mismatch(values, (len(examples),), answers.ids.device)
    if mismatch is not None or not isinstance(values, Tensor):
        raise UserError(f"{_describe(reward)} returned {mismatch}; {first}")
    scores = plain(values).float()  # numbers beyond its range become infinite
    bad = (~torch.isfinite(scores)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"{_describe(reward)} returned {values[bad[0]].item()} for {len(bad)} of {len(examples)} samples; "
            f"the first: prompt {examples[bad[0]].prompt!r}, answer {answers.text[bad[0]]!r}. "
            "Rewards must be finite in float32"
        )
    return scores


def _accepts(reward: Reward, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
    try:
        accepted: object = reward.accepts(list(examples), scores.clone())
    except FAILURES as error:
        first = f"in accepts; the first sample: prompt {examples[0].prompt!r}, score {scores[0].item():g}"
        raise UserError(f"{_failure(reward, error)} {first}. Earlier checkpoints are intact") from error
    if accepted is None:
        return None
    mismatch = find_mismatch(accepted, tuple(scores.shape), scores.device, is_bool=True)
    if mismatch is not None or not isinstance(accepted, Tensor):
        raise UserError(f"{_describe(reward)}: accepts returned {mismatch}; where it has no verdict, return None")
    return plain(accepted)


def _describe(reward: Reward) -> str:
    return f"reward {reward.name!r} ({distribution_of(reward)})"


def distribution_of(value: object) -> str:
    """Name and version of the distribution that an object's class comes from, such as "lightning-unirl 0.1.0".

    Args:
        value: Any object.

    Example:
        >>> distribution_of(torch.zeros(1)).startswith("torch ")
        True
    """
    module = type(value).__module__
    return _distribution(module.partition(".")[0]) or f"module {module}"


@cache
def _distribution(package: str) -> str | None:
    """Name and version of the distribution of a package. Every step asks for those of its rewards."""
    # Entry points come first: editable installs are missing from the map of packages.
    for entry in entry_points(group=PROJECT):
        if entry.module.partition(".")[0] == package and entry.dist is not None and entry.dist.name:
            return f"{entry.dist.name} {entry.dist.version}"
    names = [name for name in packages_distributions().get(package, ()) if name]
    return f"{names[0]} {version(names[0])}" if names else None
