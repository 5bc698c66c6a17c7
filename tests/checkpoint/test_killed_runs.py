"""kill -9 in the middle of a step: a run that is resumed from the newest valid checkpoint is the same, bit for bit."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package
sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

from interrupted_runs import AFTER_BATCHES, assert_same_run, fit, make_model, run_forked
from processes import exit_codes, run_processes

from unirl.checkpoint import latest_valid
from unirl.distributed.strategies import register

KILLED_IN_BATCH = 3
Sampler = Literal["uniform", "adaptive"]


def newest(folder: Path) -> Path:
    path = latest_valid([folder / "checkpoints"]).path
    assert path is not None
    return path


@pytest.mark.parametrize(
    ("backbone", "rule", "num_iterations", "accumulated", "sampler"),
    [
        *(("showo", "sft", 1, 2, "adaptive"), ("showo", "grpo", 2, 1, "uniform")),
        *(("janus", "sft", 1, 1, "uniform"), ("janus", "grpo", 2, 2, "adaptive")),
    ],
)
def test_a_killed_run_resumes_exactly(
    backbone: str,
    rule: str,
    num_iterations: int,
    accumulated: int,
    sampler: Sampler,
    checkpoints: dict[str, Path],
    tmp_path: Path,
) -> None:
    """It is killed in the second iteration of a rollout, or in the second batch of a step."""

    def run(name: str, signal_batch: int | None = None, ckpt_path: Path | None = None) -> None:
        model = make_model(backbone, checkpoints[backbone], rule, tmp_path / name, num_iterations)
        model.signal_batch = signal_batch
        fit(model, ckpt_path=ckpt_path, sampler=sampler, accumulate_grad_batches=accumulated)

    run("uninterrupted")
    assert run_forked(partial(run, "resumed", KILLED_IN_BATCH), tmp_path / "log") == -signal.SIGKILL
    saved = newest(tmp_path / "resumed")
    checkpoint = torch.load(saved, weights_only=True)
    assert (saved.name, "rollouts" in checkpoint) == (f"{KILLED_IN_BATCH - accumulated}.ckpt", num_iterations > 1)
    assert ("PromptsDataModule" in checkpoint) == (sampler == "adaptive")
    run("resumed", ckpt_path=saved)
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "resumed")


@pytest.mark.parametrize(
    ("backbone", "rule", "num_iterations", "accumulated", "strategy", "sampler"),
    [
        ("showo", "grpo", 2, 1, "ddp", "adaptive"),
        ("janus", "sft", 2, 2, "ddp", "uniform"),
        ("showo", "sft", 2, 2, "fsdp2", "adaptive"),
    ],
)
def test_two_processes_resume_exactly_after_one_was_killed(
    backbone: str,
    rule: str,
    num_iterations: int,
    accumulated: int,
    strategy: str,
    sampler: Sampler,
    checkpoints: dict[str, Path],
    tmp_path: Path,
) -> None:
    def run(folder: Path, signal_batch: int | None = None, ckpt_path: Path | None = None) -> int:
        register()
        model = make_model(backbone, checkpoints[backbone], rule, folder, num_iterations)
        model.signal_batch = signal_batch if os.environ["LOCAL_RANK"] == "0" else None
        options: dict[str, Any] = {"strategy": strategy, "devices": 2, "accumulate_grad_batches": accumulated}
        return fit(model, ckpt_path=ckpt_path, sampler=sampler, **options).global_step

    steps = 5 if accumulated == 1 else 3
    assert run_processes(run, tmp_path / "uninterrupted") == [steps, steps]
    codes, _ = exit_codes(run, tmp_path / "resumed", KILLED_IN_BATCH, timeout=300)
    assert codes[0] == -signal.SIGKILL
    assert codes[1] != 0
    saved = newest(tmp_path / "resumed")
    assert saved.name == f"{KILLED_IN_BATCH - accumulated}.ckpt"
    assert run_processes(run, tmp_path / "resumed", None, saved) == [steps, steps]
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "resumed")


def run_with_validation(
    checkpoint: Path,
    folder: Path,
    val_check_interval: float = 1.0,
    signal_to_send: signal.Signals | None = None,
    signal_in_validation: int = 0,
    ckpt_path: Path | None = None,
) -> None:
    """Two epochs of two steps; a signal, if any, is sent in a batch of the first of the validations of two batches."""
    model = make_model("showo", checkpoint, "sft", folder)
    model.signal_in_validation = None if signal_to_send is None else signal_in_validation
    model.signal_to_send = signal_to_send or signal.SIGKILL
    options: dict[str, Any] = {"max_epochs": 2, "limit_val_batches": 1.0, "val_check_interval": val_check_interval}
    fit(model, ckpt_path=ckpt_path, steps_per_epoch=2, **options)


@pytest.fixture(scope="module")
def uninterrupted(shapes_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """The folder of an uninterrupted run with a validation interval; each is run once."""
    folders: dict[float, Path] = {}

    def folder(val_check_interval: float) -> Path:
        if val_check_interval not in folders:
            folders[val_check_interval] = tmp_path_factory.mktemp("uninterrupted")
            run_with_validation(shapes_checkpoint, folders[val_check_interval], val_check_interval)
        return folders[val_check_interval]

    return folder


@pytest.mark.parametrize(
    ("val_check_interval", "sent", "batch"),
    [
        *((1.0, signal.SIGKILL, 0), (1.0, signal.SIGTERM, 0), (1.0, signal.SIGTERM, AFTER_BATCHES)),
        *((0.5, signal.SIGKILL, 0), (0.5, signal.SIGTERM, AFTER_BATCHES)),
    ],
)
def test_an_interrupted_validation_is_resumed_exactly(
    val_check_interval: float,
    sent: signal.Signals,
    batch: int,
    uninterrupted: Callable[[float], Path],
    shapes_checkpoint: Path,
    tmp_path: Path,
) -> None:
    """At the end of an epoch, and in its middle. After its last batch, a validation is finished and not replayed."""
    run = partial(run_with_validation, shapes_checkpoint, tmp_path / "resumed", val_check_interval)
    assert run_forked(partial(run, sent, batch), tmp_path / "log") == (-sent if sent == signal.SIGKILL else 0)
    run(ckpt_path=newest(tmp_path / "resumed"))
    assert_same_run(uninterrupted(val_check_interval), tmp_path / "resumed", last=3)


def test_an_interrupted_replay_is_replayed(
    uninterrupted: Callable[[float], Path], shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """The run is killed in a validation, and the resumed run gets SIGTERM while it replays it."""
    run, log = partial(run_with_validation, shapes_checkpoint, tmp_path / "resumed"), tmp_path / "log"
    assert run_forked(partial(run, signal_to_send=signal.SIGKILL), log) == -signal.SIGKILL
    saved = newest(tmp_path / "resumed")
    assert run_forked(partial(run, signal_to_send=signal.SIGTERM, ckpt_path=saved), log) == 0
    message = log.read_text().splitlines()[-1]
    assert "nothing had to be saved. Resume with: unirl fit --config" in message
    assert message.endswith(f"--ckpt_path {saved}")
    assert newest(tmp_path / "resumed") == saved
    run(ckpt_path=saved)
    assert_same_run(uninterrupted(1.0), tmp_path / "resumed", last=3)


def test_a_resumed_run_saves_after_optimizer_steps_only(shapes_checkpoint: Path, tmp_path: Path) -> None:
    """ModelCheckpoint alone would save the step that it resumes from again, after one of two batches."""

    def run(name: str, ckpt_path: Path | None = None, **options: Any) -> set[tuple[int, int]]:
        """Steps and batches of all checkpoints."""
        saving = ModelCheckpoint(tmp_path / name, every_n_train_steps=1, save_top_k=-1)
        model = make_model("showo", shapes_checkpoint, "sft", tmp_path / "run")
        fit(model, saving, ckpt_path, steps_per_epoch=6, accumulate_grad_batches=2, **options)
        states = [torch.load(path, weights_only=True) for path in (tmp_path / name).iterdir()]
        progress = [s["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] for s in states]
        return {(s["global_step"], ready) for s, ready in zip(states, progress, strict=True)}

    assert run("first", max_steps=1) == {(1, 2)}
    (saved,) = (tmp_path / "first").iterdir()
    assert run("resumed", saved) == {(2, 4), (3, 6)}
