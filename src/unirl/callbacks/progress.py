"""Progress of a run: a bar of one line in a terminal, and lines at intervals where the output is not a terminal."""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar, Timer
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
from rich import get_console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text
from typing_extensions import override

from unirl.callbacks.results import ResultsTable, is_partial_sanity_check, metrics_of
from unirl.callbacks.status import (
    TimeLeft,
    accuracies,
    clock,
    num_validations,
    of_total,
    step_line,
    validation_line,
    values_text,
)
from unirl.errors import check_range
from unirl.output import escape_unknown_characters

MIN_REFRESH = 0.5
"""Least seconds between two readings of the metrics, since each waits for the device."""


class RunProgressBar(ProgressBar):
    """Shows the step, the time left of the whole run, reward, loss and the last accuracies in percent.

    In a terminal it is a bar of one line, which is removed at the end. Where the output is a file or a pipe, it is a
    line after the first and the last step and every `interval` seconds. Both print a line after each validation of a
    fit. `unirl fit` adds it unless `trainer.enable_progress_bar` is false or `trainer.callbacks` has a progress bar.

    Args:
        interval: Seconds between two lines where the output is not a terminal. A step that takes longer is followed by
            a line.

    Raises:
        UserError: `interval` is not above 0.

    Example:
        >>> RunProgressBar(interval=10).interval
        10
    """

    def __init__(self, interval: float = 30.0) -> None:
        super().__init__()
        check_range(0.001, 1e9, "RunProgressBar", interval=interval)
        escape_unknown_characters()
        self.interval = interval
        self._enabled = True
        self._bar: TerminalBar | None = None
        self._estimate = TimeLeft()
        self._values: dict[str, float] = {}
        self._accuracies: dict[str, float] = {}
        self._first_accuracies: dict[str, float] = {}
        self._batch_began = self._evaluation_began = 0.0
        self._last_shown = -float("inf")

    @override
    def disable(self) -> None:
        self._enabled = False
        self._stop()

    @override
    def enable(self) -> None:
        self._enabled = True

    # --- training ---

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()
        self._batch_began = time.monotonic()
        if self._bar:
            self._bar.update("step", trainer.global_step, total_steps(trainer))

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        now = time.monotonic()
        self._estimate.add_batch(now - self._batch_began)
        self._batch_began = now
        step, total = trainer.global_step, total_steps(trainer)
        shown_for = now - self._last_shown
        if not self._enabled or (shown_for < (MIN_REFRESH if self._bar else self.interval) and step != total):
            return
        self._last_shown = now
        self._values = _step_values(trainer.callback_metrics)
        seconds = self._seconds_left(trainer, validation_is_due=True)
        if self._bar:
            self._bar.update("step", step, total, seconds, self._values | self._accuracies)
        else:
            step_seconds = self._estimate.batch * trainer.accumulate_grad_batches
            print(step_line(step, total, step_seconds, seconds, self._values | self._accuracies), flush=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    # --- validation ---

    @override
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_evaluation("validation", trainer)

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        batch_idx = kwargs.get("batch_idx", args[2] if len(args) > 2 else 0)
        self._show_evaluation("validation", batch_idx + 1, _num_batches(trainer))

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._stop()
            return
        self._batch_began = time.monotonic()
        if is_partial_sanity_check(trainer):
            return
        self._estimate.validation = self._batch_began - self._evaluation_began
        metrics = metrics_of(pl_module)
        self._accuracies = accuracies(metrics)
        first = _before_training(trainer) or self._first_accuracies
        self._first_accuracies = self._first_accuracies or self._accuracies
        if self._enabled and (line := validation_line(trainer.global_step, metrics, first)):
            print(line, flush=True)
        if self._bar and trainer.global_step:
            seconds = self._seconds_left(trainer, validation_is_due=False)
            values = self._values | self._accuracies
            self._bar.update("step", trainer.global_step, total_steps(trainer), seconds, values)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_evaluation("test", trainer)

    @override
    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        batch_idx = kwargs.get("batch_idx", args[2] if len(args) > 2 else 0)
        self._show_evaluation("test", batch_idx + 1, _num_batches(trainer))

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    # --- the end, and what is shown ---

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def _start_evaluation(self, name: str, trainer: Trainer) -> None:
        self._start()
        self._evaluation_began = time.monotonic()
        if self._bar:
            self._bar.update(name, 0, _num_batches(trainer))

    def _show_evaluation(self, name: str, batch: int, total: float) -> None:
        now = time.monotonic()
        if self._bar:
            self._bar.update(name, batch, total)
        elif self._enabled and now - max(self._last_shown, self._evaluation_began) >= self.interval and batch < total:
            self._last_shown = now
            print(f"{name}: batch {batch}{of_total(total)}", flush=True)

    def _seconds_left(self, trainer: Trainer, validation_is_due: bool) -> float | None:
        """Seconds to the end of the run, None where they are not known.

        Args:
            trainer: In training.
            validation_is_due: Whether a validation after the last step, if there is one, is still to come.
        """
        limits = [c.time_remaining() for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
        total, accumulated = total_steps(trainer), trainer.accumulate_grad_batches
        if total is not None:
            done, end = trainer.global_step * accumulated, total * accumulated
            validated = done - 1 if validation_is_due else done
            limits.append(self._estimate.seconds(end - done, num_validations(validated, end, _interval(trainer))))
        return min((limit for limit in limits if limit is not None), default=None)

    def _start(self) -> None:
        console = get_console()
        if self._enabled and self._bar is None and sys.stdout.isatty() and console.is_interactive:
            self._bar = TerminalBar()

    def _stop(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None


class TerminalBar:
    """A line at the bottom of the terminal. What is printed, warned or logged meanwhile appears above it."""

    def __init__(self) -> None:
        console = get_console()
        # A command that is printed above the bar can be copied only if no line break is put into it.
        self._soft_wrap, console.soft_wrap = console.soft_wrap, True
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            _TimeLeftColumn(),
            TextColumn("{task.fields[values]}"),
            console=console,
            refresh_per_second=2,
            transient=True,
            expand=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=None, values="", ends=None, visible=False)
        streams = {id(stream): name for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))}
        self._progress.start()
        # A handler keeps the stream that it was made with.
        self._handlers = [(handler, handler.stream) for handler in _stream_handlers() if id(handler.stream) in streams]
        for handler, stream in self._handlers:
            handler.setStream(getattr(sys, streams[id(stream)]))

    def update(
        self,
        name: str,
        count: int,
        total: float | None,
        seconds: float | None = None,
        values: Mapping[str, float] | None = None,
    ) -> None:
        """Show a step, or a batch of a validation.

        Args:
            name: What is counted.
            count: How many are done.
            total: How many there are; None if that is not known.
            seconds: Time left of the run; None leaves what is shown.
            values: Values to show; None leaves what is shown.
        """
        fields: dict[str, Any] = {}
        if seconds is not None:
            fields["ends"] = time.monotonic() + seconds
        if values is not None:
            fields["values"] = values_text(values, self._progress.console.width)
        description, end = f"{name} {count}{of_total(total)}", float("inf") if total is None else total
        self._progress.update(
            self._task, description=description, total=end, completed=count, visible=True, refresh=True, **fields
        )

    def stop(self) -> None:
        """Remove the line."""
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._progress.stop()
        self._progress.console.soft_wrap = self._soft_wrap


