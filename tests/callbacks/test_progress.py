"""The progress bar in a terminal, the lines without one, and the estimate of the time that is left."""

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from unirl.callbacks import Guards, ParameterCount, RunProgressBar
from unirl.callbacks.status import TimeLeft, num_validations, step_line, validation_line, values_text
from unirl.errors import UserError

METRICS = {"generation": {"overall": 0.5}, "understanding": {"overall": 0.875}, "self_reward": {"overall": 0.7}}


class Module(LightningModule):
    """Logs what `SelfImprovement` logs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.val_metrics = torch.nn.Parameter(torch.zeros(1)), METRICS

    def training_step(self, batch: Tensor) -> Tensor:
        self.log_dict({"loss": 0.25, "reward": 0.625}, prog_bar=True)
        return self.weight.sum() * 0

    def validation_step(self, batch: Tensor) -> None:
        pass

    test_step = validation_step

    def train_dataloader(self) -> Any:
        return DataLoader([torch.zeros(1)] * 6)

    val_dataloader = test_dataloader = train_dataloader

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Talk(Callback):
    """Prints and logs in the first steps."""

    def __init__(self) -> None:
        self.guards = Guards()

    def on_train_batch_end(self, *args: Any) -> None:
        batch_idx = args[-1]
        if batch_idx == 0:
            print("a print that is longer than a line of the terminal, such as a command" + 20 * " --option")
        if batch_idx == 1:
            print("a print to stderr", file=sys.stderr)
        if batch_idx == 2:
            logging.getLogger("a logger").warning("a log message")
        if batch_idx == 3:
            self.guards._warn(["a guard"])


class Terminal(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What is visible at the end."""
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\n|\r|[^\x1b\n\r]+", self.getvalue()):
            if part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row - len(lines) + 1)
            elif part == "\r":
                column = 0
            elif part == "\x1b[2K":
                lines[row] = ""
            elif part.startswith("\x1b["):
                row -= int(part[2:-1] or 1) if part.endswith("A") else 0
            else:
                lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines]

    def bars(self) -> list[str]:
        """All states of the bar, without colors."""
        texts = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue()))
        return [text for text in texts if "━" in text]


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(callbacks=list(callbacks), accelerator="cpu", **{"max_epochs": 2, **quiet, **settings})


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal in place of stdout and stderr. In the test itself, since pytest replaces them before it."""
    screen = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"COLUMNS": "80", "TERM": "xterm"}.items():
            patch.setenv(name, value)
        patch.setattr("rich._console", None)  # it reads its width when it is made
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, screen)
        yield screen


def test_a_bar_of_one_line_above_which_everything_else_appears() -> None:
    logger = logging.getLogger("a logger")
    with terminal() as screen:
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        trainer(RunProgressBar(), Talk(), num_sanity_val_steps=-1, max_epochs=1).fit(Module())
        logger.removeHandler(handler)
        assert sys.stdout is sys.stderr is handler.stream is screen
    expected = [
        "validation before training: generation 50.0, understanding 87.5",
        "a print that is longer than a line of the terminal, such as a command" + 20 * " --option",
        "a print to stderr",
        "a log message",
        "warning: a guard.",
        "validation at step 6: generation 50.0 (+0.0), understanding 87.5 (+0.0)",
    ]
    assert [line for line in screen.screen() if line] == expected  # the bar is removed at the end
    bars = screen.bars()
    assert all(len(bar) <= 80 for bar in bars), bars
    assert any(bar.startswith("validation 6/6") for bar in bars)
    last = [bar for bar in bars if bar.startswith("step")][-1].rstrip()
    assert re.fullmatch(r"step 6/6 ━+ 0:00:00 left reward 0.625 loss 0.250 gen 50.0 und 87.5", last), last


def test_a_bar_for_validate_and_test() -> None:
    for command in ("validate", "test"):
        with terminal() as screen:
            getattr(trainer(RunProgressBar()), command)(Module(), verbose=False)
        assert {bar.split()[0] for bar in screen.bars()} == {"validation" if command == "validate" else "test"}
        assert not any(screen.screen())


def test_lines_where_the_output_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(RunProgressBar(), num_sanity_val_steps=-1).fit(Module())
    times = r"[\d.]+(e-\d+)? s/step, \d:\d\d:\d\d left"
    lines = [re.sub(times, "T s/step, T left", line) for line in capsys.readouterr().out.splitlines()]
    rest = "T left, reward 0.625, loss 0.250, generation 50.0, understanding 87.5"
    assert lines == [
        "validation before training: generation 50.0, understanding 87.5",
        f"step 1/12, T s/step, {rest}",
        "validation at step 6: generation 50.0 (+0.0), understanding 87.5 (+0.0)",
        f"step 12/12, T s/step, {rest}",
        "validation at step 12: generation 50.0 (+0.0), understanding 87.5 (+0.0)",
    ]
    bar = RunProgressBar()
    bar.interval = 0.0  # however fast a step is
    trainer(bar, limit_val_batches=0, max_epochs=-1, max_time={"minutes": 9}, max_steps=3).fit(Module())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["step 1/3", "step 2/3", "step 3/3"]
    assert all("generation" not in line for line in lines)


def test_a_run_that_only_the_time_ends_says_when(capsys: pytest.CaptureFixture[str]) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = True

    trainer(RunProgressBar(), Stop(), limit_val_batches=0, max_epochs=-1, max_time={"hours": 30}).fit(Module())
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"step 1, .* s/step, 29:5\d:\d\d left, reward 0.625, loss 0.250", line), line


def test_a_disabled_bar_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    bar = RunProgressBar(interval=0.001)
    bar.disable()
    trainer(bar, num_sanity_val_steps=-1).fit(Module())
    assert capsys.readouterr().out == ""


def test_the_time_left_counts_validations() -> None:
    estimate = TimeLeft()
    assert estimate.seconds(10, 1) is None
    for seconds in (1.0, 3.0):  # with `num_iterations: 2`, every second batch generates no images
        estimate.add_batch(seconds)
    assert estimate.seconds(10, 0) == 20
    estimate.validation = 7.0
    assert estimate.seconds(10, 2) == 34
    assert [num_validations(done, 400, 100) for done in (0, 99, 100, 399, 400)] == [4, 4, 3, 1, 0]
    assert num_validations(0, 400, float("inf")) == 0


def test_lines() -> None:
    assert values_text({"generation": 50.0, "understanding": 60.0}, 120) == "generation 50.0 understanding 60.0"
    assert step_line(3, None, 0.5, None, {}) == "step 3, 0.5 s/step"
    assert (
        validation_line(0, {"diversity": {"codes": 0.25}}, {}) == "validation before training: diversity of codes 25.0"
    )
    assert validation_line(5, {}, {}) == ""
    with pytest.raises(UserError, match="interval 0"):
        RunProgressBar(interval=0)


def test_the_summary_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    module = Module()
    module.frozen = torch.nn.Parameter(torch.zeros(1999), requires_grad=False)
    trainer(ParameterCount(), max_steps=1, limit_val_batches=0, enable_progress_bar=False).fit(module)
    assert capsys.readouterr().out == "model: 2.0 K parameters, 1 of them trained\n"
