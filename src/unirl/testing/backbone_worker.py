"""A process that a sharded backbone is checked in: `python -m unirl.testing.backbone_worker TASK WORLD RANK`."""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from unirl.backbones.base import Backbone
from unirl.distributed.fsdp2 import shard
from unirl.testing.backbone_task import Task, learnt, said


def kind_of(task: Task) -> type[Backbone]:
    """The backbone's class, from its module or, where that cannot be imported by name, from its file."""
    try:
        module = importlib.import_module(task.module)
    except ImportError:
        spec = importlib.util.spec_from_file_location(task.module, task.source)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[task.module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found: Any = module
    for part in task.name.split("."):
        found = getattr(found, part)
    return cast(type[Backbone], found)


def main(path: str, world: int, rank: int) -> None:
    """Shard the model, ask it, teach it, ask it again, and write down what it said."""
    torch.set_num_threads(1)
    task = Task.read(json.loads(Path(path).read_text()))
    folder = Path(task.folder)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        backbone = kind_of(task).from_pretrained(str(folder / "model"))
        shard(backbone)
        found = {"said": said(backbone, task, rank), "learnt": learnt(backbone, task, rank)}
        found["again"] = said(backbone, task, rank)
        torch.save(found, folder / f"found{rank}.pt")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.flush()
    os._exit(0)  # an interpreter that is taken down may abort in a thread that gloo has left over (pytorch#190489)
