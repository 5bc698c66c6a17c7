"""Hook specifications: everything a plugin can tell the framework."""

from collections.abc import Callable

from unirl.hooks import hookspec

Register = Callable[[str, str], None]
"""`register(name, "package.module:Class")`: an import path, so that listing plugins imports nothing heavy."""


@hookspec
def unirl_register_backbones(register: Register) -> None:
    """Offer unified models: classes derived from `unirl.backbones.Backbone`."""


@hookspec
def unirl_register_rewards(register: Register) -> None:
    """Offer rewards: classes derived from `unirl.rewards.Reward`."""


@hookspec
def unirl_register_updates(register: Register) -> None:
    """Offer update rules: classes derived from `unirl.updates.UpdateRule`."""


@hookspec
def unirl_register_prompts(register: Register) -> None:
    """Offer sources of prompts: classes derived from `unirl.prompts.Prompts`."""


@hookspec
def unirl_register_judges(register: Register) -> None:
    """Offer judges: classes derived from `unirl.judges.Judge`."""
