"""Collectives over two ranks."""

import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from processes import run_processes

from unirl.distributed.collectives import gather_object, local_item


def gather_twice(folder: Path) -> list[Any]:
    """Under gloo, and as under NCCL: through a group of its own."""
    dist.init_process_group("gloo")
    gathered = [gather_object(f"rank {dist.get_rank()}")]
    backends, get_backend = iter(["nccl"]), dist.get_backend
    dist.get_backend = lambda *args: next(backends, None) or get_backend(*args)  # in a process of its own
    gathered.append(gather_object(f"rank {dist.get_rank()}"))
    dist.destroy_process_group()
    return gathered


def test_objects_are_gathered_on_rank_0(tmp_path: Path) -> None:
    first, second = run_processes(gather_twice, tmp_path)
    assert first == [["rank 0", "rank 1"]] * 2
    assert second == [None, None]
    assert local_item(first[0]) is None  # in one process
