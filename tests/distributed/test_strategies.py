"""One process, DDP and FSDP2 with the same global batch: the same losses, images and weights."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy

from unirl.backbones.lora import LoRA
from unirl.backbones.showo import Showo
from unirl.checkpoint import find_corruption
from unirl.checkpoint.export import backbone_weights
from unirl.checkpoint.integrity import CHECKSUMS
from unirl.distributed.strategies import check
from unirl.errors import UserError
from unirl.testing.tiny_backbone import TinyBackbone

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from processes import run_processes
from training_runs import BACKBONES, train


def exported_weights(backbone: str, result: dict[str, Any]) -> dict[str, torch.Tensor]:
    return dict(BACKBONES[backbone].from_pretrained(str(result["exported"])).named_parameters())


def assert_same_training(backbone: str, expected: dict[str, Any], result: dict[str, Any]) -> None:
    assert result["codes"] == expected["codes"]
    assert result["losses"] == pytest.approx(expected["losses"], abs=1e-4)
    weights = exported_weights(backbone, result)
    for name, value in exported_weights(backbone, expected).items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("rule", ["sft", "grpo"])
@pytest.mark.parametrize("backbone", ["showo", "janus"])
def test_ddp_and_fsdp2_train_as_one_process(
    backbone: str, rule: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    def run(folder: Path, strategy: str, devices: int) -> dict[str, Any]:
        return train(folder, backbone, checkpoints[backbone], rule, strategy, devices, simulated_ranks=3 - devices)

    (one,) = run_processes(run, tmp_path / "one", "auto", 1, processes=1)
    for strategy in ("ddp", "fsdp2"):
        for result in run_processes(run, tmp_path / strategy, strategy, 2):
            assert_same_training(backbone, one, result)


@pytest.mark.parametrize("rule", ["grpo", "posterior"])
def test_four_processes_train_as_one(rule: str, tmp_path: Path) -> None:
    backbone = TinyBackbone()
    backbone.build()
    backbone.save_pretrained(tmp_path / "model")

    def run(folder: Path, strategy: str, devices: int) -> dict[str, Any]:
        options: dict[str, Any] = {"simulated_ranks": 4 // devices, "prompts_per_step": 4, "sampler": "adaptive"}
        return train(folder, "tiny", tmp_path / "model", rule, strategy, devices, **options)

    (one,) = run_processes(run, tmp_path / "one", "auto", 1, processes=1)
    assert_same_training("tiny", one, run_processes(run, tmp_path / "fsdp2", "fsdp2", 4, processes=4)[0])


def test_a_sharded_run_resumes_exactly(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(folder: Path, ckpt_path: Path | None = None) -> dict[str, Any]:
        options: dict[str, Any] = {"max_steps": 4, "save_every": 2, "exclude_frozen_parameters": True}
        return train(folder, "showo", checkpoints["showo"], "grpo", "fsdp2", 2, ckpt_path, **options)

    uninterrupted = run_processes(run, tmp_path / "uninterrupted")[0]
    resumed = run_processes(run, tmp_path / "resumed", tmp_path / "uninterrupted" / "step=2.ckpt")[0]
    assert resumed["losses"] == uninterrupted["losses"][2:]
    assert resumed["codes"] == uninterrupted["codes"][2:]
    weights = exported_weights("showo", resumed)
    for name, value in exported_weights("showo", uninterrupted).items():
        assert torch.equal(weights[name], value), name
    last = tmp_path / "resumed" / "step=4.ckpt"
    assert find_corruption(last) is None
    assert {path.name for path in last.iterdir()} == files_with_checksums(last)
    base = Showo.from_pretrained(str(checkpoints["showo"]))
    frozen = {name for name, parameter in base.named_parameters() if not parameter.requires_grad}
    saved = backbone_weights(last)  # what `unirl export` writes, and it takes the frozen parameters from the base
    assert frozen
    assert not frozen & {*saved}
    for name in {*weights} - frozen:
        assert torch.equal(saved[name], weights[name]), name


def files_with_checksums(folder: Path) -> set[str]:
    return {CHECKSUMS, *(line.split("  ")[1] for line in (folder / CHECKSUMS).read_text().splitlines())}


def test_lora_under_fsdp2(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")

    def run(folder: Path, strategy: str, devices: int) -> dict[str, Any]:
        lora = LoRA(("q_proj", "v_proj"), rank=2, alpha=2)
        # Adam takes full steps even on gradients near 0, so differences in rounding need a small learning rate.
        options: dict[str, Any] = {"lora": lora, "lr": 1e-5, "simulated_ranks": 3 - devices}
        return train(folder, "showo", checkpoints["showo"], "sft", strategy, devices, **options)

    (one,) = run_processes(run, tmp_path / "one", "auto", 1, processes=1)
    before = dict(Showo.from_pretrained(str(checkpoints["showo"])).named_parameters())
    for result in run_processes(run, tmp_path / "fsdp2", "fsdp2", 2):
        assert_same_training("showo", one, result)
        weights = exported_weights("showo", result)
        changed = {name for name, value in weights.items() if not torch.equal(value, before[name])}
        assert changed == {name for name in before if "q_proj.weight" in name or "v_proj.weight" in name}


def test_fsdp1_is_refused() -> None:
    with pytest.raises(UserError, match=r"FSDPStrategy gathers weights in forward calls only.*give 'fsdp2'"):
        check(FSDPStrategy())
