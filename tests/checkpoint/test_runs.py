"""What a run of `unirl fit` leaves in its folder, and what is left of it after Ctrl-C and a resume."""

import csv
import json
import os
import re
import shlex
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from interrupted_runs import is_equal, run_forked
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_stopped_runs import fit_arguments, fit_with_event

from unirl.checkpoint import AtomicCheckpointIO, latest_valid
from unirl.checkpoint.resume import RUN, resolve_last
from unirl.checkpoint.run_folder import RunFolder, take_version
from unirl.cli.main import main

MEASURED = {"limit_val_batches": 1.0, "num_sanity_val_steps": -1, "max_epochs": 2}
EACH_EPOCH = {"class_path": "ModelCheckpoint", "init_args": {"save_top_k": -1, "save_last": "link"}}
SMALL = ["--model.evaluation.num_understanding", "6", "--model.evaluation.num_diversity_prompts", "1"]
SMALL += ["--model.evaluation.image_sampling.steps", "2", "--data.steps_per_epoch", "2"]


def arguments(folder: Path, checkpoint: Path, **trainer: Any) -> list[str]:
    """Arguments of a run of four steps that is validated before them and after every second one, and saved there."""
    settings: dict[str, Any] = {"callbacks": [EACH_EPOCH]} | MEASURED | trainer
    return [*fit_arguments(folder, checkpoint, **settings), *SMALL]


