"""What each of some processes holds of weights, gradients and optimizer states under FSDP2.

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
import torch
import trainings
from apart import apart
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

SIDE = 4
"""Codes along a picture. Weights do not depend on it, and a step is short."""
LINE = "{:<6} {:>9} | {:>8} {:>9} {:>9} {:>8} {:>8} {:>9} | {:>8} {:>9} {:>9}"
HEADS = "weights", "gradients", "optimizer", "sum", "all", "of 1/n"


@dataclass(frozen=True)
class Held:
    """Bytes that a process holds.

    Args:
        weights: Parameters.
        gradients: Of them.
        optimizer: AdamW's moments.
        everything: Memory of all tensors there are, whoever keeps them.
    """

    weights: float
    gradients: float
    optimizer: float
    everything: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer


class Ledger(Callback):
    """Counts at the end of the backward pass, while everything is whole, and between steps."""

    inside: Held
    between: Held

    def on_after_backward(self, trainer: Trainer, module: LightningModule) -> None:
        self.inside = count(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.between = count(trainer, module)


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, int], tuple[Held, Held]]:
    parser = argparse.ArgumentParser(description="Bytes of each process under FSDP2, between steps and in one")
    parser.add_argument("--size", choices=("tiny", "middle"), default="middle")
    parser.add_argument("--processes", type=int, nargs="+", default=(1, 2, 4))
    parser.add_argument("--only", choices=("showo", "janus"))
    options = parser.parse_args(arguments)
    print(LINE.format("MB", "", "between", "steps", *[""] * 4, "in a", "step", ""))
    print(LINE.format("model", "processes", *HEADS, "weights", "gradients", "all"))
    found = {}
    for kind in ("showo", "janus"):
        for processes in options.processes if options.only in (None, kind) else ():
            between, inside = found[kind, processes] = most(kind, options.size, processes)
            factor = between.total * processes / found[kind, options.processes[0]][0].total / options.processes[0]
            kinds = between.weights, between.gradients, between.optimizer, between.total, between.everything
            figures = [
                f"{figure / 1e6:.1f}" for figure in (*kinds, inside.weights, inside.gradients, inside.everything)
            ]
            print(LINE.format(kind, processes, *figures[:5], f"{factor:.3f}", *figures[5:]), flush=True)
    return found


def most(kind: str, size: str, processes: int) -> tuple[Held, Held]:
    """Between steps and in a step, of the process that holds most."""
    with TemporaryDirectory() as folder:
        apart(checkpoints.write, kind, size, Path(folder), SIDE)
        held = apart(run, kind, processes, Path(folder), processes=processes)
    return max((one for one, _ in held), key=by_sum), max((one for _, one in held), key=by_sum)


def by_sum(held: Held) -> float:
    return held.total


def run(kind: str, processes: int, folder: Path) -> tuple[Held, Held]:
    """A run of SFT, as the command line would start it."""
    ledger = Ledger()
    trainer = trainings.trainer(folder, "fsdp2", processes, watch=ledger)
    trainer.fit(trainings.model(trainings.backbone(kind, folder), "sft", 1), trainings.data(processes))
    return ledger.between, ledger.inside


def count(trainer: Trainer, module: LightningModule) -> Held:
    """What this process holds now."""
    weights = list(module.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    return Held(size(weights), size(gradients), size(states), size(one for one in gc.get_objects() if tensor(one)))


def tensor(value: object) -> bool:
    """Whether it may have memory of its own: wrappers have none, such as the fake tensors that a compiler leaves."""
    return type(value) in (Tensor, Parameter, DTensor)


def size(tensors: Iterable[Any]) -> float:
    """Bytes of their memory on this process, what they share counted once."""
    memory: dict[int, int] = {}
    for one in tensors:
        mine = one.to_local() if isinstance(one, DTensor) else one
        if mine.device.type == "cpu" and mine.layout == torch.strided:
            storage = mine.untyped_storage()
            memory[storage.data_ptr()] = storage.nbytes()
    return float(sum(memory.values()))


if __name__ == "__main__":
    main()
