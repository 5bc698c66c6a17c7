"""What the doctor says a training step needs, against what it took.

python benchmarks/memory.py
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import checkpoints
import torch
import trainings
from apart import apart, most_resident, resident
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from unirl.doctor.memory import estimate
from unirl.doctor.needs import adapted, step_of

SIZES = ("tiny", "middle", "large")
DRAWINGS = {"tiny": (12, 8), "middle": (1, 4), "large": (1, 2)}
"""Prompts of a step and drawings of each: enough for activations to show beside weights."""
KINDS = (("showo", False), ("showo", True), ("janus", False), ("janus", True))
"""Backbones, and whether layers are computed again for the gradient."""
LINE = "{:<6} {:<7} {:<12} {:<10} {:>13} {:>13} {:>9}"


@dataclass(frozen=True)
class Found:
    """Bytes of a run of one step, in which optimizer states are there already.

    Args:
        estimate: What the doctor says.
        measured: The most that the process had, less what it had before the model was built.
    """

    estimate: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.estimate / self.measured


class Second(Callback):
    """Makes a first step a second one: gradients and AdamW's states of the step before are there."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
            weight.grad, *moments = (torch.empty_like(weight).fill_(0) for _ in range(3))
            states = dict(zip(("exp_avg", "exp_avg_sq"), moments, strict=True))
            optimizer.state[weight] = {"step": torch.tensor(1.0), **states}


def main(arguments: Sequence[str] | None = None) -> dict[tuple[Any, ...], Found]:
    parser = argparse.ArgumentParser(description="The doctor's estimate of memory against the measured peak")
    parser.add_argument("--size", choices=SIZES, nargs="+", default=SIZES)
    parser.add_argument("--only", choices=("showo", "janus"))
    parser.add_argument("--rule", choices=trainings.RULES, nargs="+", default=trainings.RULES)
    options = parser.parse_args(arguments)
    print(LINE.format("size", "model", "rule", "recompute", "estimate, MB", "measured, MB", "ratio"), flush=True)
    found = {}
    for size in options.size:
        for (kind, again), rule in product(KINDS, trainings.RULES):
            if rule in options.rule and options.only in (None, kind):
                one = found[size, kind, rule, again] = case(kind, size, rule, again)
                figures = f"{one.estimate / 1e6:.0f}", f"{one.measured / 1e6:.0f}", f"{one.ratio:.2f}"
                print(LINE.format(size, kind, rule, "yes" if again else "no", *figures), flush=True)
    return found


def case(kind: str, size: str, rule: str, again: bool) -> Found:
    """One run, with a checkpoint of its own."""
    with TemporaryDirectory() as folder:
        apart(checkpoints.write, kind, size, Path(folder))
        (expected,) = apart(expect, kind, size, rule, again, Path(folder))
        (measured,) = apart(measure, kind, size, rule, again, Path(folder))
    return Found(expected, measured)


def expect(kind: str, size: str, rule: str, again: bool, folder: Path) -> float:
    """What `unirl doctor` works out for the run."""
    (prompts, group), trainer = DRAWINGS[size], trainings.trainer(folder)
    model = trainings.model(trainings.backbone(kind, folder, again), rule, group)
    model.backbone.build(meta=True)
    shape = adapted(model)
    return estimate(shape, step_of(model, trainings.data(prompts), trainer)).total(shape.gradient_checkpointing)


def measure(kind: str, size: str, rule: str, again: bool, folder: Path) -> float:
    """The run itself."""
    prompts, group = DRAWINGS[size]
    model, data = trainings.model(trainings.backbone(kind, folder, again), rule, group), trainings.data(prompts)
    trainer = trainings.trainer(folder, steps=1, watch=Second())
    before = resident()
    trainer.fit(model, data)
    return most_resident() - before


if __name__ == "__main__":
    main()
