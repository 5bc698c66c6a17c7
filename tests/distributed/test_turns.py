"""Under fsdp2 the models of a machine are built one after another, and no process keeps a whole one."""

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

from unirl.backbones.showo import Showo
from unirl.distributed.fsdp2 import frozen_copy, shard
from unirl.distributed.strategies import build_rank_by_rank
from unirl.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from pair import ended, together


class Machine(ModelParallelStrategy):
    """As Lightning sets it up: this process's place among the others."""

    local_rank = property(lambda self: dist.get_rank())  # type: ignore[assignment]
    world_size = property(lambda self: dist.get_world_size())  # type: ignore[assignment]
    num_processes = property(lambda self: dist.get_world_size())  # type: ignore[assignment]
    root_device = property(lambda self: torch.device("cpu"))  # type: ignore[assignment]


def among(work: Callable[..., Any]) -> Callable[..., Any]:
    def joined(folder: Path, *args: Any) -> Any:
        dist.init_process_group("gloo")
        try:
            return work(folder, *args)
        finally:
            dist.destroy_process_group()

    return joined


def test_one_is_built_after_another(tmp_path: Path) -> None:
    @among
    def run(folder: Path) -> tuple[float, float, int]:
        times, sizes = [], []

        def build(mesh: DeviceMesh | None) -> None:
            assert mesh is not None  # made before the turns: making one waits for all
            sizes.append(mesh.size())
            times.append(time.monotonic())
            time.sleep(0.3)
            times.append(time.monotonic())

        build_rank_by_rank(build, Machine())
        return times[0], times[1], sizes[0]

    found = together(run, tmp_path, processes=3)
    assert [end <= begin for (_, end, _), (begin, _, _) in itertools.pairwise(found)] == [True, True]
    assert [size for _, _, size in found] == [3, 3, 3]


def test_without_processes_it_is_simply_built() -> None:
    meshes: list[DeviceMesh | None] = []
    build_rank_by_rank(meshes.append, None)
    build_rank_by_rank(meshes.append, Machine())
    assert meshes == [None, None]


@pytest.mark.parametrize("broken", [0, 1])
def test_all_end_where_one_cannot_be_built(broken: int, tmp_path: Path) -> None:
    @among
    def run(folder: Path) -> str:
        def build(mesh: DeviceMesh | None) -> None:
            if dist.get_rank() == broken:
                raise UserError("model.safetensors is truncated")

        with pytest.raises(UserError) as raised:
            build_rank_by_rank(build, Machine())
        return str(raised.value)

    codes, logs = ended(run, tmp_path, patience=60)
    assert codes == [0, 0], logs
    said = [torch.load(tmp_path / f"found{rank}.pt") for rank in (0, 1)]
    assert said[broken] == "model.safetensors is truncated"
    expected = f"process {broken} of 2 could not build its model: UserError: model.safetensors is truncated"
    assert said[1 - broken] == expected


def test_a_reference_is_the_model_and_no_process_holds_it_whole(shapes_checkpoint: Path, tmp_path: Path) -> None:
    @among
    def run(folder: Path) -> tuple[int, int, bool, list[str]]:
        backbone = Showo.from_pretrained(str(shapes_checkpoint))
        whole = sum(p.numel() for p in backbone.parameters())
        shard(backbone)
        other = frozen_copy(backbone)
        mine = sum(p.to_local().numel() for p in other.parameters())  # type: ignore[attr-defined]
        pairs = list(zip(backbone.named_parameters(), other.parameters(), strict=True))
        with torch.no_grad():
            pairs[0][0][1].add_(1.0)  # what the model learns, the reference does not
        unlike = [name for (name, one), two in pairs if not torch.equal(one.full_tensor(), two.full_tensor())]  # type: ignore[attr-defined]
        return whole, mine, any(p.requires_grad for p in other.parameters()), unlike

    found = together(run, tmp_path)
    whole = found[0][0]
    assert sum(mine for _, mine, _, _ in found) == whole
    assert max(mine for _, mine, _, _ in found) < 0.6 * whole
    assert [(trained, len(unlike)) for _, _, trained, unlike in found] == [(False, 1)] * 2
