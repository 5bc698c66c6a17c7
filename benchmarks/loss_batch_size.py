"""Time and memory of a training step whose images are generated at once and scored in micro-batches.

python benchmarks/loss_batch_size.py
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import checkpoints
import short_runs
import torch
from forked import run_forked
from lightning import Trainer

from unirl.doctor.tracker import MemoryTracker
from unirl.rewards.likelihood import Likelihood
from unirl.training import RolloutConfig, SelfImprovement
from unirl.types import AnswerSampling, ImageSampling, Rollout

SIZES, STEPS = ("tiny", "middle"), 3
VARIANTS = ("all at once", "8", "2", "1", "accumulate_grad_batches")
"""Values of `loss_batch_size`; the last generates for one prompt at a time instead."""
LINE = "{:<7} {:<15} {:<24} {:>14} {:>12} {:>12} {:>16}"


@dataclass(frozen=True)
class Step:
    """An optimizer step of a run: seconds of the second, and memory of the third, whose tensors are added up.

    Args:
        rollout: CPU seconds of generating and scoring by rewards.
        total: CPU seconds of all.
        loss_memory: Bytes of tensors at the peak of the loss and its backward pass, minus those before it.
        losses: The loss of each step.
    """

    rollout: float
    total: float
    loss_memory: float
    losses: tuple[float, ...]


class Measured(SelfImprovement):
    """Measures rollouts and losses."""

    def on_train_start(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.memory, self.before, self.loss_memory = MemoryTracker(), 0, 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self._end_loss()
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.steps.append({"begin": time.process_time(), "rollout": 0.0})
            if len(self.steps) == STEPS:
                self.memory.__enter__()

    def _rollout(self, batch: Any) -> Rollout:
        begin = time.process_time()
        rollout = super()._rollout(batch)
        self.steps[-1]["rollout"] += time.process_time() - begin
        if len(self.steps) == STEPS:
            self.memory.start(f"loss {len(self.losses)}")
            self.before = self.memory.live
        return rollout

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._end_loss()
        super().on_before_optimizer_step(optimizer)

    def _end_loss(self) -> None:
        if self.memory.phase.startswith("loss"):
            self.loss_memory = max(self.loss_memory, self.memory.peaks[self.memory.phase] - self.before)
            self.memory.start("other")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))
        self.steps[-1]["end"] = time.process_time()

    def on_train_end(self) -> None:
        self.memory.__exit__(None, None, None)


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, str, str], Step]:
    parser = argparse.ArgumentParser(description="Time and memory of a training step in micro-batches")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--only", choices=("showo", "janus"))
    parser.add_argument("--rule", choices=short_runs.RULES, nargs="+", default=short_runs.RULES)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group-size", type=int, default=8)
    options = parser.parse_args(arguments)
    columns = ("model", "rule", "loss_batch_size", "rollout, CPU s", "loss, CPU s", "step, CPU s", "loss, peak MB")
    print(LINE.format(*columns), flush=True)
    results = {}
    for backbone, rule in product(("showo", "janus"), options.rule):
        if options.only not in (None, backbone):
            continue
        for variant in VARIANTS:
            step = results[backbone, rule, variant] = run(backbone, rule, variant, options)
            times = (step.rollout, step.total - step.rollout, step.total)
            cells = [f"{seconds:.2f}" for seconds in times] + [f"{step.loss_memory / 1e6:.0f}"]
            print(LINE.format(backbone, rule, variant, *cells), flush=True)
    return results


def run(backbone: str, rule: str, variant: str, options: argparse.Namespace) -> Step:
    """A few optimizer steps in a process of their own."""
    with TemporaryDirectory() as folder:
        run_forked(checkpoints.write, backbone, options.size, Path(folder))
        (step,) = run_forked(measure, backbone, rule, variant, options, Path(folder))
    return step


def measure(backbone: str, rule: str, variant: str, options: argparse.Namespace, folder: Path) -> Step:
    accumulated = options.prompts if variant == VARIANTS[-1] else 1
    model = Measured(
        short_runs.make_backbone(backbone, folder),
        short_runs.make_rule(rule),
        [Likelihood()],
        rollout=RolloutConfig(
            options.group_size,
            image_sampling=ImageSampling(steps=8, guidance=1.75),
            answer_sampling=AnswerSampling(6),
            accept_threshold=0.0,
            loss_batch_size=int(variant) if variant.isdigit() else None,
        ),
        optimizer=lambda p: torch.optim.SGD(p, lr=1e-3),
    )
    data = short_runs.make_data(options.prompts // accumulated)
    data.steps_per_epoch = STEPS * accumulated
    trainer: Trainer = short_runs.make_trainer(folder, steps=STEPS)
    trainer.accumulate_grad_batches = accumulated
    trainer.fit(model, data)
    timed = model.steps[1]
    return Step(timed["rollout"], timed["end"] - timed["begin"], float(model.loss_memory), tuple(model.losses))


if __name__ == "__main__":
    main()
