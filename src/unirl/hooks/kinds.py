"""The plugin kinds: for each one its registering hook, its base class and its place in a config. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class PluginKind:
    """A kind of plugin.

    Args:
        name: What commands and messages call it.
        hook: The hook that registers plugins of this kind.
        base: The class that they derive from, as `package.module:Class`.
        config_key: The option that takes such a plugin, as `section.option`.
        example: What the package that `unirl new` writes does.
        is_list: Whether the option takes a list of plugins.

    Example:
        >>> print(KINDS["judge"].config("shapes"))
        model:
          judge: shapes
    """

    name: str
    hook: str
    base: str
    config_key: str
    example: str
    is_list: bool = False

    @property
    def base_name(self) -> str:
        """The name of the base class, such as `Judge`."""
        return self.base.rpartition(":")[2]

    def base_class(self) -> type:
        """Import the base class, and torch with it."""
        module, _, name = self.base.partition(":")
        base: type = getattr(import_module(module), name)
        return base

    def config(self, plugin: str) -> str:
        """The shortest config that uses a plugin of this kind, as YAML.

        Args:
            plugin: Its registered name.
        """
        section, key = self.config_key.split(".")
        return f"{section}:\n  {key}:\n    - {plugin}" if self.is_list else f"{section}:\n  {key}: {plugin}"


KINDS: Mapping[str, PluginKind] = {
    kind.name: kind
    for kind in (
        PluginKind(
            "backbone",
            "unirl_register_backbones",
            "unirl.backbones.base:Backbone",
            "model.backbone",
            "a small unified transformer in plain torch, trainable from scratch",
        ),
        PluginKind(
            "reward",
            "unirl_register_rewards",
            "unirl.rewards.base:Reward",
            "model.rewards",
            "the mean brightness of an image",
            is_list=True,
        ),
        PluginKind(
            "update",
            "unirl_register_updates",
            "unirl.updates.base:UpdateRule",
            "model.update",
            "REINFORCE with the mean of the group as baseline",
        ),
        PluginKind(
            "prompts",
            "unirl_register_prompts",
            "unirl.prompts.base:Prompts",
            "data.prompts",
            "one object of one color; a fifth of the prompts is held out",
        ),
        PluginKind(
            "judge",
            "unirl_register_judges",
            "unirl.judges.base:Judge",
            "model.judge",
            "checks that an image contains the colors that the prompt asks for",
        ),
    )
}
"""All plugin kinds by name."""
