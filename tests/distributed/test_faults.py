"""Failures on one of two ranks: the other one ends with a message, or skips the same step."""

import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from unirl.checkpoint.export import backbone_weights
from unirl.cli.main import main
from unirl.training import SelfImprovement
from unirl.types import Rollout

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from processes import exit_codes, run_processes
from training_runs import train

TIMEOUT = 300.0
CONFIG = Path(__file__).parents[2] / "configs" / "showo_sft.yaml"


def is_second_rank() -> bool:
    return os.environ.get("RANK") == "1"


def fit(folder: Path, checkpoint: Path, fail: Callable[[], None]) -> None:
    """`unirl fit` on two processes; `fail` is called on the second rank in its second rollout."""
    original, rollouts = SelfImprovement._fresh_rollout, []

    def rollout(self: SelfImprovement, *args: Any, **kwargs: Any) -> Rollout:
        rollouts.append(args)
        if is_second_rank() and len(rollouts) == 2:
            fail()
        return original(self, *args, **kwargs)

    SelfImprovement._fresh_rollout = rollout  # type: ignore[method-assign] # in a process of its own
    options = {
        "trainer.devices": 2,
        "trainer.strategy": "ddp",
        "trainer.default_root_dir": folder / "runs",
        "trainer.num_sanity_val_steps": 0,
        "trainer.enable_progress_bar": "false",
        "data.prompts_per_step": 2,
        "model.backbone.checkpoint": checkpoint,
        "model.rollout.group_size": 2,
        "model.rollout.num_iterations": 1,
        "model.rollout.accept_threshold": 0.0,
    }
    main(["fit", "--config", str(CONFIG), *(f"--{name}={value}" for name, value in options.items())])


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_memory() -> None:
    raise MemoryError("no memory left")


@pytest.mark.parametrize(("fail", "code"), [(kill, -signal.SIGKILL), (run_out_of_memory, 1)])
def test_a_rank_whose_peer_is_gone_ends_with_a_message(
    fail: Callable[[], None], code: int, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    codes, logs = exit_codes(fit, tmp_path, shapes_checkpoint, fail, timeout=TIMEOUT)
    assert codes == [2, code], logs
    (message,) = [line for line in logs[0].splitlines() if line.startswith("unirl: error:")]
    assert "another process" in message
    assert "--ckpt_path last" in message
    assert "Traceback" not in logs[0]


def train_with_nan(folder: Path, checkpoint: Path, strategy: str) -> dict[str, Any]:
    """A gradient of the second rank is NaN in the second step."""
    original, steps = SelfImprovement.on_after_backward, []

    def on_after_backward(self: SelfImprovement) -> None:
        steps.append(self.trainer.global_step)
        if is_second_rank() and len(steps) == 2:
            grad = next(p.grad for p in self.backbone.parameters() if p.grad is not None)
            local = grad.to_local() if isinstance(grad, DTensor) else grad
            local.view(-1)[0] = torch.nan
        original(self)

    SelfImprovement.on_after_backward = on_after_backward  # type: ignore[method-assign] # in a process of its own
    return train(folder, "showo", checkpoint, "sft", strategy, 2, max_steps=3, save_every=1)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_all_ranks_skip_a_step_with_a_nan_on_one(strategy: str, shapes_checkpoint: Path, tmp_path: Path) -> None:
    for result in run_processes(train_with_nan, tmp_path, shapes_checkpoint, strategy):
        assert all(map(math.isfinite, result["losses"]))
        assert result["skipped"] == 1
    first, second, third = (backbone_weights(tmp_path / f"step={step}.ckpt") for step in (1, 2, 3))
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert not all(torch.equal(third[name], value) for name, value in first.items())
    assert all(value.isfinite().all() for value in third.values() if value.is_floating_point())
