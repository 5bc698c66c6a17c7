"""The benchmark compares like with like; how fast anything is, is never asserted."""

import importlib.util
import io
import json
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.backbones.janus.tiny import save as save_janus

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
    plain, *others = (module.step(variant, "tiny")[-1] for variant in module.VARIANTS)
    assert others == pytest.approx([plain] * 2, rel=1e-4)
    assert plain > 0.1


@pytest.fixture
def janus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("benchmark_janus", FOLDER / "janus.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def run_forked(command: list[str], **_: Any) -> SimpleNamespace:
    """In place of `subprocess.run`: a script in a process that is forked from this one, which has imported torch."""
    _, *sys.argv = command

    def printed() -> str:
        with redirect_stdout(io.StringIO()) as out:
            runpy.run_path(sys.argv[0], run_name="__main__")
        return out.getvalue()

    return SimpleNamespace(returncode=0, stdout=sys.modules["forked"].run_forked(printed)[0])


def test_janus_generates_and_scores_the_same_both_ways(
    janus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    saved = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(janus.janus_scoring, "subprocess", SimpleNamespace(run=run_forked))
    options = ["--size", "tiny", "--repeats", "1", "--groups", "3", "--no-compile", "--json", str(saved)]
    results = janus.main(options)["tiny"]

    assert [measured.same_codes for measured in results.generation.values()] == [True]
    for found in results.scoring.values():
        plain, own = found["transformers"], found["unirl"]
        assert plain.log_prob == pytest.approx(own.log_prob, abs=1e-4)
        assert plain.norm == pytest.approx(own.norm, rel=1e-3)
        assert own.norm > 0.1
    assert list(json.loads(saved.read_text(encoding="utf-8"))["sizes"]["tiny"]["generation"]) == ["3"]
    printed = capsys.readouterr().out
    for words in ("tiny: generation", "tiny: scoring", "same codes", "products", "same scores"):
        assert words in printed
    assert "NO" not in printed


def script(name: str, monkeypatch: pytest.MonkeyPatch):
    """A command's module, under a name that its dataclasses and its forked processes find."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


class WithoutMemory(torch.Tensor):
    """As the fake tensors that `torch.compile` leaves behind in a process."""

    def untyped_storage(self) -> torch.UntypedStorage:
        raise RuntimeError("Cannot access data pointer of Tensor")


def test_two_processes_hold_half_each_between_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    left = torch.empty(3).as_subclass(WithoutMemory)
    arguments = ["--size", "tiny", "--only", "showo", "--processes", "1", "2", "--ways", "fsdp2"]
    found = script("sharding", monkeypatch).main(arguments)
    del left

    one, half = found["showo", "fsdp2", 1], found["showo", "fsdp2", 2]
    assert half.between == pytest.approx(one.between / 2, rel=0.05)
    activations = one.loss - one.states
    assert half.loss <= 1.15 * (half.states / 2 + half.unit + activations)
    assert half.loss < one.states  # not the whole model
    assert "rollout" in capsys.readouterr().out


def fails(message: str) -> None:
    raise ValueError(message)


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    with pytest.raises(RuntimeError, match=r"process 0 ended with 1\n(.*\n)*ValueError: out of luck"):
        script("forked", monkeypatch).run_forked(fails, "out of luck")
    assert capsys.readouterr() == ("", "")


def test_fake_tensors_are_shown_beside_a_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    memory = script("memory", monkeypatch)
    monkeypatch.setitem(memory.IMAGES, "tiny", (1, 2))
    monkeypatch.setattr(memory, "CASES", (("showo", False),))
    (found,) = memory.main(["--size", "tiny", "--only", "showo", "--rule", "sft"]).values()

    assert found.fake > 4 * 841662 * 4  # weights, gradients and two moments of what is trained
    assert found.ratio == pytest.approx(1, abs=0.1)
    assert f"{found.ratio:.2f}" in capsys.readouterr().out


def test_a_kernel_is_counted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    operators, folder = script("janus_operators", monkeypatch), str(save_janus(tmp_path))
    ways = [operators.count(folder, precision, False, True) for precision in ("32-true", "bf16-mixed")]
    assert ways[0].casts == 0
    assert ways[1].kernels - ways[0].kernels == ways[1].casts
    assert ways[1].casts < 2 * 2 + 8  # two in each of two layers, and those of the head


def test_updates_start_near_1_and_weights_are_cast_once(monkeypatch: pytest.MonkeyPatch):
    precision = script("precision", monkeypatch)
    for name, gaps in precision.gaps("janus", prompts=6).items():
        assert gaps.largest < 0.01, name  # with logits in bfloat16 up to 0.06
    count, elements = precision.casts("janus", lora=True, cached=False)
    once, _ = precision.casts("janus", lora=True, cached=True)
    assert once * 16 == 24  # two adapters of q, k and v in each of four layers, once for 16 codes
    assert count > 50
    assert elements > 900_000
