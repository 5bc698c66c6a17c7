"""One table: what the model can do, before and after."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

CAPTION = "drawing: judged right; seeing: given pictures; critic: own drawings, balanced"
NAMES = {"mmu_given_t2i": "Acc(MMU|T2I)", "t2i_given_mmu": "Acc(T2I|MMU)"}
"""Names of the paper."""
Figures = dict[str, dict[str, float]]


class ResultsTable(Callback):
    """Prints accuracy by category after validation and at the end of a fit, beside that of its beginning.

    The first validation of a fit is its "before": run with `trainer.num_sanity_val_steps: -1`, so that there is one
    ahead of the first step; otherwise the title says after how many steps it was. It is kept in checkpoints, so a
    resumed fit still knows it.
    """

    def __init__(self) -> None:
        self.before: Figures = {}
        self.steps = 0
        self.now: Figures = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if partial_check(trainer):
            return
        self.now = figures(pl_module)
        if trainer.sanity_checking or not self.before:
            self.before, self.steps = self.now, trainer.global_step
        if trainer.state.fn == "validate":
            self._show(trainer, None, self.now, "validation")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, None, figures(pl_module), "test")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        once = self.now is self.before  # `max_steps` may end a run between two validations
        title = heading(self.steps, trainer.global_step, once)
        self._show(trainer, None if once else self.before, self.now, title)

    def state_dict(self) -> dict[str, Any]:
        return {"before": self.before, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before, self.steps = state_dict["before"], state_dict.get("steps", 0)

    def _show(self, trainer: Trainer, before: Figures | None, now: Figures, title: str) -> None:
        if trainer.is_global_zero and now:
            Console().print(table(before, now, title))
            for line in summary(before, now):
                Console().print(line)


def heading(first: int, last: int, once: bool) -> str:
    """Title of a fit's table.

    Args:
        first: Steps before the first validation.
        last: Steps of the fit.
        once: Whether that was the only one.

    Example:
        >>> heading(0, 400, once=False), heading(100, 400, once=False)
        ('before and after 400 steps', 'after 100 and after 400 steps; nothing was measured before training')
    """
    if once and first:
        return f"after {first} of {last} steps; nothing else was measured"
    if once:
        return f"before training; nothing was measured after its {last} steps"
    if not first:
        return f"before and after {last} steps"
    return f"after {first} and after {last} steps; nothing was measured before training"


def figures(module: LightningModule) -> Figures:
    """The module's measured figures as plain numbers: kind, then category."""
    measured = getattr(module, "val_metrics", {})
    return {kind: {name: float(value) for name, value in values.items()} for kind, values in measured.items() if values}


def table(before: Figures | None, now: Figures, title: str) -> Table:
    """A row for each category, a column for each kind of figure; in percent.

    Args:
        before: Figures of the beginning, or None for a single column each.
        now: Figures of now.
        title: Stands above.
    """
    now = {kind: values for kind, values in now.items() if "overall" in values}
    sheet = Table(title=title, title_justify="left", caption=CAPTION, caption_justify="left")
    sheet.add_column("category")
    for kind in now:
        sheet.add_column(kind, justify="right")
    rows = list(dict.fromkeys(name for values in now.values() for name in values if name != "overall"))
    for name in [*rows, "overall"]:
        if name == "overall":
            sheet.add_section()
        cells = [_cell((before or {}).get(kind, {}).get(name), values.get(name)) for kind, values in now.items()]
        sheet.add_row(name, *cells, style="bold" if name == "overall" else None)
    return sheet


def summary(before: Figures | None, now: Figures) -> list[str]:
    """A line for each kind of figure that has no categories; arguments as for `table`."""
    lines = []
    for kind, values in now.items():
        if "overall" not in values:
            then = (before or {}).get(kind, {})
            cells = [f"{NAMES.get(n, n)} {_cell(then.get(n), v, lower=n == 'imbalance')}" for n, v in values.items()]
            lines.append(f"{kind}: {', '.join(cells)}")
    return lines


def _cell(before: float | None, now: float | None, lower: bool = False) -> str:
    if now is None:
        return "-"
    if before is None:
        return f"{100 * now:.1f}"
    change = 100 * (now - before)
    better = -change if lower else change
    color = "green" if better > 0.05 else "red" if better < -0.05 else "dim"
    return f"{100 * before:.1f} → {100 * now:.1f} [{color}]{change:+.1f}[/]"


def partial_check(trainer: Trainer) -> bool:
    """Whether a validation is a sanity check of some batches only: nothing to compare with."""
    return trainer.sanity_checking and trainer.num_sanity_val_steps != float("inf")
