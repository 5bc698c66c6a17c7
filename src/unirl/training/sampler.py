"""Which training prompts belong to which step and which process."""

from collections.abc import Callable, Iterator

from torch.utils.data import Sampler


class PromptSampler(Sampler[list[int]]):
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
        self.prompts_per_step, self.steps_per_epoch, self.steps_done = prompts_per_step, steps_per_epoch, steps_done
        self.share = prompts_per_step // world_size
        self.first = rank * self.share

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        done = self.steps_done()
        for step in range(done, done + self.steps_per_epoch):
            start = step * self.prompts_per_step + self.first
            yield list(range(start, start + self.share))
