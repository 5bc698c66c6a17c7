"""A table of what the model can do, before and after training."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from typing_extensions import override

EXPLANATIONS = {
    "generation": "images that the judge accepts",
    "understanding": "correct answers about given images",
    "self_reward": "own verdicts that agree with the judge (balanced accuracy)",
}
COLUMN_NAMES = {"self_reward": "self-reward"}
ROW_NAMES = {"mmu_given_t2i": "Acc(MMU|T2I)", "t2i_given_mmu": "Acc(T2I|MMU)"}
"""Names of the consistency metrics in the paper."""
LOWER_IS_BETTER = ("imbalance",)
Metrics = dict[str, dict[str, float]]
"""Values by metric and category."""


class ResultsTable(Callback):
    """Prints accuracies by category after `validate` and `test`, and those before and after a fit at its end.

    The first validation of a fit is its "before". Set `trainer.num_sanity_val_steps: -1` to validate before the first
    step; otherwise the title gives the step of the first validation. Checkpoints store it, so that a resumed fit
    compares with the same values.
    """

    def __init__(self) -> None:
        self.before: Metrics = {}
        self.after: Metrics = {}
        self.before_step = 0

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_partial_sanity_check(trainer):
            return
        self.after = metrics_of(pl_module)
        if trainer.sanity_checking or not self.before:
            self.before, self.before_step = self.after, trainer.global_step
        if trainer.state.fn == "validate":
            self._print(trainer, None, self.after, "validation")

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._print(trainer, None, metrics_of(pl_module), "test")

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        validated_once = self.after is self.before  # `max_steps` may end a run between two validations
        title = fit_title(self.before_step, trainer.global_step, validated_once)
        self._print(trainer, None if validated_once else self.before, self.after, title)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"before": self.before, "before_step": self.before_step}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before, self.before_step = state_dict["before"], state_dict["before_step"]

    def _print(self, trainer: Trainer, before: Metrics | None, after: Metrics, title: str) -> None:
        if trainer.is_global_zero and after:
            print_results(Console(), before, after, title)


def fit_title(first: int, last: int, validated_once: bool) -> str:
    """Title of the table at the end of a fit.

    Args:
        first: Steps before the first validation.
        last: Steps of the fit.
        validated_once: Whether there was only one validation.

    Example:
        >>> fit_title(0, 400, validated_once=False)
        'before and after 400 steps'
        >>> fit_title(100, 400, validated_once=False)
        'after 100 and after 400 steps; there was no validation before training'
    """
    if validated_once and first:
        return f"after {first} of {last} steps; there was no other validation"
    if validated_once:
        return f"before training; there was no validation after its {last} steps"
    if not first:
        return f"before and after {last} steps"
    return f"after {first} and after {last} steps; there was no validation before training"


def metrics_of(module: LightningModule) -> Metrics:
    """The metrics of the module's last validation as plain numbers."""
    metrics = getattr(module, "val_metrics", {})
    return {name: {key: float(value) for key, value in values.items()} for name, values in metrics.items() if values}


def print_results(console: Console, before: Metrics | None, after: Metrics, title: str) -> None:
    """Print title, table, what its columns mean, and the lines below.

    Args:
        console: Where to.
        before: Metrics to compare with; None for single values.
        after: Current metrics.
        title: Title of the table.
    """
    console.print(title, style="table.title")
    explained = [name for name, values in after.items() if "overall" in values]
    if explained:
        console.print(results_table(before, after))
    else:
        console.print("without a judge, no accuracy is measured")
    lines = [f"{COLUMN_NAMES.get(name, name)}: {EXPLANATIONS[name]}" for name in explained if name in EXPLANATIONS]
    if lines:
        console.print("Percent. " + "\n".join(lines), style="table.caption", highlight=False)
    for line in summary_lines(before, after):
        console.print(line)


def results_table(before: Metrics | None, after: Metrics) -> Table:
    """A row for each category and a column for each metric that has categories. Arguments as for `print_results`."""
    columns = {name: values for name, values in after.items() if "overall" in values}
    table = Table(box=SIMPLE_HEAD)
    table.pad_edge = False  # three columns before and after training fit in 80 characters
    table.add_column("category")
    for name in columns:
        table.add_column(COLUMN_NAMES.get(name, name), justify="right")
    categories = dict.fromkeys(category for values in columns.values() for category in values if category != "overall")
    for category in [*categories, "overall"]:
        is_overall = category == "overall"
        if is_overall:
            table.add_section()
        cells = [
            _cell((before or {}).get(name, {}).get(category), values.get(category)) for name, values in columns.items()
        ]
        table.add_row(category, *cells, style="bold" if is_overall else None)
    return table


def summary_lines(before: Metrics | None, after: Metrics) -> list[str]:
    """A line for each metric that has no categories. Arguments as for `results_table`."""
    lines = []
    for name, values in after.items():
        if "overall" not in values:
            earlier = (before or {}).get(name, {})
            cells = [
                f"{ROW_NAMES.get(key, key)} {_cell(earlier.get(key), value, key in LOWER_IS_BETTER)}"
                for key, value in values.items()
            ]
            lines.append(f"{name}: {', '.join(cells)}")
    return lines


def _cell(before: float | None, after: float | None, lower_is_better: bool = False) -> str:
    if after is None:
        return "-"
    if before is None:
        return f"{100 * after:.1f}"
    change = 100 * (after - before)
    improvement = -change if lower_is_better else change
    color = "green" if improvement > 0.05 else "red" if improvement < -0.05 else "dim"
    return f"{100 * before:.1f} → {100 * after:.1f} [{color}]{change:+.1f}[/]"


def is_partial_sanity_check(trainer: Trainer) -> bool:
    """Whether the current validation is a sanity check of a few batches, whose metrics mean nothing."""
    return trainer.sanity_checking and trainer.num_sanity_val_steps != float("inf")
