"""Which prompts belong to which step and which process.

Samplers derive from DistributedSampler, so that Lightning does not replace them (`use_distributed_sampler`).
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DistributedSampler


class PromptSampler(DistributedSampler[Any]):
    """Indices of this rank's prompts for each step of an epoch. A resumed epoch continues after the finished steps.

    Args:
        prompts_per_step: Prompts of a step over all ranks.
        steps_per_epoch: Steps of an epoch.
        rank: Of this process.
        world_size: Number of processes.
        steps_done: Returns the number of finished training steps.

    Example:
        >>> list(PromptSampler(4, 2, rank=1, world_size=2, steps_done=lambda: 0))
        [[2, 3], [6, 7]]
    """

    def __init__(
        self, prompts_per_step: int, steps_per_epoch: int, rank: int, world_size: int, steps_done: Callable[[], int]
    ) -> None:
        super().__init__(_sized(steps_per_epoch), world_size, rank, shuffle=False)
        self.prompts_per_step, self.steps_per_epoch, self.steps_done = prompts_per_step, steps_per_epoch, steps_done
        self.share = prompts_per_step // world_size
        self.first = rank * self.share

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        done = self.steps_done()
        for step in range(done, done + self.steps_per_epoch):
            start = step * self.prompts_per_step + self.first
            yield list(range(start, start + self.share))


class UnpaddedSampler(DistributedSampler[Any]):
    """Indices of this rank's examples, each once. DistributedSampler repeats some where ranks have unequally many.

    Args:
        num_examples: Examples over all ranks.
        rank: Of this process.
        world_size: Number of processes.

    Example:
        >>> list(UnpaddedSampler(5, rank=1, world_size=2))
        [1, 3]
    """

    def __init__(self, num_examples: int, rank: int, world_size: int) -> None:
        super().__init__(_sized(num_examples), world_size, rank, shuffle=False)
        self.indices = range(num_examples)[rank::world_size]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.indices)


def _sized(length: int) -> Any:
    """A stand-in for the dataset, of which DistributedSampler reads the length only."""
    return range(length)
