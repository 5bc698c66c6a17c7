"""Prompts as a LightningDataModule."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

from lightning import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from unirl.errors import UserError, check_plugin, check_range
from unirl.prompts import Prompts
from unirl.training.adaptive import AdaptiveSampler
from unirl.training.config import AdaptiveSampling, check_adaptive
from unirl.training.sampler import PromptSampler, UnpaddedSampler
from unirl.training.scorable import Problem, find_problems, raise_errors
from unirl.types import Example


class PromptsDataModule(LightningDataModule):
    """Training prompts and held-out prompts of a prompts plugin.

    Args:
        prompts: Where examples come from.
        prompts_per_step: Prompts of a training step, over all devices together.
        steps_per_epoch: Training steps of an epoch, the unit of progress bars and validation.
        num_val_prompts: Held-out prompts of a validation.
        val_batch_size: Held-out prompts of a validation batch, on each device.
        seed: Seed of the training prompts. None is 0; in `unirl fit` it is the value of `--seed_everything`.
        sampler: "uniform" takes training prompts as the source has them. "adaptive" draws more of the categories whose
            rewards vary within a group, and of a finite list more of these prompts.
        adaptive: Settings of the adaptive sampler.

    Attributes:
        adaptive_sampler: The sampler, None where it is uniform.

    Raises:
        UserError: a number is out of range, or does not divide by the number of devices; with the adaptive sampler, the
            source does not say which categories it has, or a group has a single image.
    """

    def __init__(
        self,
        prompts: Prompts,
        prompts_per_step: int = 8,
        steps_per_epoch: int = 50,
        num_val_prompts: int = 240,
        val_batch_size: int = 60,
        seed: int | None = None,
        sampler: Literal["uniform", "adaptive"] = "uniform",
        adaptive: AdaptiveSampling = AdaptiveSampling(),
    ) -> None:
        super().__init__()
        check_plugin("data.prompts", prompts, Prompts)
        check_range(1, 1_000_000, "data", prompts_per_step=prompts_per_step)
        check_range(1, 10**9, "data", steps_per_epoch=steps_per_epoch)
        check_range(0, 1_000_000, "data", num_val_prompts=num_val_prompts)
        check_range(1, 100_000, "data", val_batch_size=val_batch_size)
        self.prompts, self.prompts_per_step, self.steps_per_epoch = prompts, prompts_per_step, steps_per_epoch
        self.val_batch_size, self.seed = val_batch_size, seed or 0
        if sampler not in ("uniform", "adaptive"):
            raise UserError(f"data.sampler {sampler!r}; it must be uniform or adaptive")
        self.adaptive_sampler: AdaptiveSampler | None = None
        if sampler == "adaptive":
            self.adaptive_sampler = AdaptiveSampler(prompts, prompts_per_step, self.seed, adaptive)
        self.num_val_prompts, self.val_examples = num_val_prompts, prompts.held_out(num_val_prompts)
        self._checked: set[str] = set()

    def check(self, model: Any, stage: str, trainer: Any) -> list[Problem]:
        """Check that the rewards can score these prompts, and the judge those that are held out. Nothing is loaded.

        `setup` does so where it was not done before.

        Args:
            model: The LightningModule, not built.
            stage: "fit", "validate" or "test".
            trainer: Of the run; None takes held-out prompts to be used.
        """
        self._checked.add(stage)
        limit = getattr(trainer, f"limit_{'test' if stage == 'test' else 'val'}_batches", None)
        return list(find_problems(model, self, stage, limit))

    @override
    def setup(self, stage: str) -> None:
        devices = self._world()[1]
        if self.prompts_per_step % devices:
            raise UserError(
                f"data.prompts_per_step {self.prompts_per_step} does not divide among {devices} devices; "
                f"take a multiple of {devices}, or other trainer.devices"
            )
        model = self.trainer.lightning_module if self.trainer else None
        if model is not None and stage not in self._checked:
            problems = self.check(model, stage, self.trainer)
            raise_errors(problems)
            for problem in problems:
                rank_zero_warn(f"{problem.text}; {problem.advice}")
        rollout = getattr(model, "rollout", None)
        if self.adaptive_sampler is not None and rollout is not None and stage == "fit":
            check_adaptive(self.adaptive_sampler.config, rollout.group_size)

    @override
    def train_dataloader(self) -> DataLoader[Example]:
        sampler = PromptSampler(self.prompts_per_step, self.steps_per_epoch, *self._world(), self.steps_done)
        prompts = _TrainPrompts(self.prompts, self.seed, self.adaptive_sampler)
        return _ResumableDataLoader(prompts, sampler=sampler, batch_size=None)

    @override
    def val_dataloader(self) -> DataLoader[Example]:
        sampler, examples = UnpaddedSampler(len(self.val_examples), *self._world()), cast("Any", self.val_examples)
        return DataLoader(examples, self.val_batch_size, sampler=sampler, collate_fn=Batch)

    @override
    def test_dataloader(self) -> DataLoader[Example]:
        return self.val_dataloader()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {} if self.adaptive_sampler is None else self.adaptive_sampler.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.adaptive_sampler is not None:
            self.adaptive_sampler.load_state_dict(state_dict)

    def steps_done(self) -> int:
        """Training batches that this run has finished, before and after a resume."""
        return self.trainer.fit_loop.total_batch_idx + 1 if self.trainer else 0

    def _world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class Batch:
    """The examples of a step, in order. Not a list: Lightning would search it for tensors, and fails on an `Example`.

    Args:
        examples: The examples.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        self._examples = list(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    def __getitem__(self, index: int | slice) -> Any:
        return self._examples[index]


class _TrainPrompts(Dataset[Any]):
    def __init__(self, prompts: Prompts, seed: int, adaptive: AdaptiveSampler | None) -> None:
        self.prompts, self.seed, self.adaptive = prompts, seed, adaptive

    def __getitem__(self, indices: list[int]) -> Batch:
        if self.adaptive is not None:
            return Batch(self.adaptive.sample(indices))
        return Batch(self.prompts.sample(self.seed, index) for index in indices)


class _ResumableDataLoader(DataLoader[Example]):
    """Stateful for Lightning, so that a resumed epoch continues. The trainer's step count says where it stopped."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        pass
