"""Memory of weights, gradients and optimizer states on each of several processes under FSDP2.

python benchmarks/sharding.py
"""

import argparse
import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import checkpoints
import short_runs
import torch
from forked import run_forked
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

SIDE = 4
"""Codes along a side of an image. It makes steps short, and has no influence on weights."""
LINE = "{:<6} {:>9} | {:>8} {:>9} {:>9} {:>8} {:>8} {:>9} | {:>8} {:>9} {:>9}"
COLUMNS = "weights", "gradients", "optimizer", "sum", "all", "of 1/n"


@dataclass(frozen=True)
class TensorMemory:
    """Bytes of tensors in one process.

    Args:
        weights: Parameters.
        gradients: Of the parameters.
        optimizer: The moments of AdamW.
        all_tensors: All tensors that Python can reach.
    """

    weights: float
    gradients: float
    optimizer: float
    all_tensors: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer


class RecordMemory(Callback):
    """Records the memory at the end of the backward pass, while weights are full, and between steps."""

    in_step: TensorMemory
    between_steps: TensorMemory

    def on_after_backward(self, trainer: Trainer, module: LightningModule) -> None:
        self.in_step = tensor_memory(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.between_steps = tensor_memory(trainer, module)


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, int], tuple[TensorMemory, TensorMemory]]:
    parser = argparse.ArgumentParser(description="Memory of each process under FSDP2, between steps and in a step")
    parser.add_argument("--size", choices=("tiny", "middle"), default="middle")
    parser.add_argument("--processes", type=int, nargs="+", default=(1, 2, 4))
    parser.add_argument("--only", choices=("showo", "janus"))
    options = parser.parse_args(arguments)
    print(LINE.format("MB", "", "between", "steps", *[""] * 4, "in a", "step", ""))
    print(LINE.format("model", "processes", *COLUMNS, "weights", "gradients", "all"))
    results = {}
    for backbone in ("showo", "janus"):
        for processes in options.processes if options.only in (None, backbone) else ():
            between, in_step = results[backbone, processes] = measure(backbone, options.size, processes)
            first = options.processes[0]
            factor = between.total * processes / results[backbone, first][0].total / first
            values = (between.weights, between.gradients, between.optimizer, between.total, between.all_tensors)
            cells = [
                f"{value / 1e6:.1f}" for value in (*values, in_step.weights, in_step.gradients, in_step.all_tensors)
            ]
            print(LINE.format(backbone, processes, *cells[:5], f"{factor:.3f}", *cells[5:]), flush=True)
    return results


def measure(backbone: str, size: str, processes: int) -> tuple[TensorMemory, TensorMemory]:
    """Between steps and in a step, of the process with the largest sum."""
    with TemporaryDirectory() as folder:
        run_forked(checkpoints.write, backbone, size, Path(folder), SIDE)
        results = run_forked(run, backbone, processes, Path(folder), processes=processes)
    between_steps, in_step = zip(*results, strict=True)
    return max(between_steps, key=lambda memory: memory.total), max(in_step, key=lambda memory: memory.total)


def run(backbone: str, processes: int, folder: Path) -> tuple[TensorMemory, TensorMemory]:
    """A run of SFT."""
    record = RecordMemory()
    trainer = short_runs.make_trainer(folder, "fsdp2", processes, callback=record)
    model = short_runs.make_model(short_runs.make_backbone(backbone, folder), "sft", group_size=1)
    trainer.fit(model, short_runs.make_data(processes))
    return record.between_steps, record.in_step


def tensor_memory(trainer: Trainer, module: LightningModule) -> TensorMemory:
    """The current memory of this process."""
    weights = list(module.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    everything = (value for value in gc.get_objects() if is_plain_tensor(value))
    return TensorMemory(num_bytes(weights), num_bytes(gradients), num_bytes(states), num_bytes(everything))


def is_plain_tensor(value: object) -> bool:
    """Whether it may have memory of its own. Subclasses may not, such as the fake tensors of a compiler."""
    return type(value) in (Tensor, Parameter, DTensor)


def num_bytes(tensors: Iterable[Any]) -> float:
    """Bytes of the tensors' local memory; shared memory is counted once."""
    storages: dict[int, int] = {}
    for tensor in tensors:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if local.device.type == "cpu" and local.layout == torch.strided:
            storage = local.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return float(sum(storages.values()))


if __name__ == "__main__":
    main()
