"""Memory and time of a GRPO step at the middle size, against the same step with every logit of every position.

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
from unirl.updates.grpo import GRPO

GROUP, SAMPLING = 8, ImageSampling(16, GUIDANCE)
WAYS = {"plain": "plain", "unirl": "unirl", "recompute": "unirl, recompute"}
"""Every logit of every position; as shipped; the same with the backbone's option `gradient_checkpointing`."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A GRPO step of UniRL against one that computes all logits")
    parser.add_argument("--size", choices=("tiny", "middle"), default="middle")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # a process of its own: peaks never go down
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.way:
        print(*(f"{figure:.6f}" for figure in step(options.way, options.size)))
        return
    command = [sys.executable, __file__, "--size", options.size, "--threads", str(options.threads), "--way"]
    runs: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            done = subprocess.run(
                [*command, way], check=True, capture_output=True, text=True, env=os.environ | RETURNING
            )
            runs[way].append([float(figure) for figure in done.stdout.split()])
    Console(width=100).print(table(runs))


def step(way: str, size: str) -> tuple[float, float, float, float]:
    """Peak memory of the process and of the step alone, in bytes, seconds of the step, and the norm of its gradient."""
    case = make(size)
    case.backbone.transformer.gradient_checkpointing = way == "recompute"
    model, optimizer = case.backbone, torch.optim.AdamW(case.backbone.transformer.parameters(), 1e-5)
    for parameter in model.transformer.parameters():  # what AdamW will hold, before anything is measured
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    rollout = made_up(model, case.prompts[0])
    before, start = peak(), time.perf_counter()
    with patch.object(Showo, "_context_logits", all_logits) if way == "plain" else nullcontext():
        rule = GRPO(answer_weight=0.0, likelihood="random_masks")
        loss, _ = rule.loss(model, rollout, SAMPLING, torch.Generator().manual_seed(SEED))
        # The on-policy loss is 0 by construction; the size of its gradient tells whether both ways agree.
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.transformer.parameters(), 1.0)
    optimizer.step()
    return peak(), peak() - before, time.perf_counter() - start, norm.item()


def made_up(model: Showo, prompt: str) -> Rollout:
    """A group of drawings of random codes with random scores."""
    generator = torch.Generator().manual_seed(SEED)
    codes = torch.randint(model.config.codebook_size, (GROUP, model.config.num_vq_tokens), generator=generator)
    nothing = Answers(torch.zeros(GROUP, 1, dtype=torch.long), torch.ones(GROUP, 1, dtype=torch.bool), [""] * GROUP)
    example = Example(prompt, "", "", "")
    scores = torch.rand(GROUP, generator=generator)
    return Rollout([example] * GROUP, Images(codes), nothing, scores, {}, scores > 1, GROUP)


def all_logits(
    model: Showo, prompts: Sequence[str], codes: Tensor, known: Tensor, guidance: float, at: tuple[Tensor, ...]
) -> Tensor:
    """What `Showo._context_logits` computes, out of the logits of the whole vocabulary at every position."""
    return plain.drawing_logits(model, prompts, guidance)(codes, known)[at]


def peak() -> float:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def table(runs: dict[str, list[list[float]]]) -> Table:
    """Medians of all ways, and what share of the plain one's they are."""
    sheet = Table(title="GRPO step: scoring a group of 8, backward, AdamW")
    for column in ("", *WAYS.values()):
        sheet.add_column(column, justify="right" if column else "left")
    middle = {way: [median(values) for values in zip(*rows, strict=True)] for way, rows in runs.items()}
    rows = ("peak memory, GB", 1e9), ("of which the step, GB", 1e9), ("seconds", 1.0), ("norm of the gradient", 1.0)
    for i, (name, unit) in enumerate(rows):
        plain, *others = (figures[i] for figures in middle.values())
        shares = [f"{other / unit:.3f} ({other / plain:.0%})" for other in others]
        sheet.add_row(name, f"{plain / unit:.3f}", *shares)
    return sheet


if __name__ == "__main__":
    main()
