"""The command `unirl evaluate`."""

import re
from pathlib import Path

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from unirl.cli.main import main

TRIAL = ["--images", "1", "--limit", "3", "--num-understanding", "6", "--steps", "2", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, shapes_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    main(["evaluate", "--benchmark", "shapes", "--checkpoint", str(shapes_checkpoint), "--out", str(folder), *TRIAL])
    return folder


def test_it_prints_a_table_and_goes_on(done: Path, shapes_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--benchmark=shapes", f"--checkpoint={shapes_checkpoint}", f"--out={done}", *TRIAL]
    before = (done / "results.json").read_bytes()
    main(["evaluate", *arguments])
    printed = capsys.readouterr()
    assert (done / "results.json").read_bytes() == before
    assert "overall" in printed.out
    assert "understanding, overall" in printed.out
    assert "steps 2" in printed.err
    main(["evaluate", "--benchmark", "shapes", "--out", str(done), "--judge-only"])
    assert "understanding, overall" in capsys.readouterr().out


def test_one_process_prints(
    done: Path, shapes_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    arguments = ["--benchmark=shapes", f"--checkpoint={shapes_checkpoint}", f"--out={done}", *TRIAL]
    main(["evaluate", *arguments])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "steps 2" not in printed.err


def test_compare_prints_differences(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "--compare", str(done), f"{done},{done}"])
    printed = capsys.readouterr().out
    assert "+0.0" in printed
    assert "each run" in printed
    main(["evaluate", f"--compare={done}", f"{done},"])
    assert "note: both have the same weights and settings" in capsys.readouterr().out


ERRORS = {
    "": "give --benchmark NAME and --out FOLDER",
    "--out x": "--benchmark is missing",
    "--benchmark shapes": "--out is missing",
    "--benchmark shape --out x": "unknown judge 'shape'; nearest: shapes",
    "--benchmark shapes --out x --guidnce 3": "no option 'guidnce'; nearest: guidance",
    "--benchmark vqa --out x": "are required: questions .* `unirl plugins show NAME` lists the options",
    "--benchmark shapes --out x --images 0": "evaluate: images 0",
    "--benchmark shapes --out x --checkpoint nowhere": "nowhere",
    "--benchmark shapes --out x --guidance nan": "guidance",
    "--benchmark shapes --out x --precision bf16": "precision",
    "--benchmark shapes --out x --devices 0": "devices",
    "--benchmark shapes --out x --strategy fsdp2": "ddp",
    "--benchmark shapes --out x --backbone janu": "unknown backbone 'janu'; nearest: janus",
    "--compare a": "--compare takes two folders",
    "--compare a b": "No such file or directory; give a folder of `unirl evaluate`",
}


@pytest.mark.parametrize("arguments", ERRORS)
def test_mistakes_are_one_line(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments.split()])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("unirl: error: ")
    assert re.search(ERRORS[arguments], error), error
    assert not list(tmp_path.rglob("*.png"))


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "--help"])
    printed = capsys.readouterr().out
    assert "--benchmark" in printed
    assert "--judge-only" in printed


def test_a_warning_is_said_once(done: Path, shapes_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--benchmark=shapes", f"--checkpoint={shapes_checkpoint}", f"--out={done}", *TRIAL]
    with pytest.warns(UserWarning, match="--max-tokens"):
        main(["evaluate", *arguments, "--max-tokens", "1"])
    printed = capsys.readouterr().out
    assert "--max-tokens" not in printed
    assert "warning: 139 of the benchmark's 142 prompts have no images" in printed
    assert "--max-tokens" in (done / "results.md").read_text()