class _TimeLeftColumn(ProgressColumn):
    """Counts down between two updates."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))

    @override
    def render(self, task: Task) -> Text:
        ends: float | None = task.fields["ends"]
        return Text("" if ends is None else f"{clock(max(0.0, ends - time.monotonic()))} left")


def _stream_handlers() -> "list[logging.StreamHandler[Any]]":  # Python 3.10 has no such class to subscript
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    return [handler for handler in dict.fromkeys(handlers) if type(handler) is logging.StreamHandler]


class ParameterCount(ModelSummary):
    """Prints the number of parameters, in place of Lightning's table of modules."""

    @staticmethod
    @override
    def summarize(
        summary_data: Any, total_parameters: int, trainable_parameters: int, *args: Any, **kwargs: Any
    ) -> None:
        counts = [get_human_readable_count(int(count)).strip() for count in (total_parameters, trainable_parameters)]
        print(f"model: {counts[0]} parameters, {counts[1]} of them trained", flush=True)


def _before_training(trainer: Trainer) -> dict[str, float]:
    """The first accuracies of the run, also if it was resumed. Empty in the first validation."""
    tables = [callback for callback in trainer.callbacks if isinstance(callback, ResultsTable)]  # type: ignore[attr-defined]
    return accuracies(tables[0].before) if tables else {}


def _interval(trainer: Trainer) -> float:
    """Training batches between two validations."""
    batches, every = trainer.num_training_batches, trainer.val_check_batch
    if not sum(trainer.num_val_batches) or every is None or every == float("inf"):
        return float("inf")
    epochs = trainer.check_val_every_n_epoch
    return every if epochs is None else epochs * batches / max(1, batches // every)


def total_steps(trainer: Trainer) -> int | None:
    """Optimizer steps of a whole fit, or None if only something else ends it.

    Args:
        trainer: Of the fit.
    """
    total = trainer.estimated_stepping_batches
    return int(total) if 0 < total < float("inf") else None


def _num_batches(trainer: Trainer) -> float:
    if trainer.state.fn == "test":
        return sum(trainer.num_test_batches)
    return sum(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)


def _step_values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Reward and loss of the last step, as far as they are logged.

    Args:
        metrics: The trainer's `callback_metrics`.
    """
    return {name: float(metrics[name]) for name in ("reward", "loss") if name in metrics}
