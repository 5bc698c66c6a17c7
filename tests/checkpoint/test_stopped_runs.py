"""SIGTERM, and disks that fill up or become read-only during a run: the messages, and what is on the disk."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from interrupted_runs import SaveEachStep, fit, make_model, run_forked

from unirl import AnswerSampling, ImageSampling, SamplingConfig
from unirl.backbones.showo import Showo
from unirl.callbacks.preemption import Preempted
from unirl.checkpoint import find_corruption
from unirl.checkpoint.resume import JOB_FILE, checkpoint_folders
from unirl.cli.main import main
from unirl.distributed.slurm import requeue_job, requeue_signal
from unirl.training import SelfImprovement

CONFIG = Path(__file__).parents[2] / "configs" / "showo_sft.yaml"


def fit_arguments(folder: Path, checkpoint: Path, **trainer: Any) -> list[str]:
    """Arguments of a short run, in a folder with a space in its name."""
    every = {"every_n_train_steps": 1, "save_top_k": -1, "save_last": "link"}
    saving = {"class_path": "ModelCheckpoint", "init_args": every}
    rollout = {"group_size": 2, "num_iterations": 1, "accept_threshold": 0.0, "image_sampling": {"steps": 2}}
    quiet = {"limit_val_batches": 0, "num_sanity_val_steps": 0, "enable_progress_bar": False}
    options = {
        "name": "a run",
        "model": {"backbone": {"init_args": {"checkpoint": str(checkpoint)}}, "rollout": rollout}
        | {"exclude_frozen_parameters": True},
        "data": {"prompts_per_step": 2, "steps_per_epoch": 4, "num_val_prompts": 12, "val_batch_size": 12},
        "trainer": {"default_root_dir": str(folder), "max_epochs": 1, "callbacks": [saving]} | quiet | trainer,
    }
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(json.dumps(options))
    return ["fit", "--config", str(CONFIG), "--config", str(path)]


def fit_with_event(event: Callable[[], None], batch: int, arguments: list[str]) -> None:
    """A run in which something happens after the backward pass of a batch."""
    original = SelfImprovement.on_after_backward

    def on_after_backward(module: SelfImprovement) -> None:
        original(module)
        if module.trainer.fit_loop.total_batch_idx == batch:
            event()

    SelfImprovement.on_after_backward = on_after_backward  # type: ignore[method-assign] # in a process of its own
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup pytest &` ignores it
    main(arguments)


@pytest.fixture(scope="module")
def uninterrupted(shapes_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The folder of an uninterrupted run with some accumulated batches; each is run once."""
    folders: dict[int, Path] = {}

    def folder(accumulated: int) -> Path:
        if accumulated not in folders:
            parent = tmp_path_factory.mktemp("uninterrupted")
            folders[accumulated], log = parent / "runs", parent / "log"
            arguments = fit_arguments(folders[accumulated], shapes_checkpoint, accumulate_grad_batches=accumulated)
            assert run_forked(partial(main, arguments), log) == 0, log.read_text()
        return folders[accumulated]

    return folder


def assert_same_model(first: Path, second: Path) -> None:
    """The exported weights are equal."""
    (one,), (other,) = first.rglob("pretrained"), second.rglob("pretrained")
    weights = Showo.from_pretrained(str(other)).state_dict()
    for name, value in Showo.from_pretrained(str(one)).state_dict().items():
        assert torch.equal(value, weights[name]), name


