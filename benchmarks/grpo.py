"""Memory and time of a GRPO step, against the same step with logits of all tokens at all positions.

python benchmarks/grpo.py --repeats 3
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from statistics import median
from unittest.mock import patch

import plain
import torch
from measure import RETURNING
from rich.console import Console
from rich.table import Table
from sizes import GUIDANCE, SEED, make
from torch import Tensor

from unirl.backbones.showo import Showo
from unirl.types import Answers, Example, Images, ImageSampling, Rollout
from unirl.updates.grpo import GRPO, ImageScoring

GROUP_SIZE, SAMPLING = 8, ImageSampling(16, GUIDANCE)
VARIANTS = {"plain": "plain", "unirl": "unirl", "checkpointing": "unirl, gradient checkpointing"}
"""Logits of all tokens at all positions; as shipped; the same with the backbone's `gradient_checkpointing`."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A GRPO step of UniRL against one that computes all logits")
    parser.add_argument("--size", choices=("tiny", "middle"), default="middle")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    # Each variant runs in processes of its own, since the peak of a process never goes down.
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.variant:
        print(*(f"{value:.6f}" for value in step(options.variant, options.size)))
        return
    command = [sys.executable, __file__, "--size", options.size, "--threads", str(options.threads), "--variant"]
    runs: dict[str, list[list[float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(options.repeats):
        for variant in VARIANTS:
            done = subprocess.run(
                [*command, variant], check=True, capture_output=True, text=True, env=os.environ | RETURNING
            )
            runs[variant].append([float(value) for value in done.stdout.split()])
    Console(width=100).print(table(runs))


def step(variant: str, size: str) -> tuple[float, float, float, float]:
    """Peak memory of the process and of the step alone, in bytes, seconds of the step, and the norm of its gradient."""
    case = make(size)
    case.backbone.transformer.gradient_checkpointing = variant == "checkpointing"
    model, optimizer = case.backbone, torch.optim.AdamW(case.backbone.transformer.parameters(), 1e-5)
    for parameter in model.transformer.parameters():  # AdamW's states exist before anything is measured
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    rollout = random_rollout(model, case.prompts[0])
    before, start = peak(), time.perf_counter()
    with patch.object(Showo, "_context_logits", all_logits) if variant == "plain" else nullcontext():
        rule = GRPO(answer_weight=0.0, scoring=ImageScoring("random_masks"))
        loss, _ = rule.loss(model, rollout, SAMPLING, torch.Generator().manual_seed(SEED))
        # The on-policy loss is 0, so the norm of its gradient shows that the variants agree.
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.transformer.parameters(), 1.0)
    optimizer.step()
    return peak(), peak() - before, time.perf_counter() - start, norm.item()


def random_rollout(model: Showo, prompt: str) -> Rollout:
    """A group of images with random codes and random scores."""
    generator = torch.Generator().manual_seed(SEED)
    codes = torch.randint(model.config.codebook_size, (GROUP_SIZE, model.config.num_vq_tokens), generator=generator)
    ids, mask = torch.zeros(GROUP_SIZE, 1, dtype=torch.long), torch.ones(GROUP_SIZE, 1, dtype=torch.bool)
    answers = Answers(ids, mask, [""] * GROUP_SIZE)
    example = Example(prompt, "", "", "")
    scores = torch.rand(GROUP_SIZE, generator=generator)
    return Rollout([example] * GROUP_SIZE, Images(codes), answers, scores, {}, scores > 1, GROUP_SIZE)


def all_logits(
    model: Showo, prompts: Sequence[str], codes: Tensor, known: Tensor, guidance: float, at: tuple[Tensor, ...]
) -> Tensor:
    """What `Showo._context_logits` computes, taken from the logits of all tokens at all positions."""
    return plain.generation_logits(model, prompts, guidance)(codes, known)[at]


def peak() -> float:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def table(runs: dict[str, list[list[float]]]) -> Table:
    """Medians of all variants, also relative to `plain`."""
    result = Table(title="GRPO step: scoring a group of 8, backward, AdamW")
    for column in ("", *VARIANTS.values()):
        result.add_column(column, justify="right" if column else "left")
    medians = {name: [median(values) for values in zip(*rows, strict=True)] for name, rows in runs.items()}
    rows = ("peak memory, GB", 1e9), ("of the step alone, GB", 1e9), ("seconds", 1.0), ("norm of the gradient", 1.0)
    for i, (name, unit) in enumerate(rows):
        first, *others = (values[i] for values in medians.values())
        relative = [f"{other / unit:.3f} ({other / first:.0%})" for other in others]
        result.add_row(name, f"{first / unit:.3f}", *relative)
    return result


if __name__ == "__main__":
    main()
