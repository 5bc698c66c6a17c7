"""Names that more than one plugin lays claim to."""

from collections.abc import Iterable
from dataclasses import replace

from unirl.hooks.loading import Candidate
from unirl.hooks.plugin import Plugin, Registered

Claims = dict[tuple[str, str], list[tuple[Plugin, Registered]]]
"""Who registers what, by kind and name."""


def shared_entry_point(one: Candidate, others: Iterable[Candidate]) -> str:
    """Why a plugin cannot load, if others have its entry point's name; the framework's own always can.

    Args:
        one: The plugin.
        others: All that may load.
    """
    same = [other.origin for other in others if other is not one and other.name == one.name]
    if not same or one.builtin:
        return ""
    advice = "" if one.is_file else f", or block one: -p no:{one.distribution}"
    return f"the name {one.name!r} is also that of a plugin of {' and '.join(same)}; remove one{advice}"


def settle(plugins: list[Plugin]) -> tuple[list[Plugin], list[str]]:
    """The plugins, those failed that register a name which another registers too, and a sentence for each such name.

    Args:
        plugins: As loaded.
    """
    claims: Claims = {}
    for plugin in plugins:
        for kind, items in plugin.registers.items():
            for item in items:
                claims.setdefault((kind, item.name), []).append((plugin, item))
    told = {claim: _sentence(*claim, sides) for claim, sides in claims.items() if len(sides) > 1}
    settled = []
    for plugin in plugins:
        mine = [text for claim, text in told.items() if any(plugin is other for other, _ in claims[claim])]
        failed = replace(plugin, status="failed", reason="; ".join(mine))
        settled.append(failed if mine and not plugin.builtin else plugin)
    return settled, list(told.values())


def _sentence(kind: str, name: str, sides: list[tuple[Plugin, Registered]]) -> str:
    both = " and ".join(str(item) for _, item in sides)
    last = sides[-1][0]
    return f"two plugins register the {kind} {name!r}: {both}; uninstall one of them, or block one: -p no:{last.name}"