SLURM = {
    **{"SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"},
    **{"SLURM_NNODES": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
}
"""Variables that `srun` sets for a job of one process."""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM job. `scontrol` writes its arguments to the file."""
    program, arguments = tmp_path / "bin" / "scontrol", tmp_path / "scontrol.txt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> "{arguments}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    return arguments


@pytest.mark.parametrize("accumulated", [1, 2])
def test_sigterm_saves_the_step_and_prints_the_command_that_resumes(
    accumulated: int,
    uninterrupted: Callable[[int], Path],
    shapes_checkpoint: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """It arrives in the first batch; with two batches to a step, the second one is finished, here in a SLURM job."""
    requeued: Path | None = request.getfixturevalue("slurm") if accumulated == 2 else None
    folder, log = tmp_path / "runs", tmp_path / "log"
    arguments = fit_arguments(folder, shapes_checkpoint, accumulate_grad_batches=accumulated)

    def send_sigterm() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    assert run_forked(partial(fit_with_event, send_sigterm, 0, arguments), log) == 0, log.read_text()
    command = re.search(r"Stopped by SIGTERM after step 1\. Resume with: unirl (.*)", log.read_text())
    assert command, log.read_text()
    (saved,) = folder.rglob("stopped.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] == 1
    assert requeued is None or not requeued.exists()  # by SLURM itself, if it preempts the job
    assert run_forked(partial(main, shlex.split(command[1])), log) == 0, log.read_text()
    assert_same_model(uninterrupted(accumulated), folder)


def test_slurm_requeues_the_job_after_the_step(
    slurm: Path,
    uninterrupted: Callable[[int], Path],
    shapes_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where SIGTERM comes first. The same command resumes the restarted job."""
    folder, log = tmp_path / "runs", tmp_path / "log"
    arguments = fit_arguments(folder, shapes_checkpoint, accumulate_grad_batches=2)

    def send_signals() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)

    assert run_forked(partial(fit_with_event, send_signals, 0, arguments), log) == 0, log.read_text()
    assert "Stopped by SIGUSR1 after step 1. SLURM job 1234 is requeued. Resume with: unirl fit" in log.read_text()
    (saved,) = folder.rglob("stopped.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] == 1
    assert slurm.read_text() == "requeue 1234\n"
    assert not list(folder.rglob("hpc_ckpt*"))  # Lightning's handler saves it in the middle of the step
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run_forked(partial(main, arguments), log) == 0, log.read_text()
    assert f"resuming from {saved.parent}" in log.read_text()
    assert_same_model(uninterrupted(2), folder)


def test_a_restarted_job_does_not_resume_other_jobs(tmp_path: Path) -> None:
    options = SimpleNamespace(name="run", trainer=SimpleNamespace(default_root_dir=str(tmp_path), callbacks=[]))
    for version, job_id in enumerate(("1", "22", "1_7")):
        (tmp_path / "run" / f"version_{version}" / "checkpoints").mkdir(parents=True)
        (tmp_path / "run" / f"version_{version}" / JOB_FILE).write_text(job_id)
    assert [folder.parent.name for folder in checkpoint_folders(options, "22")] == ["version_1"]
    assert checkpoint_folders(options, "2") == []
    assert len(checkpoint_folders(options)) == 3


def test_settings_of_the_slurm_environment_are_kept(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Lightning's environment, and a handler that was there before, as submitit has one."""

    def wanted(*environment: SLURMEnvironment) -> signal.Signals | None:
        trainer = Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, plugins=[*environment]
        )
        trainer._signal_connector._original_handlers = trainer._signal_connector._get_current_signal_handlers()
        return requeue_signal(trainer)

    assert wanted() == signal.SIGUSR1
    assert wanted(SLURMEnvironment(requeue_signal=signal.SIGUSR2)) == signal.SIGUSR2
    assert wanted(SLURMEnvironment(auto_requeue=False)) is None
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert wanted() is None
    finally:
        signal.signal(signal.SIGUSR1, previous)
    monkeypatch.delenv("SLURM_NTASKS")
    assert wanted() is None


def test_a_failed_requeue_says_so(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert requeue_job() == " SLURM job 12_3 is requeued."
    (slurm.parent / "bin" / "scontrol").write_text("#!/bin/sh\necho not permitted >&2\nexit 1\n")
    assert requeue_job() == " `scontrol requeue 12_3` failed (exit code 1: not permitted); submit the job again."
    monkeypatch.setenv("PATH", "")
    assert "`scontrol requeue 12_3` failed ([Errno 2]" in requeue_job()


def test_export_of_the_last_checkpoint_is_the_model_that_the_run_exported(
    uninterrupted: Callable[[int], Path], tmp_path: Path
) -> None:
    (last,) = uninterrupted(1).rglob("last.ckpt")
    main(["export", "--ckpt", str(last), "--out", str(tmp_path / "pretrained")])
    assert_same_model(uninterrupted(1), tmp_path)
    measured = SamplingConfig(ImageSampling(16, 0.25, 0.6, 1e9), AnswerSampling(max_tokens=6))
    for folder in (uninterrupted(1), tmp_path):  # both are sampled as the run's validation measured them
        (exported,) = folder.rglob("pretrained")
        assert SamplingConfig.from_pretrained(exported) == measured
    with pytest.raises(SystemExit):
        main(["export", "--ckpt", str(last), "--out", str(tmp_path)])  # not empty


def test_export_refuses_another_base_model(
    uninterrupted: Callable[[int], Path],
    shapes_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (last,) = uninterrupted(1).rglob("last.ckpt")
    config = (last.parents[1] / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace(str(shapes_checkpoint), str(tmp_path / "base")))
    base = Showo.from_pretrained(str(shapes_checkpoint))
    with torch.no_grad():
        next(p for p in base.parameters() if not p.requires_grad).flatten()[0].add_(1e-6)
    base.save_pretrained(tmp_path / "base")
    arguments = ["--ckpt", str(last), "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main(["export", *arguments])
    assert "those of the base model are not the ones it was trained with" in capsys.readouterr().err


def test_preemption_exits_with_0() -> None:
    """Whatever code Lightning's SIGTERMException has."""
    assert Preempted().code == 0


def test_a_read_only_disk_ends_the_run_with_a_message(
    disk: Path, uninterrupted: Callable[[int], Path], shapes_checkpoint: Path, tmp_path: Path
) -> None:
    folder, log = disk / "runs", tmp_path / "log"
    arguments = fit_arguments(folder, shapes_checkpoint)

    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)

    assert run_forked(partial(fit_with_event, partial(remount, "ro"), 2, arguments), log) == 2, log.read_text()
    remount("rw")
    assert log.read_text().splitlines()[-1].startswith("unirl: error: Read-only file system")
    saved = sorted(folder.rglob("*.ckpt"))
    assert [path.name for path in saved] == ["epoch=0-step=1.ckpt", "epoch=0-step=2.ckpt", "last.ckpt"]
    assert run_forked(partial(main, [*arguments, "--ckpt_path", "last"]), log) == 0, log.read_text()
    assert saved[2].is_symlink()
    assert f"resuming from {saved[1]}" in log.read_text()
    assert_same_model(uninterrupted(1), folder)


class FillDisk(SaveEachStep):
    """The disk is filled after the first checkpoint, and has room again before the last one."""

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


def test_a_full_disk_does_not_end_a_run(disk: Path, shapes_checkpoint: Path, tmp_path: Path) -> None:
    model = make_model("showo", shapes_checkpoint, "sft", tmp_path / "run")
    with pytest.warns(UserWarning, match="no checkpoint was saved at step 2: No space left on device"):
        fit(model, FillDisk(disk / "checkpoints"), steps_per_epoch=4)
    saved = sorted((disk / "checkpoints").iterdir())
    assert [path.name for path in saved] == ["0.ckpt", "3.ckpt"]
    assert [find_corruption(path) for path in saved] == [None, None]
    checkpoint = torch.load(saved[1], weights_only=True)
    assert checkpoint["global_step"] == 4
    for name, value in model.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][name], value), name
