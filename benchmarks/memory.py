"""The doctor's estimate of the memory of a training step against the measured peak.

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
import short_runs
import torch
from forked import peak_resident_memory, resident_memory, run_forked
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from unirl.doctor.memory import estimate_memory
from unirl.doctor.resources import sizes_in_training, step_workload

SIZES = ("tiny", "middle", "large")
IMAGES = {"tiny": (12, 8), "middle": (1, 4), "large": (1, 2)}
"""Prompts of a step and images of each: enough for activations to matter beside weights."""
CASES = (("showo", False), ("showo", True), ("janus", False), ("janus", True))
"""Backbone, and whether gradient checkpointing is used."""
LINE = "{:<6} {:<7} {:<14} {:<22} {:>13} {:>13} {:>9}"


@dataclass(frozen=True)
class Comparison:
    """Bytes of a step in which optimizer states exist.

    Args:
        estimate: The doctor's estimate.
        measured: Peak memory of the process, minus its memory before the model was built.
    """

    estimate: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.estimate / self.measured


class AddOptimizerStates(Callback):
    """Adds gradients and AdamW's states before the first step, as they exist before all later ones."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
            weight.grad, *moments = (torch.empty_like(weight).fill_(0) for _ in range(3))
            states = dict(zip(("exp_avg", "exp_avg_sq"), moments, strict=True))
            optimizer.state[weight] = {"step": torch.tensor(1.0), **states}


def main(arguments: Sequence[str] | None = None) -> dict[tuple[Any, ...], Comparison]:
    parser = argparse.ArgumentParser(description="The doctor's estimate of memory against the measured peak")
    parser.add_argument("--size", choices=SIZES, nargs="+", default=SIZES)
    parser.add_argument("--only", choices=("showo", "janus"))
    parser.add_argument("--rule", choices=short_runs.RULES, nargs="+", default=short_runs.RULES)
    options = parser.parse_args(arguments)
    columns = ("size", "model", "rule", "gradient_checkpointing", "estimate, MB", "measured, MB", "ratio")
    print(LINE.format(*columns), flush=True)
    results = {}
    for size in options.size:
        for (backbone, checkpointing), rule in product(CASES, short_runs.RULES):
            if rule in options.rule and options.only in (None, backbone):
                result = results[size, backbone, rule, checkpointing] = compare(backbone, size, rule, checkpointing)
                cells = f"{result.estimate / 1e6:.0f}", f"{result.measured / 1e6:.0f}", f"{result.ratio:.2f}"
                print(LINE.format(size, backbone, rule, "yes" if checkpointing else "no", *cells), flush=True)
    return results


def compare(backbone: str, size: str, rule: str, checkpointing: bool) -> Comparison:
    """Estimate and measure one case, each in a process of its own."""
    with TemporaryDirectory() as folder:
        run_forked(checkpoints.write, backbone, size, Path(folder))
        (expected,) = run_forked(estimate, backbone, size, rule, checkpointing, Path(folder))
        (measured,) = run_forked(measure, backbone, size, rule, checkpointing, Path(folder))
    return Comparison(expected, measured)


def estimate(backbone: str, size: str, rule: str, checkpointing: bool, folder: Path) -> float:
    """The estimate of `unirl doctor`."""
    prompts, group_size = IMAGES[size]
    trainer = short_runs.make_trainer(folder)
    model = short_runs.make_model(short_runs.make_backbone(backbone, folder, checkpointing), rule, group_size)
    model.backbone.build(meta=True)
    sizes = sizes_in_training(model)
    workload = step_workload(model, short_runs.make_data(prompts), trainer)
    return estimate_memory(sizes, workload).peak(sizes.gradient_checkpointing)


def measure(backbone: str, size: str, rule: str, checkpointing: bool, folder: Path) -> float:
    """The measured peak."""
    prompts, group_size = IMAGES[size]
    model = short_runs.make_model(short_runs.make_backbone(backbone, folder, checkpointing), rule, group_size)
    data = short_runs.make_data(prompts)
    trainer = short_runs.make_trainer(folder, steps=1, callback=AddOptimizerStates())
    before = resident_memory()
    trainer.fit(model, data)
    return peak_resident_memory() - before


if __name__ == "__main__":
    main()
