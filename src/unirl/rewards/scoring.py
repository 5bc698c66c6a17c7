"""Adds rewards up, and refuses numbers that would train something else than the user thinks."""

from collections.abc import Sequence
from importlib.metadata import entry_points, packages_distributions, version

import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.hooks import PROJECT
from unirl.rewards.base import Reward
from unirl.types import Answers, Example, Images


def score(
    rewards: Sequence[Reward], examples: Sequence[Example], images: Images, answers: Answers
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all rewards, and each by its name.

    Args:
        rewards: At least one.
        examples: What was asked for.
        images: What was drawn, with pixels where a reward needs them.
        answers: What was said.

    Shapes:
        returns (B,), and (B,) by name.

    Raises:
        UserError: a reward gave the wrong count, or a number that is not finite.
    """
    parts: dict[str, Tensor] = {}
    for reward in rewards:
        values = reward.score(examples, images, answers)
        name = reward.name if reward.name not in parts else f"{reward.name}_{len(parts)}"
        parts[name] = _checked(reward, values, examples, answers)
    total = torch.stack([r.weight * p for r, p in zip(rewards, parts.values(), strict=True)]).sum(0)
    return total, parts


def _checked(reward: Reward, values: object, examples: Sequence[Example], answers: Answers) -> Tensor:
    if not isinstance(values, Tensor):
        raise UserError(
            f"{_who(reward)} returned {type(values).__name__}, expected a tensor of {len(examples)} numbers"
        )
    if values.shape != (len(examples),):
        expected = f"({len(examples)},): one number a sample"
        raise UserError(f"{_who(reward)} returned shape {tuple(values.shape)}, expected {expected}")
    bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
    if bad:
        first = bad[0]
        raise UserError(
            f"{_who(reward)} returned {values[first].item()} for {len(bad)} of {len(examples)} samples; the first: "
            f"prompt {examples[first].prompt!r}, answer {answers.text[first]!r}. Rewards must be finite numbers"
        )
    return values.detach().float().to(answers.ids.device)


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
