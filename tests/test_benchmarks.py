"""The benchmark compares like with like; how fast anything is, is never asserted."""

import importlib.util
import json
import sys
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


@pytest.fixture
def janus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("benchmark_janus", FOLDER / "janus.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_janus_draws_and_scores_the_same_both_ways(janus, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved = tmp_path / "out.json"
    options = ["--size", "tiny", "--repeats", "1", "--groups", "1", "3", "--no-compile", "--json", str(saved)]
    results = janus.main(options)["tiny"]

    assert [drawing.same_codes for drawing in results.drawing.values()] == [True, True]
    for found in results.scoring.values():
        plain, own = found["transformers"], found["unirl"]
        assert plain.log_prob == pytest.approx(own.log_prob, abs=1e-4)
        assert plain.norm == pytest.approx(own.norm, rel=1e-3)
        assert own.norm > 0.1
    assert list(json.loads(saved.read_text(encoding="utf-8"))["sizes"]["tiny"]["drawing"]) == ["1", "3"]
    printed = capsys.readouterr().out
    for words in ("tiny: drawing", "tiny: scoring", "same codes", "products", "same scores"):
        assert words in printed
    assert "NO" not in printed
