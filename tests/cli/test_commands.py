"""Commands of the README, with the checkpoints of unirl-shapes; `unirl sample` has a file of its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl_shapes.cli import main as shapes_main
from unirl_shapes.pretrain import showo

CONFIG = str(Path(__file__).parents[2] / "configs" / "showo_sft.yaml")
QUICK = ["--data.num_val_prompts", "12", "--model.evaluation.num_understanding", "12", "--data.val_batch_size", "6"]
QUICK += ["--trainer.logger", "false"]


def test_doctor_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--help"])
    assert capsys.readouterr().out.startswith("usage: unirl doctor")


def test_validate_prints_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["validate", "--config", CONFIG, *QUICK, "--trainer.default_root_dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert "generation" in out
    assert "color_attr" in out


def test_shapes_measure_prints_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    shapes_main(["measure", "--count", "12", "--steps", "2", "4"])
    assert capsys.readouterr().out.count("generation") == 2


def test_shapes_pretrain_writes_a_checkpoint_and_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unirl_shapes.pretrain.showo.measure", lambda *_, **__: {"generation": 0.0})
    short = replace(showo.CONTINUATION, relation_steps=2, word_steps=2)
    monkeypatch.setattr(showo, "CONTINUATION", short)

    def logs(folder: str) -> dict[str, str]:
        return {path.name.split(".")[0]: path.read_text() for path in (tmp_path / folder).glob("*.log.jsonl")}

    command = ["pretrain", "showo", "--tokenizer-steps", "1", "--threads", "1"]
    shapes_main([*command, "--out", str(tmp_path / "whole"), "--steps", "2"])
    first = logs("whole")
    continued = {"showo_relations", "showo_words", "showo_noise"}
    assert set(first) == {"tokenizer", "showo"} | continued
    shapes_main([*command, "--out", str(tmp_path / "whole"), "--steps", "2"])
    assert logs("whole") == first  # finished: nothing more to do
    init = str(tmp_path / "whole" / "showo")
    assert (tmp_path / "whole" / "showo" / "model.safetensors").is_file()
    shapes_main([*command, "--out", str(tmp_path / "continued"), "--init", init])
    assert set(logs("continued")) == continued
