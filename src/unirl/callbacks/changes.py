"""The metrics of a run before and after training, as cells of tables in Markdown and HTML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COLUMN_NAMES = {"self_reward": "self-reward"}
ROW_NAMES = {
    "mmu_given_t2i": "Acc(MMU|T2I)",
    "t2i_given_mmu": "Acc(T2I|MMU)",
    "clipped_ratio": "cut off at max_tokens",
}
"""Names of the metrics without categories: those of consistency as in the paper."""
LOWER_IS_BETTER = ("imbalance", "clipped_ratio")
HIDDEN_WHERE_ZERO = ("completions",)
"""Metrics that are not shown where their values are 0."""
OVERALL = "overall"
Metrics = dict[str, dict[str, float]]
"""Values by metric and category."""
THRESHOLD = 0.05
"""Change in percent from which on one of two values is the better one."""


@dataclass(frozen=True)
class Change:
    """A metric before and after.

    Args:
        text: Both values in percent, or the one that there is.
        change: The difference, with its sign; empty where there is one value only.
        kind: "better", "worse", or "" where it is neither.
    """

    text: str
    change: str = ""
    kind: str = ""


def change_of(before: float | None, after: float | None, lower_is_better: bool = False) -> Change:
    """A metric before and after.

    Args:
        before: In [0, 1]; None where it was not measured.
        after: The same.
        lower_is_better: Whether a lower value is better.

    Example:
        >>> change_of(0.5, 0.612)
        Change(text='50.0 → 61.2', change='+11.2', kind='better')
    """
    if after is None:
        return Change("-" if before is None else f"{100 * before:.1f} → -")
    if before is None:
        return Change(f"{100 * after:.1f}")
    change = 100 * (after - before)
    improvement = -change if lower_is_better else change
    kind = "better" if improvement > THRESHOLD else "worse" if improvement < -THRESHOLD else ""
    return Change(f"{100 * before:.1f} → {100 * after:.1f}", f"{change:+.1f}", kind)


@dataclass(frozen=True)
class ChangeTable:
    """A table of changes.

    Args:
        title: What is compared.
        columns: Metrics that have categories.
        rows: A category with a cell for each column; the last is "overall".
        others: Metrics without categories, with their values by name.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[Change]]]
    others: list[tuple[str, list[tuple[str, Change]]]]

    def markdown(self) -> str:
        """The table as a page in Markdown."""
        lines = [f"# {self.title}", ""]
        if self.rows:
            lines += [f"| category | {' | '.join(self.columns)} |", "|---" * (len(self.columns) + 1) + "|"]
            lines += [f"| {_escape(name)} | {' | '.join(map(_text, cells))} |" for name, cells in self.rows]
            lines += ["", "Percent.", ""]
        for name, values in self.others:
            lines.append(f"- {name}: {', '.join(f'{_escape(label)} {_text(cell)}' for label, cell in values)}")
        return "\n".join(lines) + "\n"


def table_of(before: Metrics | None, after: Metrics, title: str = "") -> ChangeTable:
    """The table of two validations.

    Args:
        before: Metrics to compare with; None for single values.
        after: The others.
        title: What is compared.
    """
    earlier = before or {}
    columns = {name: values for name, values in after.items() if OVERALL in values}
    categories = dict.fromkeys(category for values in columns.values() for category in values if category != OVERALL)
    rows = [
        (category, [change_of(earlier.get(name, {}).get(category), one.get(category)) for name, one in columns.items()])
        for category in ([*categories, OVERALL] if columns else [])
    ]
    others = [
        (
            name,
            [
                (ROW_NAMES.get(key, key), change_of(earlier.get(name, {}).get(key), value, key in LOWER_IS_BETTER))
                for key, value in values.items()
            ],
        )
        for name, values in after.items()
        if name not in columns and not (name in HIDDEN_WHERE_ZERO and _all_zero(earlier.get(name, {}), values))
    ]
    return ChangeTable(title, [COLUMN_NAMES.get(name, name) for name in columns], rows, others)


def _all_zero(*metrics: Mapping[str, float]) -> bool:
    return not any(value for values in metrics for value in values.values())


def fit_title(first: int, last: int | None, total: int) -> str:
    """Title of the table at the end of a fit.

    Args:
        first: Steps before the first validation.
        last: Steps before the last one; None if there was only one.
        total: Steps of the fit.

    Example:
        >>> fit_title(0, 400, 400)
        'before and after 400 steps'
        >>> fit_title(0, 350, 400)
        'before and after 350 of 400 steps'
        >>> fit_title(100, 400, 400)
        'after 100 and after 400 steps; there was no validation before training'
    """
    if last is None and first:
        return f"after {first} of {total} steps; there was no other validation"
    if last is None:
        return f"before training; there was no validation after its {total} steps"
    steps = f"{last} steps" if last == total else f"{last} of {total} steps"
    if not first:
        return f"before and after {steps}"
    return f"after {first} and after {steps}; there was no validation before training"


def fit_table(first: Mapping[str, Any], last: Mapping[str, Any], total: int) -> ChangeTable:
    """The table of a fit.

    Args:
        first: The first validation: its step and metrics.
        last: The last one; may be the same.
        total: Steps of the fit.
    """
    once = first["step"] == last["step"]
    title = fit_title(first["step"], None if once else last["step"], total)
    return table_of(None if once else first["metrics"], last["metrics"], title[:1].upper() + title[1:])


def _text(cell: Change) -> str:
    return f"{cell.text} ({cell.change})" if cell.change else cell.text


def _escape(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())
