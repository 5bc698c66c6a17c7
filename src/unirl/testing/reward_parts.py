"""What `RewardConformance` needs beside its checks."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from unirl.rewards.base import Reward
from unirl.testing.checks import who
from unirl.types import Answers, Example, Images


def made_with(make: Callable[[], Reward], **options: Any) -> Reward:
    """The reward that `make` gives, with other constructor options.

    Args:
        make: Calls the constructor with whatever it needs; that call is repeated.
        options: What to change.
    """
    kind, calls = type(make()), []
    original = kind.__init__

    def recorded(self: Reward, *args: Any, **kwargs: Any) -> None:
        calls.append((args, kwargs))
        original(self, *args, **kwargs)

    with mock.patch.object(kind, "__init__", recorded):
        make()
    args, kwargs = calls[0]
    return kind(*args, **kwargs | options)


def scored(reward: Reward, given: tuple[list[Example], Images, Answers], when: str = "") -> Tensor:
    """What a reward gives; where it raises, an `AssertionError` that says so.

    Args:
        reward: Who scores.
        given: Examples, pictures and answers.
        when: What is special about them.
    """
    try:
        return reward.score(*given)
    except Exception as error:
        hint = "" if reward.needs_pixels else "; if it reads pixels, set needs_pixels = True on the class"
        raise AssertionError(f"{who(reward, 'score')} fails{when}: {type(error).__name__}: {error}{hint}") from error


def agree(reward: Reward, first: Tensor, second: object, complaint: str, tolerance: float) -> None:
    """Assert that a reward scored twice alike.

    Args:
        reward: Whose scores they are.
        first: One time.
        second: The other time.
        complaint: What is wrong if they differ.
        tolerance: How far they may.
    """
    assert isinstance(second, Tensor), f"{who(reward, 'score')} {complaint}: it returned {told(second)}"
    assert first.shape == second.shape, (
        f"{who(reward, 'score')} {complaint}: shape {tuple(second.shape)}, expected {tuple(first.shape)}"
    )
    # Comparing this way round, NaN is no agreement.
    apart = (~((first - second).abs() <= tolerance)).nonzero().flatten().tolist()
    assert not apart, (
        f"{who(reward, 'score')} {complaint}: {first[apart[0]].item():g} became {second[apart[0]].item():g}"
    )


def assert_monotone(reward: Reward, examples: list[Example], values: Tensor, high: float) -> None:
    """Assert that whoever is accepted with a score is accepted with a higher one.

    Args:
        reward: Whose verdicts they are.
        examples: What was asked for.
        values: What it scored.
        high: The greatest score.

    Shapes:
        values (B,).
    """
    top = min(high, values.max().item() + 1.0)
    seen = torch.zeros(len(examples), dtype=torch.bool, device=values.device)
    for level in torch.linspace(values.min().item(), top, 9).tolist():
        verdict = reward.accepts(examples, torch.full_like(values, level))
        assert verdict is not None, (
            f"{who(reward, 'accepts')} returned None for scores of {level:g}, verdicts for others"
        )
        assert (verdict >= seen).all(), (
            f"{who(reward, 'accepts')} refuses a score of {level:g} where it accepts a lower one"
        )
        seen = verdict


def unpadded(answers: Answers) -> Answers:
    """The same answers without padding that none of them needs."""
    length = int(answers.mask.sum(1).max())
    log_probs = None if answers.log_probs is None else answers.log_probs[:, :length]
    return Answers(answers.ids[:, :length], answers.mask[:, :length], answers.text, log_probs)


def told(value: object) -> str:
    """What a value is, for a message: "None", "a list"."""
    return "None" if value is None else f"a {type(value).__name__}"
