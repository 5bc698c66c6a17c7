"""Findings of the doctor and how they are printed."""

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
NO_WRAP = 10_000
"""Console width where the output is not a terminal: each finding is on one line."""


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Args:
        level: "error" if `fit` would not start, or would fail later because of it.
        subject: What was checked, in a word or two.
        text: What was found.
        advice: What to do.

    Example:
        >>> str(Finding("error", "disk", "runs is full", "free some space"))
        'disk: runs is full; free some space'
    """

    level: Level
    subject: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return " ".join(f"{self.subject}: {'; '.join(filter(None, (self.text, self.advice)))}".split())


def format_findings(findings: Iterable[Finding]) -> str:
    """Findings as aligned lines, with colors in a terminal.

    Args:
        findings: In the order of the lines.
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings:
        color = COLORS[finding.level]
        text = Text(" ".join(finding.text.split()))
        if finding.advice:
            text.append(f" → {' '.join(finding.advice.split())}", color if finding.level != "ok" else "dim")
        table.add_row(Text(finding.level, color), Text(finding.subject, "bold"), text)
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if has_width else NO_WRAP)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def raise_errors(findings: Iterable[Finding]) -> None:
    """Raise all findings with level "error" as one error.

    Args:
        findings: Of any level.

    Raises:
        UserError: there is an error among them.

    Example:
        >>> raise_errors([Finding("ok", "disk", "1 TB is free")])
    """
    if errors := [str(finding) for finding in findings if finding.level == "error"]:
        raise UserError("; ".join(errors))


def format_bytes(count: float) -> str:
    """Bytes with a decimal unit.

    Args:
        count: Number of bytes.

    Example:
        >>> format_bytes(3_374_944), format_bytes(5.8e9)
        ('3.4 MB', '5.8 GB')
    """
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    unit = units[0]
    return f"{count:.3g} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
