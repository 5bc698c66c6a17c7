"""A reward that hangs is stopped, wherever it hangs."""

import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.rewards import Reward
from unirl.rewards.scoring import score
from unirl.rewards.timeout import time_limit
from unirl.types import Answers, Example, Images

EXAMPLES = [Example("a photo of two cups", "how many?", "two cups", "counting")]
IDS = torch.zeros(1, 1, dtype=torch.long)
NEVER = 60
STUCK = """
import itertools
from unirl.rewards import timeout
timeout.GRACE = 0.2
with timeout.within(0.2, "reward 'stuck'"):
    sum(itertools.repeat(1))  # never looks at signals, and lets no other thread run
"""


class Asking(Reward):
    """Asks a server that never answers, and asks again whatever fails."""

    def __init__(self, weight: float = 1.0, seconds: float = NEVER) -> None:
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


def test_one_that_hangs_is_stopped_by_name_and_place() -> None:
    with pytest.raises(UserError, match=r"reward 'asking' \(.*\) took longer than reward_timeout, 0\.3 s \(.*\.py:\d+"):
        scored(Asking(), 0.3)


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_one_that_is_slow_in_time_is_heard(timeout: float | None) -> None:
    assert scored(Asking(seconds=0.01), timeout).tolist() == [1.0]


def test_afterwards_nothing_rings() -> None:
    with time_limit(0.2, "it"):
        pass
    time.sleep(0.4)


def test_one_that_never_comes_back_to_python_ends_the_process_and_shows_where() -> None:
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=NEVER, check=False)
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert 'File "<string>"' in ended.stderr
