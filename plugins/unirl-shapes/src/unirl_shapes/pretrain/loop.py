"""A training loop that resumes: random numbers depend on the step, and the state is saved regularly."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

Metrics = dict[str, float]


def train(
    name: str,
    model: nn.Module,
    loss: Callable[[int], tuple[Tensor, Metrics]],
    out: Path,
    steps: int,
    lr: float,
    warmup: int = 200,
    decay: int = 1000,
    every: int = 100,
    evaluate: Callable[[], Metrics] | None = None,
    evaluate_every: int = 1000,
) -> None:
    """Minimize `loss(step)` by AdamW, resuming where an earlier run stopped.

    The learning rate increases linearly, is constant, and decreases linearly.

    Args:
        name: Prefix of the files `NAME.state.pt` and `NAME.log.jsonl` in `out`.
        model: The model.
        loss: Returns the loss of a step and metrics. Its random numbers must depend on the step only, so that resumed
            runs are the same.
        out: Folder of the log and of the training state.
        steps: Number of steps.
        lr: Maximum learning rate.
        warmup: Steps of the increase.
        decay: Steps of the decrease, at the end. Steps before it do not depend on the number of steps.
        every: Steps between lines of the log, and between saved states.
        evaluate: Returns more metrics for the log.
        evaluate_every: Steps between evaluations.
    """
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr, (0.9, 0.99), weight_decay=0.01
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, steps, warmup, decay))
    state, start, start_time = out / f"{name}.state.pt", 0, time.time()
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["schedule"])
        start, start_time = saved["step"], start_time - saved["seconds"]
    for step in range(start, steps):
        value, metrics = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if (step + 1) % every and step + 1 < steps:
            continue
        if evaluate and ((step + 1) % evaluate_every == 0 or step + 1 == steps):
            metrics = metrics | evaluate()
        write_log(out / f"{name}.log.jsonl", {"step": step + 1, "seconds": round(time.time() - start_time)} | metrics)
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": scheduler.state_dict()}
        torch.save(saved | {"step": step + 1, "seconds": time.time() - start_time}, state.with_suffix(".new"))
        state.with_suffix(".new").replace(state)


def _lr_factor(step: int, steps: int, warmup: int, decay: int) -> float:
    return min(1.0, (step + 1) / warmup, max(0.02, (steps - step) / decay))


def write_log(path: Path, row: Metrics) -> None:
    """Append a line to a log, and print it.

    Args:
        path: File of JSON lines.
        row: The numbers, by name.
    """
    line = json.dumps({name: round(value, 4) for name, value in row.items()})
    print(line, flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
