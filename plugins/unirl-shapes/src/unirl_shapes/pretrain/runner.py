"""A plain training loop that survives being killed: seeded by step, saved as it goes."""

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
    """Minimise `loss(step)` with AdamW; continue where a killed run stopped.

    The learning rate rises linearly, stays, and falls linearly.

    Args:
        name: Names the files `NAME.state.pt` and `NAME.log.jsonl` in `out`.
        model: What is trained.
        loss: Everything random in it must come from the step number, so that a resumed run is the same run.
        out: Folder of the log and the state.
        steps: How many there are.
        lr: The highest learning rate.
        warmup: Steps to reach it.
        decay: Steps at the end in which it falls; up to there the number of steps makes no difference.
        every: Steps between lines of the log and saves of the state.
        evaluate: Gives further figures for the log.
        evaluate_every: Steps between them.
    """
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr, (0.9, 0.99), weight_decay=0.01
    )
    scale = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _scale(step, steps, warmup, decay))
    state, start, begun = out / f"{name}.state.pt", 0, time.time()
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scale.load_state_dict(saved["schedule"])
        start, begun = saved["step"], begun - saved["seconds"]
    for step in range(start, steps):
        value, metrics = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scale.step()
        if (step + 1) % every and step + 1 < steps:
            continue
        if evaluate and ((step + 1) % evaluate_every == 0 or step + 1 == steps):
            metrics = metrics | evaluate()
        _log(out / f"{name}.log.jsonl", {"step": step + 1, "seconds": round(time.time() - begun)} | metrics)
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": scale.state_dict()}
        torch.save(saved | {"step": step + 1, "seconds": time.time() - begun}, state.with_suffix(".new"))
        state.with_suffix(".new").replace(state)


def _scale(step: int, steps: int, warmup: int, decay: int) -> float:
    return min(1.0, (step + 1) / warmup, max(0.02, (steps - step) / decay))


def _log(path: Path, row: Metrics) -> None:
    line = json.dumps({name: round(value, 4) for name, value in row.items()})
    print(line, flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