@pytest.fixture(scope="module")
def uninterrupted(shapes_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with two loggers of which neither has a name or a version."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "runs"
    loggers = [{"class_path": name, "init_args": {"save_dir": str(folder)}} for name in LOGGERS]
    log = folder.parent / "log"
    assert run_forked(partial(main, arguments(folder, shapes_checkpoint, logger=loggers)), log) == 0, log.read_text()
    assert "before and after 4 steps" in log.read_text()
    return folder / "a run" / "version_0"


LOGGERS = ("TensorBoardLogger", "CSVLogger")


def results_of(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


def logged(run: Path) -> dict[tuple[str, int], float]:
    """What is in `metrics.csv`, by name and step."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(k, int(row["step"])): float(v) for row in rows for k, v in row.items() if v and k not in ("step", "epoch")}


def test_a_run_leaves_everything_in_its_folder(uninterrupted: Path) -> None:
    (folder,) = uninterrupted.parents[1].iterdir()  # no lightning_logs
    assert folder.name == "a run"
    names = {path.name for path in uninterrupted.iterdir() if "tfevents" not in path.name}
    expected = {"checkpoints", "config.yaml", "hparams.yaml", "images", "metrics.csv", "pretrained", "results.json"}
    expected |= {"report.html", "results.md"}
    assert names == expected
    assert sorted(path.name for path in (uninterrupted / "images").iterdir())[0] == "step-000000.png"


def test_a_terminal_without_arrows_ends_no_run(uninterrupted: Path, tmp_path: Path) -> None:
    """As a redirect on Windows, or in the C locale. The table has arrows, and plugins print what they like."""
    plugin = tmp_path / "loud.py"
    plugin.write_text("from unirl import hookimpl\n\n@hookimpl\ndef unirl_validated(metrics):\n    print('→ done')\n")

    def validate() -> None:
        sys.stdout = open(tmp_path / "out", "w", encoding="ascii")  # noqa: SIM115 - of a process of its own
        sys.stderr = open(tmp_path / "err", "w", encoding="ascii")  # noqa: SIM115
        main(
            ["validate", "--config", str(uninterrupted / "config.yaml"), "--plugin", str(plugin), "--results", "false"]
        )
        main(["plugins"])

    assert run_forked(validate, tmp_path / "log") == 0, (tmp_path / "err").read_text()
    assert r"\u2192 done" in (tmp_path / "out").read_text()


def test_results_and_logs_have_the_validation_before_training(uninterrupted: Path) -> None:
    results = results_of(uninterrupted)
    assert results["steps"] == 4
    assert [one["step"] for one in results["validations"]] == [0, 2, 4]
    assert (results["before"], results["after"]) == (results["validations"][0], results["validations"][2])
    assert {"loss", "reward"} <= results["training"].keys()
    events = EventAccumulator(str(uninterrupted))
    events.Reload()
    rows = logged(uninterrupted)
    for kind, values in results["before"]["metrics"].items():
        for name, value in values.items():
            tag = f"val/{kind}/{name}"
            assert rows[tag, 0] == pytest.approx(value)
            assert events.Scalars(tag)[0].step == 0
            assert events.Scalars(tag)[0].value == pytest.approx(value)
            assert len(events.Scalars(tag)) == len([step for other, step in rows if other == tag]) == 3


def send_sigint(count: int = 1) -> None:
    for _ in range(count):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_and_resumed_runs_have_the_results_of_an_uninterrupted_one(
    uninterrupted: Path, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """In the third step, after two validations. Resumed from there, and from the end of the epoch before it.

    Lightning repeats the validation before training where an epoch has ended.
    """
    folder, log = tmp_path / "runs", tmp_path / "log"
    first = arguments(folder, shapes_checkpoint, logger=False)
    assert run_forked(partial(fit_with_event, send_sigint, 2, first), log) == 130, log.read_text()
    assert "Stopping after this step; press Ctrl-C again to stop at once" in log.read_text()
    command = re.search(r"Stopped by Ctrl-C after step 3\. Resume with: unirl (.*)", log.read_text())
    assert command, log.read_text()
    stopped = folder / "a run" / "version_0"
    assert [one["step"] for one in results_of(stopped)["validations"]] == [0, 2]
    assert (stopped / "config.yaml").is_file()
    assert "<b>3 of 4</b><span>steps</span>" in (stopped / "report.html").read_text(encoding="utf-8")
    assert not (stopped / "pretrained").exists()

    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(folder)]
    epoch_end = ["--ckpt_path", str(stopped / "checkpoints" / "epoch=0-step=2.ckpt")]
    for version, rest in enumerate(([], epoch_end), start=1):
        assert run_forked(partial(main, [*shlex.split(command[1]), *logger, *rest]), log) == 0, log.read_text()
        assert "before and after 4 steps" in log.read_text()
        assert_same_results(uninterrupted, folder / "a run" / f"version_{version}", first_step=4 - version)


def assert_same_results(uninterrupted: Path, resumed: Path, first_step: int) -> None:
    """The results, what was logged from a step on, and what the last checkpoint holds."""
    assert results_of(resumed) == results_of(uninterrupted)
    expected = {key: value for key, value in logged(uninterrupted).items() if key[1] >= first_step}
    assert logged(resumed) == expected
    (one,), (other,) = (run.glob("checkpoints/*step=4.ckpt") for run in (uninterrupted, resumed))
    states = [torch.load(path, weights_only=True) for path in (one, other)]
    for name in ("Guards", "Report", "ResultsTable"):
        assert is_equal(*(state["callbacks"][name] for state in states)), name
    assert is_equal(*(state["state_dict"] for state in states))
    assert [state[RUN] for state in states] == ["version_0", resumed.name]


def test_a_second_ctrl_c_ends_the_run_at_once(shapes_checkpoint: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "runs", tmp_path / "log"
    options = arguments(folder, shapes_checkpoint, num_sanity_val_steps=0)
    assert run_forked(partial(fit_with_event, partial(send_sigint, 2), 1, options), log) == 130, log.read_text()
    assert log.read_text().endswith("unirl: interrupted\n")
    assert not list(folder.rglob("stopped.ckpt"))


def test_export_results_report_and_images_can_be_switched_off(shapes_checkpoint: Path, tmp_path: Path) -> None:
    """On the command line in two ways, and in a config."""
    folder, log, overlay = tmp_path / "runs", tmp_path / "log", tmp_path / "off.yaml"
    quick = {"max_steps": 1, "logger": False, "enable_checkpointing": False, "callbacks": None}
    options = arguments(folder, shapes_checkpoint, **quick)
    overlay.write_text("images: false")
    options += ["--config", str(overlay), "--export", "false", "--results=false", "--report", "false"]
    assert run_forked(partial(main, options), log) == 0, log.read_text()
    assert "before" not in log.read_text()
    run = folder / "a run" / "version_0"
    assert [path.name for path in run.iterdir()] == ["config.yaml"]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert [saved[name]["enabled"] for name in ("export", "results", "report", "images")] == [False] * 4


def test_runs_that_start_at_the_same_time_get_different_folders(tmp_path: Path) -> None:
    (tmp_path / "name" / "version_3").mkdir(parents=True)
    (tmp_path / "name" / "version_3_copy").mkdir()
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: take_version(tmp_path / "name"), range(40)))
    assert sorted(taken) == sorted(tmp_path / "name" / f"version_{i}" for i in range(4, 44))


def save(path: Path, step: int, time: int, **others: Any) -> Path:
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "global_step": step, **others}, path)
    os.utime(path, (time, time))
    return path


def test_the_newest_checkpoint_is_that_of_the_last_run_with_the_highest_step(tmp_path: Path) -> None:
    """Whatever the times of the files are, and also where runs share a folder."""
    folders = [tmp_path / name / "checkpoints" for name in ("version_9", "version_10", "seed0")]
    save(folders[0] / "a.ckpt", step=400, time=9)
    save(folders[1] / "b.ckpt", step=3, time=8)
    newest = save(folders[1] / "c.ckpt", step=20, time=1)
    save(folders[2] / "d.ckpt", step=500, time=10)
    assert latest_valid(folders).path == newest
    shared = tmp_path / "shared"
    save(shared / "a.ckpt", step=400, time=3, run="version_9")
    newest = save(shared / "b.ckpt", step=30, time=1, run="version_10")
    save(shared / "c.ckpt", step=20, time=2, run="version_10")
    assert latest_valid([*folders, shared]).path == newest
    newest.write_bytes(newest.read_bytes()[:-1])
    search = latest_valid([shared])
    assert search.path == shared / "c.ckpt"
    assert [line.partition(": ")[0] for line in search.skipped] == [str(newest)]


def test_an_evaluation_does_not_start_without_the_checkpoint_it_was_asked_for(tmp_path: Path) -> None:
    assert resolve_last([tmp_path]) == (None, None)
    assert "no checkpoint to evaluate" in str(resolve_last([tmp_path], may_start=False)[1])


@pytest.mark.parametrize("measured", [False, True])
def test_a_run_that_does_not_start_leaves_no_folder_but_one_with_results(measured: bool, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs", "a run")
    path = folder.take(Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False))
    if measured:
        (path / "results.json").touch()
    folder.remove()
    assert path.exists() == (tmp_path / "runs").exists() == measured
