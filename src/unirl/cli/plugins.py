"""`unirl plugins`: lists all plugins with their status and what they register."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from importlib import import_module

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from unirl.cli.messages import CommandParser
from unirl.hooks.host import Host
from unirl.hooks.kinds import KINDS
from unirl.hooks.options import HELP, from_environment
from unirl.hooks.registry import Plugin

COLORS = {"loaded": "green", "blocked": "yellow", "failed": "red"}
_UNLIMITED_WIDTH = 10_000  # in a pipe, each plugin takes one line


def main(argv: list[str]) -> None:
    """Print all plugins, or with `show NAME` details of a registered name.

    Args:
        argv: Arguments after `unirl plugins`.

    Raises:
        UserError: the arguments are wrong, or plugins stop every run. The latter is raised after the list is printed.
    """
    if argv[:1] == ["show"]:
        import_module("unirl.cli.show").main(argv[1:])
        return
    as_json = _parse(argv).json
    host = Host(from_environment())
    plugins = host.inspected()
    print(json.dumps([_record(plugin) for plugin in plugins], indent=2) if as_json else _table(plugins))
    host.checked()


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = CommandParser(
        "unirl plugins",
        "unirl plugins [--json] | unirl plugins show NAME",
        "List plugins, or show what is registered under a name.",
        HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(argv)


def _record(plugin: Plugin) -> dict[str, object]:
    record = asdict(plugin)
    record["registers"] = {kind: {item.name: item.path for item in items} for kind, items in plugin.registers.items()}
    return record


def _table(plugins: list[Plugin]) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("plugin", no_wrap=True)
    table.add_column("distribution", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("registers, or reason")
    for plugin in plugins:
        status = Text(plugin.status, COLORS[plugin.status])
        table.add_row(Text(plugin.name), Text(plugin.origin), status, _details(plugin))
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if has_width else _UNLIMITED_WIDTH)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _details(plugin: Plugin) -> Group:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=max(map(len, KINDS)))  # aligned between plugins
    grid.add_column()
    for kind, items in plugin.registers.items():
        grid.add_row(Text(kind, "cyan"), Text(", ".join(sorted(item.name for item in items))))
    if plugin.hooks:
        grid.add_row(Text("hooks", "cyan"), Text(", ".join(plugin.hooks)))
    reason = [Text(plugin.reason, COLORS[plugin.status])] if plugin.reason else []
    return Group(*reason, grid) if grid.row_count else Group(*(reason or [Text("nothing", "dim")]))
