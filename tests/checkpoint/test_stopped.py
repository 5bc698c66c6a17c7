"""SIGTERM, and disks that fill up or become read-only while a run is on: what the user reads, and what is left."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from mortal import EachBatch, fit, forked, mortal

from unirl.backbones.showo import Showo
from unirl.checkpoint import find_corruption
from unirl.cli.main import main
from unirl.training.module import SelfImprovement

CONFIG = Path(__file__).parents[2] / "configs" / "showo_sft.yaml"


def overlay(folder: Path, checkpoint: Path, **trainer: Any) -> list[str]:
    """The command of a short run, in a folder with a space in its name."""
    saving = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 1, "save_top_k": -1}}
    still = {"limit_val_batches": 0, "num_sanity_val_steps": 0, "enable_progress_bar": False}
    model = {"backbone": {"checkpoint": str(checkpoint)}, "group_size": 2, "accept": 0.0, "sampling": {"steps": 2}}
    options = {
        "name": "a run",
        "model": model | {"num_iterations": 1},
        "data": {"prompts_per_step": 2, "steps_per_epoch": 4, "held_out": 12, "val_batch_size": 12},
        "trainer": {"default_root_dir": str(folder), "max_epochs": 1, "callbacks": [saving]} | still | trainer,
    }
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(json.dumps(options))
    return ["fit", "--config", str(CONFIG), "--config", str(path)]


def interrupted(work: Any, batch: int, arguments: list[str]) -> None:
    """A run in which something happens after the backward pass of a batch."""
    before = SelfImprovement.on_after_backward

    def after(module: SelfImprovement) -> None:
        before(module)
        if module.trainer.fit_loop.total_batch_idx == batch:
            work()

    SelfImprovement.on_after_backward = after  # type: ignore[method-assign]
    main(arguments)


def assert_same_model(one: Path, other: Path) -> None:
    (first,), (second,) = one.rglob("pretrained"), other.rglob("pretrained")
    weights = Showo.from_pretrained(str(second)).state_dict()
    for name, value in Showo.from_pretrained(str(first)).state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(("batches", "step"), [(1, 1), (2, 1)])
def test_a_run_that_gets_sigterm_says_how_to_go_on(
    batches: int, step: int, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """It comes in the first batch; with two of them to a step, the second one is waited for."""
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    options = {"accumulate_grad_batches": batches}
    assert forked(partial(main, overlay(whole, shapes_checkpoint, **options)), log) == 0, log.read_text()
    arguments = overlay(parts, shapes_checkpoint, **options)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    assert forked(partial(interrupted, stop, 0, arguments), log) == 0, log.read_text()
    found = re.search(rf"Stopped by SIGTERM after step {step}\. Go on with: unirl (.*)", log.read_text())
    assert found, log.read_text()
    (saved,) = parts.rglob("stopped.ckpt")
    held = torch.load(saved, weights_only=True)
    assert (held["global_step"], "accumulated_gradients" in held) == (step, False)
    assert forked(partial(main, shlex.split(found[1])), log) == 0, log.read_text()
    assert_same_model(whole, parts)


def test_a_log_folder_that_becomes_read_only_ends_the_run_with_a_sentence(
    disk: Path, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    folder, log = disk / "runs", tmp_path / "log"
    arguments = overlay(folder, shapes_checkpoint)

    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)

    assert forked(partial(interrupted, partial(remount, "ro"), 2, arguments), log) == 2, log.read_text()
    remount("rw")
    last = log.read_text().splitlines()[-1]
    assert re.match(r"unirl: error: Read-only file system.*the run stops; what was saved before is intact", last)
    saved = sorted(folder.rglob("*.ckpt"))
    assert [path.name for path in saved] == ["epoch=0-step=1.ckpt", "epoch=0-step=2.ckpt", "last.ckpt"]
    assert forked(partial(main, [*arguments, "--ckpt_path", "last"]), log) == 0, log.read_text()
    assert f"going on from {saved[2]}" in log.read_text()
    whole = tmp_path / "whole"
    assert forked(partial(main, overlay(whole, shapes_checkpoint)), log) == 0, log.read_text()
    assert_same_model(whole, folder)


class Filling(EachBatch):
    """Somebody fills the disk after the first checkpoint, and makes room again before the last one."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        batch, other = trainer.fit_loop.total_batch_idx, self.dirpath.parent / "other"
        if batch == 1:
            free = os.statvfs(self.dirpath)
            size = (self.dirpath / "0.ckpt").stat().st_size
            with other.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - size // 2)
        if batch == 3:
            other.unlink()
        super().on_train_batch_end(trainer)


def test_a_full_disk_does_not_stop_a_run(disk: Path, shapes_checkpoint: Path, tmp_path: Path) -> None:
    model = mortal("showo", shapes_checkpoint, "sft", tmp_path / "run")
    with pytest.warns(UserWarning, match="no checkpoint was saved at step 2: No space left on device"):
        fit(model, Filling(disk / "checkpoints"), steps_per_epoch=4)
    left = sorted((disk / "checkpoints").iterdir())
    assert [path.name for path in left] == ["0.ckpt", "3.ckpt"]
    assert [find_corruption(path) for path in left] == [None, None]
    held = torch.load(left[1], weights_only=True)
    assert held["global_step"] == 4
    for name, value in model.state_dict().items():
        assert torch.equal(held["state_dict"][name], value), name
