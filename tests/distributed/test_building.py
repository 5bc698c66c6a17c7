"""Under fsdp2 the models of a machine are built rank by rank, and no rank keeps a full one."""

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh

from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.distributed.fsdp2 import finish_backward, frozen_copy, shard
from unirl.distributed.strategies import build_rank_by_rank, mixed_precision_policy
from unirl.errors import UserError
from unirl.types import ImageSampling

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from processes import exit_codes, run_processes


class OneMachine(ModelParallelStrategy):
    """As Lightning sets it up for the ranks of one machine."""

    local_rank = property(lambda self: dist.get_rank())  # type: ignore[assignment]
    world_size = property(lambda self: dist.get_world_size())  # type: ignore[assignment]
    num_processes = property(lambda self: dist.get_world_size())  # type: ignore[assignment]
    root_device = property(lambda self: torch.device("cpu"))  # type: ignore[assignment]


def in_process_group(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(folder: Path, *args: Any) -> Any:
        dist.init_process_group("gloo")
        try:
            return function(folder, *args)
        finally:
            dist.destroy_process_group()

    return wrapped


def test_models_are_built_one_after_another(tmp_path: Path) -> None:
    @in_process_group
    def run(folder: Path) -> tuple[float, float, int]:
        times, sizes = [], []

        def build(mesh: DeviceMesh | None) -> None:
            assert mesh is not None
            sizes.append(mesh.size())
            times.append(time.monotonic())
            time.sleep(0.3)
            times.append(time.monotonic())

        build_rank_by_rank(build, OneMachine())
        return times[0], times[1], sizes[0]

    results = run_processes(run, tmp_path, processes=3)
    assert [end <= begin for (_, end, _), (begin, _, _) in itertools.pairwise(results)] == [True, True]
    assert [size for _, _, size in results] == [3, 3, 3]


def test_without_a_process_group_there_is_no_mesh() -> None:
    meshes: list[DeviceMesh | None] = []
    build_rank_by_rank(meshes.append, None)
    build_rank_by_rank(meshes.append, OneMachine())
    assert meshes == [None, None]


@pytest.mark.parametrize("broken", [0, 1])
def test_all_ranks_end_if_one_cannot_build(broken: int, tmp_path: Path) -> None:
    @in_process_group
    def run(folder: Path) -> str:
        def build(mesh: DeviceMesh | None) -> None:
            if dist.get_rank() == broken:
                raise UserError("model.safetensors is truncated")

        with pytest.raises(UserError) as raised:
            build_rank_by_rank(build, OneMachine())
        return str(raised.value)

    codes, logs = exit_codes(run, tmp_path, timeout=60)
    assert codes == [0, 0], logs
    messages = [torch.load(tmp_path / f"result{rank}.pt") for rank in (0, 1)]
    assert messages[broken] == "model.safetensors is truncated"
    expected = f"process {broken} of 2 could not build its model: UserError: model.safetensors is truncated"
    assert messages[1 - broken] == expected


def test_a_frozen_copy_has_the_same_shards(shapes_checkpoint: Path, tmp_path: Path) -> None:
    @in_process_group
    def run(folder: Path) -> tuple[int, int, bool, list[str]]:
        backbone = Showo.from_pretrained(str(shapes_checkpoint))
        total = sum(p.numel() for p in backbone.parameters() if p.ndim > 1)  # vectors are on every rank
        shard(backbone)
        frozen = frozen_copy(backbone)
        local = sum(p.to_local().numel() for p in frozen.parameters() if p.ndim > 1)  # type: ignore[attr-defined]
        pairs = list(zip(backbone.named_parameters(), frozen.parameters(), strict=True))
        with torch.no_grad():
            pairs[0][0][1].add_(1.0)  # training changes the model, not the copy
        changed = [name for (name, p), copy in pairs if not torch.equal(p.full_tensor(), copy.full_tensor())]  # type: ignore[attr-defined]
        return total, local, any(p.requires_grad for p in frozen.parameters()), changed

    results = run_processes(run, tmp_path)
    total = results[0][0]
    assert sum(local for _, local, _, _ in results) == total
    assert max(local for _, local, _, _ in results) < 0.6 * total
    assert [(trainable, len(changed)) for _, _, trainable, changed in results] == [(False, 1)] * 2


@pytest.mark.parametrize("kind", [Showo, Janus])
def test_sharded_models_compute_in_16_bit_with_heads_in_float32(
    kind: Any, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    @in_process_group
    def run(folder: Path) -> tuple[float, set[torch.dtype], set[torch.dtype]]:
        backbone = kind.from_pretrained(str(checkpoints[kind.__name__.lower()]))
        shard(backbone, mp_policy=mixed_precision_policy("bf16-mixed"))
        prompts, sampling = ["a photo of a ring"] * 2, ImageSampling(4, guidance=1.0)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            images = backbone.sample_images(prompts, sampling, torch.Generator().manual_seed(0))
            log_probs, _ = backbone.image_log_probs(prompts, images, sampling)
        log_probs.sum().backward()
        finish_backward(backbone)
        assert images.log_probs is not None
        gradients = {p.grad.dtype for p in backbone.parameters() if p.grad is not None}
        return (log_probs - images.log_probs).abs().max().item(), {log_probs.dtype}, gradients

    for gap, *dtypes in run_processes(run, tmp_path):
        assert gap < 0.01
        assert dtypes == [{torch.float32}, {torch.float32}]
