"""Peak memory of a process in each phase of a training step: FSDP2 beside DDP, and DDP with a sharded optimizer.

python benchmarks/sharding.py
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import checkpoints
import short_runs
import torch
from forked import run_forked
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from unirl.doctor.tracker import MemoryTracker
from unirl.training import SelfImprovement

SIDE = 4
"""Codes along a side of an image. It makes steps short, so that weights matter beside activations."""
WAYS = ("ddp", "ddp + zero", "fsdp2")
LINE = "{:<6} {:<11} {:>9} | {:>8} {:>8} {:>8} {:>9} | {:>7} {:>6}"
SPARE = 1.15


@dataclass(frozen=True)
class PhasePeaks:
    """Bytes of all tensors of a process.

    Args:
        between: After a step.
        rollout: Peak while images and answers are sampled.
        loss: Peak in the forward and backward pass of the loss.
        optimizer: Peak in the optimizer's step.
        states: Weights, gradients and moments of the whole model.
        unit: Weight and gradient of the largest block or matrix outside the blocks.
    """

    between: float
    rollout: float
    loss: float
    optimizer: float
    states: float
    unit: float


class Phases(Callback):
    """Tells a `MemoryTracker` which phase of the second step is running; optimizer states exist by then."""

    def __init__(self, memory: MemoryTracker) -> None:
        self.memory, self.steps, self.between = memory, 0, 0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.memory.start("rollout" if self.steps else "first step")

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.memory.start("optimizer" if self.steps else "first step")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.steps += 1
        self.memory.start("between")
        self.between = self.memory.live

    def loss(self, original: Any, *args: Any) -> Any:
        """Replaces `UpdateRule.loss`, with which the phase begins."""
        self.memory.start("loss" if self.steps else "first step")
        return original(*args)


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, str, int], PhasePeaks]:
    parser = argparse.ArgumentParser(description="Peak memory of a process in each phase of a training step")
    parser.add_argument("--size", choices=("tiny", "middle"), default="middle")
    parser.add_argument("--processes", type=int, nargs="+", default=(1, 2, 4))
    parser.add_argument("--only", choices=("showo", "janus"))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options = parser.parse_args(arguments)
    print(LINE.format("MB", "", "processes", "between", "rollout", "loss", "optimizer", "bound", "of it"))
    results: dict[tuple[str, str, int], PhasePeaks] = {}
    for backbone in ("showo", "janus"):
        if options.only not in (None, backbone):
            continue
        activations = None
        for processes, way in ((processes, way) for processes in options.processes for way in options.ways):
            peaks = results[backbone, way, processes] = measure(backbone, options.size, processes, way)
            if activations is None:  # of one process, which has the same samples as each of several
                activations = peaks.loss - peaks.states
            bound = SPARE * (peaks.states / processes + peaks.unit + activations)
            values = (peaks.between, peaks.rollout, peaks.loss, peaks.optimizer, bound)
            cells = [f"{value / 1e6:.1f}" for value in values]
            print(LINE.format(backbone, way, processes, *cells, f"{peaks.loss / bound:.2f}"), flush=True)
    return results


def measure(backbone: str, size: str, processes: int, way: str) -> PhasePeaks:
    """The largest values over all processes."""
    with TemporaryDirectory() as folder:
        run_forked(checkpoints.write, backbone, size, Path(folder), SIDE)
        results = run_forked(run, backbone, processes, way, Path(folder), processes=processes)
    return PhasePeaks(*(max(values) for values in zip(*(vars(result).values() for result in results), strict=True)))


def run(backbone: str, processes: int, way: str, folder: Path) -> PhasePeaks:
    """Two steps of SFT."""
    strategy = "fsdp2" if way == "fsdp2" else "auto" if processes == 1 else "ddp"
    with MemoryTracker() as memory:
        phases = Phases(memory)
        trainer = short_runs.make_trainer(folder, strategy, processes, callback=phases)
        model = short_runs.make_model(short_runs.make_backbone(backbone, folder, True), "sft", group_size=1)
        if way == "ddp + zero" and processes > 1:
            model.optimizer = partial(ZeroRedundancyOptimizer, optimizer_class=torch.optim.AdamW, lr=1e-5)
        model.update.loss = partial(phases.loss, model.update.loss)  # type: ignore[method-assign]
        trainer.fit(model, short_runs.make_data(processes))
    peaks = [float(memory.peaks[phase]) for phase in ("rollout", "loss", "optimizer")]
    return PhasePeaks(float(phases.between), *peaks, *whole_model(model))


def whole_model(model: SelfImprovement) -> tuple[float, float]:
    """Bytes of all weights, gradients and moments of AdamW; of weight and gradient of the largest part."""
    backbone = model.backbone
    blocks = [module for module in backbone.modules() if isinstance(module, backbone.blocks)]
    in_blocks = {id(parameter) for block in blocks for parameter in block.parameters()}
    rest = [parameter for parameter in backbone.parameters() if id(parameter) not in in_blocks]
    parts = [*(list(block.parameters()) for block in blocks), *([parameter] for parameter in rest)]
    largest = max(parts, key=lambda part: num_bytes(part, 2))
    return num_bytes(list(backbone.parameters()), 4), num_bytes(largest, 2)


def num_bytes(parameters: Sequence[nn.Parameter], copies: int) -> float:
    """Bytes of whole parameters; trainable ones several times."""
    return float(sum(4 * p.numel() * (copies if p.requires_grad else 1) for p in parameters))


if __name__ == "__main__":
    main()
