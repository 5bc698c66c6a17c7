"""What one of two processes suffers, the other hears of; neither waits for ever."""

import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from unirl.checkpoint.export import backbone_weights
from unirl.cli.main import main
from unirl.training.module import SelfImprovement
from unirl.types import Example, Rollout

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from pair import ended, together
from runs import train

MINUTE = 60.0
"""Longest that a process may wait for one that is gone."""
CONFIG = Path(__file__).parents[2] / "configs" / "showo_sft.yaml"


def second_process() -> bool:
    return os.environ.get("RANK") == "1"


def fit(folder: Path, checkpoint: Path, hurt: Callable[[], None]) -> None:
    """`unirl fit` on two processes; in the second one's second step something happens."""
    plain, rollouts = SelfImprovement.rollout, []

    def rollout(self: SelfImprovement, batch: Sequence[Example]) -> Rollout:
        rollouts.append(batch)
        if second_process() and len(rollouts) == 2:
            hurt()
        return plain(self, batch)

    SelfImprovement.rollout = rollout  # type: ignore[method-assign] # the process is its own
    options = {"trainer.devices": 2, "trainer.strategy": "ddp", "trainer.default_root_dir": folder / "runs"}
    options |= {"trainer.num_sanity_val_steps": 0, "trainer.enable_progress_bar": "false", "model.group_size": 2}
    options |= {"data.prompts_per_step": 2, "model.backbone.checkpoint": checkpoint, "model.rollout.accept_threshold": 0.0}
    main(["fit", "--config", str(CONFIG), *(f"--{name}={value}" for name, value in options.items())])


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def failed() -> None:
    raise MemoryError("no memory left")


@pytest.mark.parametrize(("hurt", "code"), [(killed, -signal.SIGKILL), (failed, 1)])
def test_who_loses_another_process_ends_with_a_sentence(
    hurt: Callable[[], None], code: int, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    codes, logs = ended(fit, tmp_path, shapes_checkpoint, hurt, patience=5 * MINUTE)
    assert codes == [2, code], logs
    (said,) = [line for line in logs[0].splitlines() if line.startswith("unirl: error:")]
    assert "another process of this run is gone" in said
    assert "`--ckpt_path last` goes on" in said
    assert "Traceback" not in logs[0]


def with_a_nan(folder: Path, checkpoint: Path, strategy: str) -> dict[str, Any]:
    """In the second step, a gradient of the second process is not a number."""
    plain, steps = SelfImprovement.on_after_backward, []

    def on_after_backward(self: SelfImprovement) -> None:
        steps.append(self.trainer.global_step)
        if second_process() and len(steps) == 2:
            slope = next(p.grad for p in self.backbone.parameters() if p.grad is not None)
            slope.flatten()[0] = torch.nan
        plain(self)

    SelfImprovement.on_after_backward = on_after_backward  # type: ignore[method-assign] # the process is its own
    return train(folder, "showo", checkpoint, "sft", strategy, 2)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_nan_in_one_process_is_skipped_by_all_and_counted(
    strategy: str, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    for found in together(with_a_nan, tmp_path, shapes_checkpoint, strategy):
        assert all(map(math.isfinite, found["losses"]))
        assert found["skipped"] == 1
    first, second, third = (backbone_weights(tmp_path / f"step={step}.ckpt") for step in (1, 2, 3))
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert not all(torch.equal(third[name], value) for name, value in first.items())
    assert all(value.isfinite().all() for value in third.values() if value.is_floating_point())
