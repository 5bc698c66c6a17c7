"""Sharded over two processes on the CPU, a model must say what it says whole."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from unirl.backbones.base import Backbone
from unirl.testing.backbone_base import Checks, gap, require
from unirl.testing.backbone_task import Task, learnt, said

PROCESSES = 2
PATIENCE = 600
"""Seconds after which processes that wait for each other are given up."""


class ShardingChecks(Checks):
    """Strategies need nothing from an author but `blocks`."""

    def test_sharded_over_two_processes_it_says_the_same(self, backbone: Backbone, tmp_path: Path) -> None:
        backbone.save_pretrained(tmp_path / "model")
        kind = type(backbone)
        source = getattr(sys.modules[kind.__module__], "__file__", None) or ""
        settings = {name: getattr(self, name) for name in ("prompts", "questions", "answers", "sampling", "answering")}
        task = Task(str(tmp_path), kind.__module__, source, kind.__qualname__, **settings)
        found = run(task, tmp_path)
        whole = type(backbone).from_pretrained(str(tmp_path / "model"))
        for rank, values in enumerate(found):
            for method, value in said(whole, task, rank).items():
                for when, then in {"": "said", " after a training step": "again"}.items():
                    off = gap(values[then][method], value)
                    require(
                        off <= self.tolerance,
                        f"{method}: sharded over {PROCESSES} processes it gives other numbers{when} than whole "
                        f"(by {off:.2g})",
                    )
        each = [learnt(whole, task, rank) for rank in range(PROCESSES)]
        for name, slope in found[0]["learnt"].items():
            expected = torch.stack([one.get(name, torch.zeros_like(slope)) for one in each]).mean(0)
            off, size = gap(slope, expected), float(expected.abs().max())
            require(
                off <= 1e-3 * max(1.0, size),
                f"image_log_probs and answer_log_probs: sharded, the gradient of {name!r} is another (by {off:.2g})",
            )


def run(task: Task, folder: Path) -> list[dict[str, Any]]:
    """What each process found; fails with the first one's last line where one fails."""
    (folder / "task.json").write_text(json.dumps(dataclasses.asdict(task)))
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "unirl.testing.backbone_worker", str(folder / "task.json"), str(PROCESSES)]
    logs = [folder / f"log{rank}.txt" for rank in range(PROCESSES)]
    workers = []
    for rank, log in enumerate(logs):
        with log.open("w") as out:
            workers.append(subprocess.Popen([*command, str(rank)], env=environment, stdout=out, stderr=out))
    try:
        codes = [worker.wait(PATIENCE) for worker in workers]
    except subprocess.TimeoutExpired:
        raise AssertionError(
            f"sharded over {PROCESSES} processes, the model did not end within {PATIENCE} s: processes wait for each "
            "other, so they call sharded modules unequally often"
        ) from None
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    for log, code in zip(logs, codes, strict=True):
        if not code:
            continue
        lines = log.read_text().strip().splitlines() or ["nothing"]
        last = next((line for line in lines[::-1] if "Error" in line), lines[-1])
        raise AssertionError(f"sharded over {PROCESSES} processes, one failed: {last}\n\n" + "\n".join(lines))
    return [torch.load(folder / f"found{rank}.pt") for rank in range(PROCESSES)]
