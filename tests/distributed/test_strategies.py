"""One process, DDP and FSDP2 with the same global batch: the same losses, drawings and weights."""

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
from unirl.checkpoint.integrity import SUMS
from unirl.distributed.strategies import check
from unirl.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from pair import together
from runs import BACKBONES, train


def weights(kind: str, found: dict[str, Any]) -> dict[str, torch.Tensor]:
    return dict(BACKBONES[kind].from_pretrained(str(found["pretrained"])).named_parameters())


def alike(kind: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert other["drawn"] == one["drawn"]
    assert other["losses"] == pytest.approx(one["losses"], abs=1e-4)
    theirs = weights(kind, other)
    for name, value in weights(kind, one).items():
        torch.testing.assert_close(theirs[name], value, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("rule", ["sft", "grpo"])
@pytest.mark.parametrize("kind", BACKBONES)
def test_ddp_and_fsdp2_are_one_process(kind: str, rule: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """One process draws with the generators of both."""

    def run(folder: Path, strategy: str, devices: int) -> dict[str, Any]:
        return train(folder, kind, checkpoints[kind], rule, strategy, devices, played=3 - devices)

    (one,) = together(run, tmp_path / "one", "auto", 1, processes=1)
    for strategy in ("ddp", "fsdp2"):
        for found in together(run, tmp_path / strategy, strategy, 2):
            alike(kind, one, found)


def test_a_sharded_run_resumes_exactly(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(folder: Path, steps: int, ckpt: Path | None = None) -> dict[str, Any]:
        return train(folder, "showo", checkpoints["showo"], "grpo", "fsdp2", 2, ckpt, max_steps=steps)

    whole = together(run, tmp_path / "whole", 4)[0]
    together(run, tmp_path / "head", 2)
    tail = together(run, tmp_path / "tail", 4, tmp_path / "head" / "step=2.ckpt")[0]
    assert tail["losses"] == whole["losses"][2:]
    assert tail["drawn"] == whole["drawn"][2:]
    after = weights("showo", tail)
    for name, value in weights("showo", whole).items():
        assert torch.equal(after[name], value), name
    last = tmp_path / "tail" / "step=4.ckpt"
    assert find_corruption(last) is None
    assert {path.name for path in last.iterdir()} == summed(last)
    saved = backbone_weights(last)  # what `unirl export` writes
    for name, value in after.items():
        assert torch.equal(saved[name], value), name


def summed(folder: Path) -> set[str]:
    """Files with a checksum, and that of the checksums."""
    return {SUMS, *(line.split("  ")[1] for line in (folder / SUMS).read_text().splitlines())}


def test_adapters_are_trained_in_shards_and_merged_in_the_end(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")

    def run(folder: Path, strategy: str, devices: int) -> dict[str, Any]:
        lora = LoRA(("q_proj", "v_proj"), rank=2, alpha=2)
        model = {"lora": lora, "lr": 1e-5}  # Adam makes whole steps of what is hardly a gradient: small ones here
        return train(folder, "showo", checkpoints["showo"], "sft", strategy, devices, played=3 - devices, model=model)

    (one,) = together(run, tmp_path / "one", "auto", 1, processes=1)
    before = dict(Showo.from_pretrained(str(checkpoints["showo"])).named_parameters())
    for found in together(run, tmp_path / "fsdp2", "fsdp2", 2):
        alike("showo", one, found)
        changed = {name for name, value in weights("showo", found).items() if not torch.equal(value, before[name])}
        assert changed == {name for name in before if "q_proj.weight" in name or "v_proj.weight" in name}


def test_fsdp1_is_refused_and_what_shards_instead_is_named() -> None:
    with pytest.raises(UserError, match=r"FSDPStrategy gathers weights in forward calls only.*give 'fsdp2'"):
        check(FSDPStrategy())
