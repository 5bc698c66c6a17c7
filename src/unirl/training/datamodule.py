"""Prompts as a LightningDataModule: what is asked for, in which order, on which process."""

from collections.abc import Iterable, Iterator
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from unirl.errors import UserError, within
from unirl.prompts import Prompts
from unirl.types import Example


class PromptsModule(LightningDataModule):
    """Training draws and held-out prompts of a prompts plugin.

    Args:
        prompts: Where examples come from.
        prompts_per_step: Prompts of a training step, over all devices together.
        steps_per_epoch: Training steps that make an epoch, the unit of progress bars and validation.
        held_out: Held-out prompts that validation draws.
        validation_batch: Held-out prompts drawn at once on a device.
        seed: Together with a draw's number it decides the prompt.

    Raises:
        UserError: a number is out of range, or does not divide.
    """

    def __init__(
        self,
        prompts: Prompts,
        prompts_per_step: int = 8,
        steps_per_epoch: int = 50,
        held_out: int = 240,
        validation_batch: int = 60,
        seed: int = 0,
    ) -> None:
        super().__init__()
        within(1, 1_000_000, "data", prompts_per_step=prompts_per_step)
        within(1, 10**9, "data", steps_per_epoch=steps_per_epoch)
        within(0, 1_000_000, "data", held_out=held_out)
        within(1, 100_000, "data", validation_batch=validation_batch)
        self.prompts, self.prompts_per_step, self.steps_per_epoch = prompts, prompts_per_step, steps_per_epoch
        self.validation_batch, self.seed = validation_batch, seed
        self.examples = prompts.held_out(held_out)

    def setup(self, stage: str) -> None:
        devices = self._world()[1]
        if self.prompts_per_step % devices:
            raise UserError(
                f"data.prompts_per_step {self.prompts_per_step} does not divide among {devices} devices; "
                f"take a multiple of {devices}, or other trainer.devices"
            )

    def train_dataloader(self) -> DataLoader[Example]:
        rank, devices = self._world()
        share = self.prompts_per_step // devices
        sampler = DrawSampler(self, rank * share, share)
        return _Resumable(_Draws(self.prompts, self.seed), batch_sampler=sampler, collate_fn=Batch)

    def val_dataloader(self) -> DataLoader[Example]:
        rank, devices = self._world()
        return DataLoader(self.examples[rank::devices], self.validation_batch, collate_fn=Batch)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Example]:
        return self.val_dataloader()

    def steps_done(self) -> int:
        """Training batches that this run has seen, before and after a resume."""
        return self.trainer.fit_loop.total_batch_idx + 1 if self.trainer else 0

    def _world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class Batch:
    """Examples of a step, in order. No list: Lightning would look into it for tensors, and cannot into an example.

    Args:
        examples: What they are.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        self._examples = list(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    def __getitem__(self, which: int | slice) -> Any:
        return self._examples[which]


class _Draws(Dataset[Example]):
    def __init__(self, prompts: Prompts, seed: int) -> None:
        self.prompts, self.seed = prompts, seed

    def __getitem__(self, index: int) -> Example:
        return self.prompts.draw(self.seed, index)


class _Resumable(DataLoader[Example]):
    """Tells Lightning that a resumed epoch goes on where it stopped. The trainer's own count says where that is."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        pass


class DrawSampler(Sampler[list[int]]):
    """Numbers of the draws of each training step; an epoch goes on where the steps that are done end.

    Args:
        data: Knows the sizes and how many steps are done.
        first: This process's first draw in a step.
        share: How many it takes.
    """

    def __init__(self, data: PromptsModule, first: int, share: int) -> None:
        self.data, self.first, self.share = data, first, share

    def __len__(self) -> int:
        return self.data.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        done = self.data.steps_done()
        for step in range(done, done + len(self)):
            start = step * self.data.prompts_per_step + self.first
            yield list(range(start, start + self.share))
