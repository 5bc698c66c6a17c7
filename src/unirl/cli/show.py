"""`unirl plugins show NAME`: what a registered thing is, what it takes, and how to ask for it."""

import argparse
import ast
import json
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from unirl.cli.messages import CommandParser
from unirl.errors import UserError, nearest
from unirl.hooks.host import KINDS, Registered, host
from unirl.hooks.inspect import ClassSource, Parameter, problem, read

WIDEST = 110


def main(argv: list[str]) -> None:
    """Print the documentation, the options and a piece of config of a registered thing. Imports nothing of it.

    Args:
        argv: Arguments after `unirl plugins show`.

    Raises:
        UserError: nobody registered the name, or several kinds have it.

    Example:
        >>> main(["reward", "keyword"])  # doctest: +ELLIPSIS
        reward keyword
        ...
    """
    options = _options(argv)
    kind, item = _find(options.kind, options.name)
    reason, source = _read(kind, item)
    if options.json:
        print(json.dumps(_as_json(kind, item, reason, source), indent=2))
    else:
        print(_as_text(kind, item, reason, source))


def _options(argv: list[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="unirl plugins show",
        usage="unirl plugins show [KIND] NAME [--json]",
        description="Documentation, options and a piece of config to paste, of anything that `unirl plugins` lists.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="+", metavar="[KIND] NAME", help="a registered name, after its kind if need be")
    parser.add_argument("--kind", help=f"where several kinds have the name: {', '.join(KINDS)}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    *before, options.name = options.names
    if len(before) > 1 or (before and options.kind):
        parser.error(f"expected [KIND] NAME, got {' '.join(argv)!r}")
    options.kind = before[0] if before else options.kind
    if options.kind not in (None, *KINDS):
        parser.error(f"no kind {options.kind!r}; kinds are {', '.join(KINDS)}")
    return options


def _find(kind: str | None, name: str) -> tuple[str, Registered]:
    registry = host().registry
    kinds = [kind] if kind else list(KINDS)
    found = [(one, registry[one][name]) for one in kinds if name in registry[one]]
    if len(found) > 1:
        ways = " or ".join(f"`unirl plugins show {one} {name}`" for one, _ in found)
        raise UserError(f"{name!r} is registered as {' and '.join(one for one, _ in found)}; say which: {ways}")
    if found:
        return found[0]
    names = {known for one in kinds for known in registry[one]}
    offer = f"nearest: {nearest(name, names)}" if names else f"no {kind} plugin is installed"
    failed = "; some plugins did not load, `unirl plugins` says why" if host().failures else ""
    raise UserError(f"no {kind or 'plugin'} is registered as {name!r}; {offer}{failed}")


def _read(kind: str, item: Registered) -> tuple[str | None, ClassSource | None]:
    try:
        return problem(kind, item.path), read(item.path)
    except UserError as error:
        return str(error), None


def _as_json(kind: str, item: Registered, reason: str | None, source: ClassSource | None) -> dict[str, Any]:
    taken = source.parameters if source else ()
    return {
        "kind": kind,
        "name": item.name,
        "class": source.path if source else item.path,
        "distribution": item.distribution,
        "version": item.version,
        "problem": reason,
        "documentation": source.summary if source else "",
        "bases": list(source.bases) if source else [],
        "parameters": [asdict(one) | {"required": one.required} for one in taken],
        "config": snippet(kind, item.name, taken),
    }


def _as_text(kind: str, item: Registered, reason: str | None, source: ClassSource | None) -> str:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    head = [f"{kind} {item.name}", f"  class    {source.path if source else item.path}"]
    head.append(f"  package  {item.distribution} {item.version}")
    if reason:
        head.append(f"  problem  {reason}")
    parts = ["\n".join(head)]
    if source:
        parts.append(_prose(source.summary, width) or "(no documentation)")
        parts.append("\n".join(["Options", *_table(source.parameters, width)]) if source.parameters else "No options.")
    marked = any(one.required for one in source.parameters) if source else False
    title = f"Config to paste (fill in {REQUIRED})" if marked else "Config to paste"
    parts.append(f"{title}\n\n{snippet(kind, item.name, source.parameters if source else ())}")
    return "\n\n".join(parts)


def _prose(text: str, width: int) -> str:
    """Paragraphs filled anew; lists, code and all else that is indented as it is."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        paragraph
        if any(line.startswith((" ", "-", ">", "|")) for line in paragraph.splitlines())
        else textwrap.fill(" ".join(paragraph.split()), width)
        for paragraph in paragraphs
    )


def _table(parameters: tuple[Parameter, ...], width: int) -> list[str]:
    rows = [(one.name, "required" if one.default is None else shown(one.default)) for one in parameters]
    names, defaults = (max(len(row[i]) for row in rows) for i in range(2))
    lines: list[str] = []
    for one, (name, default) in zip(parameters, rows, strict=True):
        lines.append(f"  {name:<{names}}  {default:<{defaults}}  {one.annotation or ''}".rstrip())
        indent = " " * (names + 4)
        lines += textwrap.wrap(one.description, width, initial_indent=indent, subsequent_indent=indent)
    return lines


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
