"""Whether a registered class can be used as what it is registered as."""

from unirl.hooks.source.ancestry import ancestors, unknown_bases
from unirl.hooks.source.errors import Unclear, Unusable
from unirl.hooks.source.finding import find

BASES = {
    "backbone": "unirl.backbones.base:Backbone",
    "reward": "unirl.rewards.base:Reward",
    "update": "unirl.updates.base:UpdateRule",
    "prompts": "unirl.prompts.base:Prompts",
    "judge": "unirl.judges.base:Judge",
}
"""Each plugin kind and the class that all of its plugins derive from, as text."""


def problem(kind: str, path: str) -> str | None:
    """Why a registered class cannot be used, on one line; None where it can, or where only running it would tell.

    Args:
        kind: What it is registered as: one of `BASES`.
        path: `package.module:Class`.

    Example:
        >>> problem("reward", "unirl.rewards.keyword:Keyword")
        >>> problem("backbone", "unirl.rewards.keyword:Keyword")
        "'unirl.rewards.keyword:Keyword' is a Reward, expected a Backbone"
        >>> problem("reward", "unirl.rewards.keyword:Kyword")
        "module 'unirl.rewards.keyword' has no class 'Kyword'; nearest: Keyword, Reward"
    """
    try:
        definition = find(path)
    except Unusable as error:
        return str(error)
    except Unclear:
        return None
    derived = {found.path for found in ancestors(definition)}
    if BASES[kind] in derived:
        return None
    others = [base for base in BASES.values() if base in derived]
    if not others and unknown_bases(definition):
        return None
    wanted = _with_article(BASES[kind])
    if others:
        return f"{path!r} is {_with_article(others[0])}, expected {wanted}"
    return f"{path!r} is not {wanted}: it does not derive from {_public(BASES[kind])}"


def _with_article(path: str) -> str:
    name = path.rpartition(":")[2]
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _public(path: str) -> str:
    """`unirl.rewards.Reward`, which is where authors import it from."""
    return path.replace(".base:", ".")
