"""YAML to paste into a config: a plugin under its key, with all its options."""

import ast
from collections.abc import Sequence

import yaml

from unirl.hooks.source import Parameter

PLACES = {
    "backbone": ("model", "backbone"),
    "reward": ("model", "rewards"),
    "update": ("model", "update"),
    "prompts": ("data", "prompts"),
    "judge": ("model", "judge"),
}
"""Each kind and where its plugins stand in a config."""
REQUIRED = "REQUIRED"
"""Stands where a value must be filled in: no number and no existing path, so that forgetting it does not pass."""


def snippet(kind: str, name: str, parameters: Sequence[Parameter]) -> str:
    """A piece of config that names a plugin and gives every option its default.

    Args:
        kind: One of `PLACES`.
        name: A registered name, or a class path.
        parameters: Its options. Defaults that are no plain values are left to the class, in a comment.

    Example:
        >>> print(snippet("reward", "short", [Parameter("weight", "float", "1.0"), Parameter("words", "int", None)]))
        model:
          rewards:
            - class_path: short
              init_args:
                weight: 1.0
                words: REQUIRED  # int
    """
    section, key = PLACES[kind]
    dash, indent = ("    - ", 6) if kind == "reward" else ("    ", 4)
    lines = [f"{section}:", f"  {key}:", f"{dash}class_path: {_scalar(name)}"]
    options = [_option(one) for one in parameters]
    empty = all(option.startswith("#") for option in options)
    if options:
        lines.append(f"{' ' * indent}{'# ' if empty else ''}init_args:")
    lines += [f"{' ' * (indent + 2)}{option}" for option in options]
    return "\n".join(lines)


def shown(default: str) -> str:
    """A default as configs write it; one that is no plain value as Python does.

    Args:
        default: Python source.

    Example:
        >>> shown("None"), shown("(0.9, 0.999)"), shown("Sampling()")
        ('null', '[0.9, 0.999]', 'Sampling()')
    """
    try:
        return _scalar(ast.literal_eval(default))
    except (ValueError, SyntaxError, yaml.YAMLError):
        return default


def _option(parameter: Parameter) -> str:
    if parameter.default is None:
        return f"{parameter.name}: {REQUIRED}" + (f"  # {parameter.annotation}" if parameter.annotation else "")
    try:
        return f"{parameter.name}: {_scalar(ast.literal_eval(parameter.default))}"
    except (ValueError, SyntaxError, yaml.YAMLError):
        return f"# {parameter.name}: {parameter.default} by default"


def _scalar(value: object) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False).removesuffix("...\n").strip()
