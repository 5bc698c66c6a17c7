"""Adds rewards up, and refuses numbers that would train something else than the user thinks."""

import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points, packages_distributions, version

import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.functional.advantages import group_advantages
from unirl.hooks import PROJECT
from unirl.rewards.base import Reward, reaches
from unirl.rewards.timeout import time_limit
from unirl.types import Answers, Example, Images

FAILURES = (Exception, SystemExit)
"""What a reward may raise; a reward that exits would end the run as if all were well."""


def score(
    rewards: Sequence[Reward],
    examples: Sequence[Example],
    images: Images,
    answers: Answers,
    accept_threshold: float | None = None,
    timeout: float | None = None,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The weighted sum of all rewards, each by its name, and which samples are accepted as right.

    Args:
        rewards: At least one.
        examples: What was asked for.
        images: What was drawn, with pixels where a reward needs them.
        answers: What was said.
        accept: Least sum of an accepted sample; None leaves it to the rewards, by `verdicts`.
        timeout: Seconds that a reward may take; None for as long as it likes.

    Shapes:
        returns (B,), (B,) by name, and (B,) bool.

    Raises:
        UserError: a reward failed, took too long, or gave the wrong count, numbers that are not finite, or another
            device's tensor.
    """
    parts: dict[str, Tensor] = {}
    for reward in rewards:
        name = reward.name if reward.name not in parts else f"{reward.name}_{len(parts)}"
        with time_limit(timeout, _who(reward)):
            found = _asked(reward, examples, images, answers)
        parts[name] = _checked(reward, found, examples, answers)
    total = torch.stack([r.weight * p for r, p in zip(rewards, parts.values(), strict=True)]).sum(0)
    if not torch.isfinite(total).all():
        raise UserError("the rewards are finite, and their weighted sum is not; take smaller weights")
    return (
        total,
        parts,
        verdicts(rewards, examples, parts) if accept_threshold is None else reaches(total, accept_threshold),
    )


def verdicts(rewards: Sequence[Reward], examples: Sequence[Example], parts: Mapping[str, Tensor]) -> Tensor:
    """Which samples the rewards hold right: those that all accept who can tell.

    Heard are the rewards of positive weight. Where none of them gives verdicts, a sample needs full marks, 1, in each.

    Args:
        rewards: As given to `score`.
        examples: What was asked for.
        parts: Each reward's scores.

    Shapes:
        returns (B,) bool.

    Raises:
        UserError: a reward gave something else than verdicts.
    """
    heard = [(r, p) for r, p in zip(rewards, parts.values(), strict=True) if r.weight > 0]
    given = [verdict for r, p in heard if (verdict := _verdict(r, examples, p)) is not None]
    given = given or [reaches(p, 1.0) for _, p in heard]
    if not given:  # nothing but penalties: they tell what is worse, not what is right
        return torch.zeros(len(examples), dtype=torch.bool, device=next(iter(parts.values())).device)
    return torch.stack(given).all(0)


def normalized_rewards(
    rewards: Sequence[Reward], parts: Mapping[str, Tensor], group_size: int, weights: Tensor | None = None
) -> Tensor | None:
    """What the samples of a group are compared by, where that is not their score; None where it is.

    Args:
        rewards: As given to `score`.
        parts: What `score` returned.
        group_size: Samples of a prompt.
        weights: How much each sample counts.

    Shapes:
        weights (B,); returns (B,) or None.
    """
    if not any(reward.standardize for reward in rewards):
        return None
    standard = [group_advantages(p, group_size, weights=weights) for p in parts.values()]
    chosen = zip(rewards, parts.values(), standard, strict=True)
    return torch.stack([r.weight * (alike if r.standardize else plain) for r, plain, alike in chosen]).sum(0)


def _asked(reward: Reward, examples: Sequence[Example], images: Images, answers: Answers) -> object:
    try:
        return reward.score(examples, images, answers)
    except FAILURES as error:
        bad = _first_failing(reward, examples, images, answers)
        raise UserError(f"{_failed(reward, error)}; {bad}. What was saved before is intact") from error


def _failed(reward: Reward, error: BaseException) -> str:
    if isinstance(error, UserError):  # it says itself what is wrong
        return f"{_who(reward)}: {error}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{_who(reward)} failed with {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"


def _first_failing(reward: Reward, examples: Sequence[Example], images: Images, answers: Answers) -> str:
    for i, example in enumerate(examples):
        try:
            reward.score([example], images[i : i + 1], answers[i : i + 1])
        except FAILURES:
            return f"the first sample it fails on: prompt {example.prompt!r}, answer {answers.text[i]!r}"
    return "it fails on no sample alone"


def _checked(reward: Reward, values: object, examples: Sequence[Example], answers: Answers) -> Tensor:
    first = f"the first sample: prompt {examples[0].prompt!r}, answer {answers.text[0]!r}"
    if not isinstance(values, Tensor):
        got = f"{type(values).__name__}, expected a tensor of {len(examples)} numbers"
        raise UserError(f"{_who(reward)} returned {got}; {first}")
    if values.shape != (len(examples),):
        expected = f"({len(examples)},): one number a sample"
        raise UserError(f"{_who(reward)} returned shape {tuple(values.shape)}, expected {expected}; {first}")
    if values.device != answers.ids.device:
        where = f"on {values.device}, expected {answers.ids.device}, where the answers are"
        raise UserError(f"{_who(reward)} returned a tensor {where}; {first}")
    single = values.detach().float()  # what is too large for it is not finite any more
    bad = (~torch.isfinite(single)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"{_who(reward)} returned {values[bad[0]].item()} for {len(bad)} of {len(examples)} samples; the first: "
            f"prompt {examples[bad[0]].prompt!r}, answer {answers.text[bad[0]]!r}. Rewards must be finite "
            "numbers, of 32 bits"
        )
    return single


def _verdict(reward: Reward, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
    try:
        verdict: object = reward.accepts(examples, scores)
    except FAILURES as error:
        first = f"in accepts; the first sample: prompt {examples[0].prompt!r}, score {scores[0].item():g}"
        raise UserError(f"{_failed(reward, error)} {first}. What was saved before is intact") from error
    if verdict is None:
        return None
    if not isinstance(verdict, Tensor):
        got = type(verdict).__name__
    elif verdict.dtype != torch.bool or verdict.shape != scores.shape or verdict.device != scores.device:
        got = f"{verdict.dtype} {tuple(verdict.shape)} on {verdict.device}"
    else:
        return verdict
    expected = f"torch.bool {tuple(scores.shape)} on {scores.device}, or None"
    raise UserError(f"{_who(reward)}: accepts gave {got}, expected {expected}")


def _who(reward: Reward) -> str:
    return f"reward {reward.name!r} ({distribution_of(reward)})"


def distribution_of(thing: object) -> str:
    """Distribution and version that an object's class comes from, such as "lightning-unirl 0.1.0".

    Plugins are looked up by their entry point first: editable installs are missing from the map of packages.
    """
    package = type(thing).__module__.partition(".")[0]
    for entry in entry_points(group=PROJECT):
        if entry.module.partition(".")[0] == package and entry.dist is not None:
            return f"{entry.dist.name} {entry.dist.version}"
    names = packages_distributions().get(package)
    return f"{names[0]} {version(names[0])}" if names else f"module {type(thing).__module__}"
