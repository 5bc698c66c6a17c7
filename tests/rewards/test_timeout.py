"""A reward that exceeds its time limit is stopped."""

import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor

from unirl import UserError
from unirl.rewards import Reward, score
from unirl.rewards.timeout import time_limit
from unirl.testing.tiny_backbone import TinyBackbone
from unirl.training.config import RolloutConfig, check_rollout, reward_timeout
from unirl.types import Answers, Example, Images

EXAMPLES = [Example("a photo of two cups", "how many?", "two cups", "counting")]
IDS = torch.zeros(1, 1, dtype=torch.long)
FOREVER = 60
STUCK = """
import itertools
from unirl.rewards import timeout
timeout.GRACE_PERIOD = 0.2
with timeout.time_limit(0.2, "reward 'stuck'"):
    sum(itertools.repeat(1))  # checks no signals and holds the interpreter lock
"""


class Retrying(Reward):
    """Waits for a server, and retries after every exception."""

    def __init__(self, weight: float = 1.0, seconds: float = FOREVER) -> None:
        super().__init__(weight)
        self.seconds = seconds

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        while True:
            try:
                time.sleep(self.seconds)
                return torch.ones(len(examples))
            except Exception:
                continue


def scored(reward: Reward, timeout: float | None) -> Tensor:
    return score([reward], EXAMPLES, Images(IDS), Answers(IDS, IDS.bool(), ["two cups"]), timeout=timeout)[0]


def test_a_reward_that_hangs_is_stopped_with_its_name_and_line() -> None:
    with pytest.raises(
        UserError, match=r"reward 'retrying' \(.*\) took longer than model.rollout.reward_timeout, 0\.3 s \(.*\.py:\d+"
    ):
        scored(Retrying(), 0.3)


def test_a_reward_within_its_time_limit_is_not_stopped() -> None:
    assert [scored(Retrying(seconds=0.01), timeout).tolist() for timeout in (None, 30.0)] == [[1.0]] * 2


class TwoProcesses(DDPStrategy):
    world_size = 2  # type: ignore[assignment]


def test_by_default_a_reward_is_stopped_before_other_processes_give_up_waiting() -> None:
    auto, off = RolloutConfig(), RolloutConfig(reward_timeout=None)
    hundred = TwoProcesses(timeout=timedelta(seconds=100))
    assert [reward_timeout(auto, strategy) for strategy in (hundred, TwoProcesses(), ModelParallelStrategy())] == [
        50,
        900,
        None,
    ]
    assert [reward_timeout(config, hundred) for config in (off, RolloutConfig(reward_timeout=70.0))] == [None, 70]
    with pytest.raises(UserError, match="reward_timeout 0"):
        check_rollout(RolloutConfig(reward_timeout=0), TinyBackbone(), [Retrying()])


def test_no_signal_is_left_afterwards() -> None:
    with time_limit(0.2, "the reward"):
        pass
    time.sleep(0.4)


def test_code_that_cannot_be_interrupted_ends_the_process_with_a_traceback() -> None:
    process = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=FOREVER, check=False
    )
    assert process.returncode == 1
    assert "Timeout" in process.stderr
    assert 'File "<string>"' in process.stderr
