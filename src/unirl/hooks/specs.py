"""What plugin authors may rely on: when a hook was added, and whether it is there to stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from unirl.hooks import hookspec

Stability = Literal["stable", "experimental"]
"""Names of stable hooks and of their arguments change only as `unirl.hooks.renamed` says; experimental ones may."""
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def added(since: str, stability: Stability) -> Callable[[_Hook], _Hook]:
    """Make a function a hook specification, with attributes `since` and `stability`.

    Args:
        since: The version that added it, such as "0.1".
        stability: Whether it is there to stay.

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


if TYPE_CHECKING:  # plugins are listed without importing torch
    from torch import Tensor

    from unirl.types import Rollout

Register = Callable[[str, str], None]
"""`register(name, "package.module:Class")`: an import path, so that listing plugins imports nothing heavy."""


@added("0.1", "stable")
def unirl_register_backbones(register: Register) -> None:
    """Offer unified models: classes derived from `unirl.backbones.Backbone`."""


@added("0.1", "stable")
def unirl_register_rewards(register: Register) -> None:
    """Offer rewards: classes derived from `unirl.rewards.Reward`."""


@added("0.1", "stable")
def unirl_register_updates(register: Register) -> None:
    """Offer update rules: classes derived from `unirl.updates.UpdateRule`."""


@added("0.1", "stable")
def unirl_register_prompts(register: Register) -> None:
    """Offer sources of prompts: classes derived from `unirl.prompts.Prompts`."""


@added("0.1", "stable")
def unirl_register_judges(register: Register) -> None:
    """Offer judges: classes derived from `unirl.judges.Judge`."""


@added("0.1", "experimental")
def unirl_rollout_scored(rollout: Rollout) -> Tensor | None:
    """Steer what is learnt: a weight for each sample of a scored rollout, before anything learns from it.

    Called on every process for its own samples; the weights of several plugins multiply. A Lightning callback of the
    run may implement it as well as an installed plugin.

    Args:
        rollout: What was drawn, answered and earned.

    Shapes:
        returns (B,): weights from 0 on, or a mask of what to keep; None leaves all as they are.
    """


@added("0.1", "experimental")
def unirl_validated(metrics: Mapping[str, float]) -> None:
    """Watch: called after every validation, with the same figures on every process.

    Args:
        metrics: By name as in the logs, such as "generation/counting"; accuracies in [0, 1].
    """
