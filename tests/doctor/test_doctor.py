"""`unirl doctor` on the shipped configs: its lines, its exit code, and that it leaves no files."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unirl.cli.main import main
from unirl.doctor import resources
from unirl.doctor.measure import PHASES, Measurement

CONFIGS = Path(__file__).parents[2] / "configs"
Doctor = Callable[..., tuple[dict[str, str], str]]


MEASURED = Measurement({"loss": 20_000_000, "build": 10_000_000}, {"weights": 10_000_000}, [], False)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not measured, which takes seconds."""
    monkeypatch.setattr(resources, "measure", lambda *_, real: replace(MEASURED, is_real=real))


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs the doctor in an empty folder; returns its lines by subject, and what it printed to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, config: str = "showo_sft.yaml") -> tuple[dict[str, str], str]:
        code: object = 0
        try:
            main(["doctor", "--config", str(CONFIGS / config), *args])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        assert code == (2 if err else 0)
        assert err.count("\n") == bool(err), err
        assert not list(tmp_path.iterdir())
        lines: dict[str, str] = {}
        for line in out.splitlines():
            level, subject, text = re.split(r"  +", line, maxsplit=2)
            lines[subject] = f"{lines.get(subject, '')}\n{level} {text}".strip()
        return lines, err.strip()

    return run


def test_a_shipped_config_would_start(doctor: Doctor) -> None:
    lines, err = doctor("--model.judge", "null")
    assert re.match(r"ok a device must hold [\d.]+ MB: the peak of [\d.]+ MB and 10 % to spare", lines["memory"])
    assert all(f" {phase} " in lines["memory"] for phase in PHASES)
    assert lines["disk"].startswith("ok 2 checkpoints at once, ")
    assert not err
    assert not [text for text in lines.values() if "error" in text.split()[0]]
    assert lines["checkpoint"].startswith("ok unirl_shapes:checkpoints/")
    assert lines["sizes"] == "ok 12 prompts x group_size 8 = 96 images a step, 96 a device"
    assert "unirl-shapes" in lines["plugins"]


@pytest.mark.usefixtures("measured")
def test_all_errors_are_reported_at_once(doctor: Doctor) -> None:
    lines, err = doctor("--trainer.devices=5", "--trainer.val_check_interval=500", "--trainer.precision=bf16-mixed")
    assert lines["devices"].startswith("ok 5 cpu, strategy DDP")
    assert "error data.prompts_per_step 12 does not divide among 5 devices → take a multiple of 5" in lines["sizes"]
    assert lines["validation"].startswith("error trainer.val_check_interval 500 is longer than an epoch of 200 steps")
    assert lines["precision"].startswith("warning bf16-mixed on a CPU")
    assert err == "unirl: error: fit would not start: sizes, validation; see above"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("measured")
def test_missing_devices_do_not_hide_other_errors(doctor: Doctor) -> None:
    lines, err = doctor("--trainer.accelerator", "gpu", "--model.backbone.checkpoint", "nowhere")
    assert lines["devices"].startswith("error trainer: ")
    assert "--trainer.accelerator cpu" in lines["devices"]
    assert "no checkpoint at 'nowhere'" in lines["checkpoint"]
    assert err.startswith("unirl: error: fit would not start: devices, checkpoint")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("measured")
def test_memory_is_told_without_the_devices(doctor: Doctor) -> None:
    options = ["--trainer.accelerator", "gpu", "--trainer.devices", "5", "--trainer.strategy", "fsdp2"]
    lines, _ = doctor(*options)
    assert lines["memory"].startswith("ok a device must hold 22.0 MB: the peak of 20.0 MB")
    assert "(5 cuda under fsdp2; run on fake tensors)" in lines["memory"]
    assert "does not divide among 5 devices" in lines["sizes"]


@pytest.mark.usefixtures("measured")
def test_measure_tells_other_strategies_and_runs_a_step(doctor: Doctor) -> None:
    lines, _ = doctor("--measure", "--trainer.devices", "2")
    found = re.findall(r"\((.+?)\)", lines["memory"])
    assert found == [
        "2 cpu under ddp; run on fake tensors",
        "2 cpu under fsdp2; run on fake tensors",
        "2 cpu under ddp; a step was run",
    ]
    lines, _ = doctor("--measure", "--trainer.devices", "2", "--trainer.strategy", "fsdp2")
    assert "the step was not really run: it shards over processes" in lines["memory"]


@pytest.mark.usefixtures("measured")
def test_a_peak_above_the_memory_is_a_warning(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda setup: 21e6)
    lines, _ = doctor("--measure")
    assert lines["memory"].startswith("warning a device must hold 22.0 MB")
    assert "21.0 MB are available → lower model.rollout.loss_batch_size" in lines["memory"]
    assert "the step was not really run: it does not fit" in lines["memory"]


def test_a_model_that_cannot_be_measured_is_no_error(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> None:
        raise NotImplementedError("aten.unknown")

    monkeypatch.setattr(resources, "measure", fails)
    lines, err = doctor()
    assert lines["memory"] == "warning not measured: NotImplementedError: aten.unknown"
    assert not err


def test_a_missing_required_plugin_is_an_error_of_the_config(doctor: Doctor) -> None:
    lines, _ = doctor("--requires_plugins", "[unirl-none>=3]")
    assert "'unirl-none>=3' is required, but not installed" in lines["config"]


def test_fit_stops_at_the_same_errors_before_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(CONFIGS / "showo_sft.yaml"), "--trainer.val_check_interval", "500"])
    assert stopped.value.code == 2
    assert "validation: trainer.val_check_interval 500 is longer than an epoch" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
