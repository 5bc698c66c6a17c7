"""One thing that the doctor has found, and how a list of them is shown."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unirl.errors import UserError

Level = Literal["ok", "warning", "error"]
COLORS = {"ok": "green", "warning": "yellow", "error": "red"}
EVERYTHING = 10_000
"""Columns where nobody looks: a pipe gets each finding on one line."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Args:
        level: "error" where `fit` would not start, or would fail for it later.
        subject: What it is about, in a word or two.
        text: What was found.
        advice: What to do.

    Example:
        >>> str(Finding("error", "disk", "runs is full", "make room"))
        'disk: runs is full; make room'
    """

    level: Level
    subject: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return " ".join(f"{self.subject}: {'; '.join(filter(None, (self.text, self.advice)))}".split())


def shown(findings: Iterable[Finding]) -> str:
    """Findings as lines, aligned and colored where somebody looks.

    Args:
        findings: In the order in which to show them.
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column()
    for one in findings:
        text = Text(" ".join(one.text.split()))
        if one.advice:
            text.append(f" → {' '.join(one.advice.split())}", COLORS[one.level] if one.level != "ok" else "dim")
        table.add_row(Text(one.level, COLORS[one.level]), Text(one.subject, "bold"), text)
    watched = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if watched else EVERYTHING)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def refuse(findings: Iterable[Finding]) -> None:
    """Stop at errors.

    Args:
        findings: Of any level.

    Raises:
        UserError: there are errors; it names them all.

    Example:
        >>> refuse([Finding("ok", "disk", "1 TB is free")])
    """
    if wrong := [str(one) for one in findings if one.level == "error"]:
        raise UserError("; ".join(wrong))


def size(count: float) -> str:
    """Bytes as a person reads them.

    Args:
        count: How many.

    Example:
        >>> size(3_374_944), size(5.8e9)
        ('3.4 MB', '5.8 GB')
    """
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    unit = units[0]
    return f"{count:.3g} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
