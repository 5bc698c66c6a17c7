"""Prompts of a benchmark are not trained on."""

import json
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl_shapes.judge import ShapesJudge


@pytest.mark.parametrize("judge", ["shapes", "null"])
@pytest.mark.parametrize("command", ["fit", "doctor"])
def test_training_on_a_benchmark_is_refused(
    judge: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parents[2] / "configs" / "showo_sft.yaml"
    monkeypatch.chdir(tmp_path)
    example = ShapesJudge().benchmark()[0]
    prompts = ["a photo of a circle", example.prompt.upper()]
    lines = [{"prompt": prompt, "question": "what is it ?", "answer": "a circle"} for prompt in prompts]
    Path("mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ["--data.prompts=jsonl", "--data.prompts.path=mine.jsonl", f"--model.judge={judge}"]
    with pytest.raises(SystemExit) as ended:
        main([command, "--config", str(config), *arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    said = " ".join((printed.out + printed.err).split())
    assert "1 training prompts are prompts of the benchmark" in said
    assert "mine.jsonl:2" in said
