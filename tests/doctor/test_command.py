"""`unirl doctor` on the shipped configs: what it says, its exit code, and that it leaves nothing behind."""

import re
from pathlib import Path

import pytest
import torch

from unirl.cli.main import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Its lines by subject, and what stood on stderr; run in an empty folder, which it leaves empty."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, config: str = "showo_sft.yaml") -> tuple[dict[str, str], str]:
        code = 0
        try:
            main(["doctor", "--config", str(CONFIGS / config), *args])
        except SystemExit as stopped:
            code = stopped.code
        out, err = capsys.readouterr()
        assert code == (2 if err else 0)
        assert err.count("\n") == bool(err), err
        assert not list(tmp_path.iterdir())
        found: dict[str, str] = {}
        for line in out.splitlines():
            level, subject, text = re.split(r"  +", line, maxsplit=2)
            found[subject] = f"{found.get(subject, '')}\n{level} {text}".strip()
        return found, err.strip()

    return run


@pytest.mark.parametrize("config", ["showo_sft.yaml", "showo_grpo.yaml", "janus_sft.yaml"])
def test_a_shipped_config_would_start(doctor, config: str) -> None:
    found, err = doctor(config=config)
    assert found["memory"].startswith("ok about ")
    assert found["disk"].startswith("ok 3 checkpoints at once, ")
    assert not err
    assert not [text for text in found.values() if "error" in text.split()[0]]
    assert found["checkpoint"].startswith("ok unirl_shapes:checkpoints/")
    assert found["sizes"] == "ok 12 prompts x group 8 = 96 drawings a step, 96 a device"
    assert "unirl-shapes" in found["plugins"]


def test_several_mistakes_are_all_told_at_once(doctor) -> None:
    found, err = doctor("--trainer.devices=5", "--trainer.val_check_interval=500", "--trainer.precision=bf16-mixed")
    assert found["devices"].startswith("ok 5 cpu, strategy DDP")
    assert "error data.prompts_per_step 12 does not divide among 5 devices → take a multiple of 5" in found["sizes"]
    assert found["validation"].startswith("error trainer.val_check_interval 500 is longer than an epoch of 200 steps")
    assert found["precision"].startswith("warning bf16-mixed on a CPU")
    assert err == "unirl: error: fit would not start: sizes, validation; see above"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices_that_are_not_there_do_not_hide_what_else_is_wrong(doctor) -> None:
    found, err = doctor("--trainer.accelerator", "gpu", "--model.backbone.checkpoint", "nowhere")
    assert found["devices"].startswith("error trainer: ")
    assert "--trainer.accelerator cpu" in found["devices"]
    assert "no checkpoint at 'nowhere'" in found["checkpoint"]
    assert err.startswith("unirl: error: fit would not start: devices, checkpoint")


def test_what_is_required_and_missing_is_an_error_of_the_config(doctor) -> None:
    found, _ = doctor("--requires_plugins", "[unirl-none>=3]")
    assert "'unirl-none>=3' is required, but not installed" in found["config"]


def test_fit_stops_at_the_same_mistakes_before_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(CONFIGS / "showo_sft.yaml"), "--trainer.val_check_interval", "500"])
    assert stopped.value.code == 2
    assert "validation: trainer.val_check_interval 500 is longer than an epoch" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
