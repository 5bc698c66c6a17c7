"""A table of what the model can do, before and after training."""

import json
import math
from pathlib import Path
from typing import Any, TypedDict

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typing_extensions import override

from unirl.callbacks.changes import COLUMN_NAMES, OVERALL, Change, ChangeTable, Metrics, fit_table, fit_title, table_of
from unirl.output import escape_unknown_characters, write_atomically

EXPLANATIONS = {
    "generation": "images that the judge accepts",
    "understanding": "correct answers about given images",
    "self_reward": "own verdicts that agree with the judge (balanced accuracy)",
    "consistency": "Acc(MMU|T2I), correct answers about correct generated images; Acc(T2I|MMU), correct generated "
    "images where the answer about a reference image is correct; imbalance, their difference",
    "diversity": "how much images of one prompt differ",
    "completions": "answers that were cut off",
}
COLORS = {"better": "green", "worse": "red", "": "dim"}
RESULTS, RESULTS_TABLE = "results.json", "results.md"
"""Files in the folder of a run."""


class Validation(TypedDict):
    """A validation of a fit, as `results.json` and checkpoints hold it."""

    step: int
    metrics: Metrics


class ResultsTable(Callback):
    """Prints accuracies by category after `validate` and `test`, and those before and after a fit at its end.

    The first validation of a fit is its "before". Set `trainer.num_sanity_val_steps: -1` to validate before the first
    step; otherwise the title gives the step of the first validation. Checkpoints store all validations, so that a
    resumed fit has those of an uninterrupted one.

    Where the run has a folder, the same is written to `results.md` in it after each validation and at the end, and to
    `results.json`: the metrics before and after, those of all validations, and the last training metrics.

    Args:
        enabled: Whether there are a table and files.

    Attributes:
        validations: Step and metrics of each validation of the fit, in [0, 1].
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.validations: list[Validation] = []
        self._training: dict[str, float] = {}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.validations, self._training = [], {}  # those of a resumed fit are loaded after this

    @property
    def before(self) -> Metrics:
        """Metrics of the first validation; empty before it."""
        return self.validations[0]["metrics"] if self.validations else {}

    @property
    def after(self) -> Metrics:
        """Metrics of the last validation; empty before the first."""
        return self.validations[-1]["metrics"] if self.validations else {}

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled or is_partial_sanity_check(trainer):
            return
        metrics = metrics_of(pl_module)
        if trainer.state.fn == "validate":
            self._print(trainer, None, metrics, "validation")
            self._write(trainer, {"validation": metrics}, table_of(None, metrics, "Validation"))
        elif metrics:
            self._training |= training_metrics(trainer)
            earlier = [one for one in self.validations if one["step"] != trainer.global_step]
            self.validations = [*earlier, {"step": trainer.global_step, "metrics": metrics}]
            self._write(trainer, self._results(trainer), self._table(trainer))

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled:
            self._print(trainer, None, metrics_of(pl_module), "test")
            self._write(trainer, {"test": metrics_of(pl_module)}, table_of(None, metrics_of(pl_module), "Test"))

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled:
            return
        self._training |= training_metrics(trainer)
        self._write(trainer, self._results(trainer), self._table(trainer))
        if self.validations:
            first, last = self.validations[0]["step"], self.validations[-1]["step"]
            once = len(self.validations) == 1  # `max_steps` may end a run between two validations
            title = fit_title(first, None if once else last, trainer.global_step)
            self._print(trainer, None if once else self.before, self.after, title)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations, "training": self._training}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations, self._training = state_dict.get("validations", []), state_dict.get("training", {})

    def _results(self, trainer: Trainer) -> dict[str, Any]:
        first, last = (self.validations[0], self.validations[-1]) if self.validations else (None, None)
        return {
            "steps": trainer.global_step,
            "before": first if first and first["step"] == 0 else None,
            "after": last if last and last["step"] > 0 else None,
            "validations": self.validations,
            "training": self._training,
        }

    def _table(self, trainer: Trainer) -> ChangeTable | None:
        return fit_table(self.validations[0], self.validations[-1], trainer.global_step) if self.validations else None

    def _print(self, trainer: Trainer, before: Metrics | None, after: Metrics, title: str) -> None:
        if trainer.is_global_zero and after:
            escape_unknown_characters()
            print_results(Console(), before, after, title)

    def _write(self, trainer: Trainer, results: dict[str, Any], table: ChangeTable | None) -> None:
        folder = run_dir(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        files = {RESULTS: json.dumps(_finite(results), indent=2) + "\n"}
        if table is not None:
            files[RESULTS_TABLE] = table.markdown()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                write_atomically(folder / name, text.encode("utf-8", errors="backslashreplace"))
        except OSError as error:
            rank_zero_warn(f"{RESULTS} was not written: {error.strerror} ({folder})")


def run_dir(trainer: Trainer) -> Path | None:
    """The folder of a run; None for a trainer that has neither one nor a logger. Collective: call it on every rank.

    Args:
        trainer: Of the run.
    """
    log_dir = trainer.log_dir
    has_folder = getattr(trainer, "run_folder", None) is not None or bool(trainer.loggers)
    return Path(log_dir) if has_folder and log_dir is not None else None


def training_metrics(trainer: Trainer) -> dict[str, float]:
    """What was logged last in training, by name.

    Args:
        trainer: Of the run.
    """
    return {name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("val/")}


def _finite(value: Any) -> Any:
    """A nested value with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    changes, table = table_of(before, after), Table(box=SIMPLE_HEAD)
    table.pad_edge = False  # three columns before and after training fit in 80 characters
    table.add_column("category")
    for name in changes.columns:
        table.add_column(name, justify="right")
    for name, cells in changes.rows:
        is_overall = name == OVERALL
        if is_overall:
            table.add_section()
        table.add_row(escape(name), *map(_cell, cells), style="bold" if is_overall else None)
    return table


def summary_lines(before: Metrics | None, after: Metrics) -> list[str]:
    """A line for each metric that has no categories. Arguments as for `results_table`."""
    return [
        f"{name}: {', '.join(f'{label} {_cell(cell)}' for label, cell in values)}"
        for name, values in table_of(before, after).others
    ]


def _cell(cell: Change) -> str:
    return f"{cell.text} [{COLORS[cell.kind]}]{cell.change}[/]" if cell.change else cell.text


def is_partial_sanity_check(trainer: Trainer) -> bool:
    """Whether the current validation is a sanity check of a few batches, whose metrics mean nothing."""
    return trainer.sanity_checking and trainer.num_sanity_val_steps != float("inf")
