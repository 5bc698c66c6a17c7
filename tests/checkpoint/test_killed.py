"""kill -9 in the middle of a step: what goes on from the newest whole checkpoint is the same run, to the last bit."""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package
sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

from mortal import assert_same_run, fit, forked, mortal
from pair import ended, together

from unirl.checkpoint import latest_valid
from unirl.distributed.strategies import register


@pytest.fixture
def checkpoints(shapes_checkpoint: Path, janus_checkpoint: Path) -> dict[str, Path]:
    return {"showo": shapes_checkpoint, "janus": janus_checkpoint}


def newest(folder: Path) -> Path:
    found = latest_valid([folder / "checkpoints"])
    assert found.path is not None
    return found.path


@pytest.mark.parametrize(
    ("kind", "rule", "updates", "batches"),
    [
        ("showo", "sft", 1, 1),
        ("showo", "grpo", 2, 1),
        ("showo", "sft", 1, 2),
        ("janus", "sft", 1, 1),
        ("janus", "grpo", 2, 2),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    kind: str, rule: str, updates: int, batches: int, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """It dies in the fourth batch: between two updates of a rollout, or between two batches of a step."""

    def run(name: str, ends_at: int | None = None, ckpt: Path | None = None) -> Any:
        model = mortal(kind, checkpoints[kind], rule, tmp_path / name, num_iterations=updates)
        model.ends_at = ends_at
        return fit(model, ckpt=ckpt, accumulate_grad_batches=batches)

    run("whole")
    assert forked(partial(run, "parts", 3), tmp_path / "log") == -signal.SIGKILL
    saved = newest(tmp_path / "parts")
    held = torch.load(saved, weights_only=True)
    assert (saved.name, "rollout" in held, "accumulated_gradients" in held) == ("2.ckpt", updates > 1, batches > 1)
    run("parts", ckpt=saved)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("kind", "rule", "updates", "batches", "strategy"),
    [
        ("showo", "grpo", 2, 1, "ddp"),
        ("showo", "sft", 1, 2, "ddp"),
        ("janus", "sft", 2, 2, "ddp"),
        ("showo", "sft", 2, 2, "fsdp2"),
    ],
)
def test_two_processes_of_which_one_is_killed_go_on_as_if_nothing_had_been(
    kind: str, rule: str, updates: int, batches: int, strategy: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """It dies in the fourth batch, in the middle as above."""

    def run(folder: Path, ends_at: int | None = None, ckpt: Path | None = None) -> int:
        register()
        model = mortal(kind, checkpoints[kind], rule, folder, num_iterations=updates)
        model.ends_at = ends_at if os.environ["LOCAL_RANK"] == "0" else None
        return fit(model, ckpt=ckpt, strategy=strategy, devices=2, accumulate_grad_batches=batches).global_step

    steps = 5 if batches == 1 else 3
    assert together(run, tmp_path / "whole") == [steps, steps]
    codes, _ = ended(run, tmp_path / "parts", 3, patience=300)
    assert codes[0] == -signal.SIGKILL
    assert codes[1] != 0
    saved = newest(tmp_path / "parts")
    assert saved.name == "2.ckpt"
    assert together(run, tmp_path / "parts", None, saved) == [steps, steps]
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("every", [1.0, 0.5])
def test_a_validation_that_a_signal_cut_off_is_made_up(
    every: float, sent: signal.Signals, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """At the end of an epoch, and in its middle."""

    def run(name: str, dies: bool = False, ckpt: Path | None = None) -> Any:
        model = mortal("showo", shapes_checkpoint, "sft", tmp_path / name)
        model.ends_in_validation, model.sent = dies, sent
        options = {"steps_per_epoch": 2, "max_epochs": 2, "limit_val_batches": 1.0, "val_check_interval": every}
        return fit(model, ckpt=ckpt, **options)

    run("whole")
    assert forked(partial(run, "parts", True), tmp_path / "log") == (-sent if sent == signal.SIGKILL else 0)
    run("parts", ckpt=newest(tmp_path / "parts"))
    assert_same_run(tmp_path / "whole", tmp_path / "parts", last=3)


def test_a_made_up_validation_that_is_cut_off_is_made_up_again(shapes_checkpoint: Path, tmp_path: Path) -> None:
    """Killed in a validation; and while the next run makes up for it, the cluster needs the place."""

    def run(name: str, sent: signal.Signals | None = None, ckpt: Path | None = None) -> Any:
        model = mortal("showo", shapes_checkpoint, "sft", tmp_path / name)
        model.ends_in_validation, model.sent = sent is not None, sent or signal.SIGKILL
        return fit(model, ckpt=ckpt, steps_per_epoch=2, max_epochs=2, limit_val_batches=1.0)

    run("whole")
    log = tmp_path / "log"
    assert forked(partial(run, "parts", signal.SIGKILL), log) == -signal.SIGKILL
    saved = newest(tmp_path / "parts")
    assert forked(partial(run, "parts", signal.SIGTERM, saved), log) == 0
    said = log.read_text().splitlines()[-1]
    assert "nothing had to be saved. Go on with: unirl fit --config" in said
    assert said.endswith(f"--ckpt_path {saved}")
    assert newest(tmp_path / "parts") == saved
    run("parts", ckpt=saved)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", last=3)
