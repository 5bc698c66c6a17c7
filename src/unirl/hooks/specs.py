"""The hook specifications: what plugins can implement, since which version, and how stable each hook is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from unirl.hooks import PROJECT, hookspec

if TYPE_CHECKING:  # plugins are listed without importing torch
    from torch import Tensor

    from unirl.types import Rollout

Register = Callable[[str, str], None]
"""`register(name, "package.module:Class")`. It takes an import path, so that listing plugins imports no class."""
Stability = Literal["stable", "experimental"]
"""Stable hooks and their arguments are renamed or removed only after a warning for two minor versions."""
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def added(since: str, stability: Stability) -> Callable[[_Hook], _Hook]:
    """Make a function a hook specification with the attributes `since` and `stability`.

    Args:
        since: The version that added the hook, such as "0.1".
        stability: Whether its name and arguments are stable.

    Example:
        >>> from unirl.hooks.specs import unirl_validated
        >>> unirl_validated.since, unirl_validated.stability
        ('0.1', 'experimental')
    """

    def mark(function: _Hook) -> _Hook:
        marked: Any = hookspec(function)
        marked.since, marked.stability = since, stability
        return marked

    return mark


@added("0.1", "stable")
def unirl_register_backbones(register: Register) -> None:
    """Register unified models: classes derived from `unirl.backbones.Backbone`."""


@added("0.1", "stable")
def unirl_register_rewards(register: Register) -> None:
    """Register rewards: classes derived from `unirl.rewards.Reward`."""


@added("0.1", "stable")
def unirl_register_updates(register: Register) -> None:
    """Register update rules: classes derived from `unirl.updates.UpdateRule`."""


@added("0.1", "stable")
def unirl_register_prompts(register: Register) -> None:
    """Register sources of prompts: classes derived from `unirl.prompts.Prompts`."""


@added("0.1", "stable")
def unirl_register_judges(register: Register) -> None:
    """Register judges: classes derived from `unirl.judges.Judge`."""


@added("0.1", "experimental")
def unirl_rollout_scored(rollout: Rollout) -> Tensor | None:
    """Weigh the samples of a rollout after scoring, before the update rule uses them.

    Called on every rank with its own samples. The weights of several implementations are multiplied. Installed plugins
    and Lightning callbacks of the run can implement it.

    Args:
        rollout: Prompts, images, answers and scores.

    Shapes:
        returns (B,): weights of 0 or more, or a mask of the samples to keep. None changes nothing.
    """


@added("0.1", "experimental")
def unirl_validated(metrics: Mapping[str, float]) -> None:
    """Called after every validation, with the same values on every rank.

    Args:
        metrics: Values by name as in the logs without `val/`, such as "generation/counting". Accuracies are in [0, 1].
    """


def specifications() -> dict[str, Any]:
    """All hook specifications by name, in the order of this file.

    Example:
        >>> list(specifications())[0]
        'unirl_register_backbones'
    """
    return {name: value for name, value in globals().items() if name.startswith(f"{PROJECT}_")}
