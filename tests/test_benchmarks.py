"""The benchmark compares like with like; how fast anything is, is never asserted."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """The command's module; its neighbours are found as when it is run as a script."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("benchmark_showo", FOLDER / "showo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_ways_compute_the_same(benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    results = benchmark.main(["--size", "tiny", "--repeats", "1", "--json", str(tmp_path / "out.json")])

    assert list(results) == ["tiny"]
    assert results["tiny"].logits_difference <= 1e-4
    assert results["tiny"].same_answers
    saved = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert saved["repeats"] == 1
    assert saved["sizes"]["tiny"]["same_answers"] is True
    printed = capsys.readouterr().out
    rows = ("denoising step", "16 answers of 16 tokens", "float32 FLOP/s", "largest logit difference", "same answers")
    for row in rows:
        assert row in printed
    assert "plain loop" in printed


def test_a_grpo_step_with_all_logits_has_the_same_gradient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("benchmark_grpo", FOLDER / "grpo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plain, unirl = (module.step(way, "tiny")[-1] for way in module.WAYS)
    assert plain == pytest.approx(unirl, rel=1e-4)
    assert unirl > 0.1
