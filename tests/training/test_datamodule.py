"""The data module gives each rank its own prompts under the trainer's defaults."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DistributedSampler

from unirl.training import PromptsDataModule
from unirl_shapes.prompts import ShapesPrompts


def data_of(rank: int, world_size: int, **options: int) -> PromptsDataModule:
    data = PromptsDataModule(ShapesPrompts(), prompts_per_step=4, steps_per_epoch=2, **options)
    trainer: Any = SimpleNamespace(
        global_rank=rank, world_size=world_size, fit_loop=SimpleNamespace(total_batch_idx=-1)
    )
    data.trainer = trainer
    return data


def prompts(loader: Any) -> list[list[str]]:
    return [[example.prompt for example in batch] for batch in loader]


def test_two_ranks_share_the_prompts_of_one() -> None:
    one = prompts(data_of(0, 1).train_dataloader())
    parts = [prompts(data_of(rank, 2).train_dataloader()) for rank in range(2)]
    assert [first + second for first, second in zip(*parts, strict=True)] == one
    assert [len(step) for step in one] == [4, 4]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_each_held_out_prompt_is_measured_once(count: int) -> None:
    one = data_of(0, 1, num_val_prompts=count, val_batch_size=3)
    parts = [prompts(data_of(rank, 2, num_val_prompts=count, val_batch_size=3).val_dataloader()) for rank in range(2)]
    measured = [prompt for part in parts for batch in part for prompt in batch]
    assert sorted(measured) == sorted(example.prompt for example in one.val_examples)


def test_lightning_leaves_the_samplers_as_they_are() -> None:
    """It replaces, in a run on several devices, those that are not distributed (`use_distributed_sampler`)."""
    data = data_of(0, 2)
    assert isinstance(data.train_dataloader().sampler, DistributedSampler)
    assert isinstance(data.val_dataloader().sampler, DistributedSampler)
