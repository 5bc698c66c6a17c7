"""Which samples a loss scores: those with a weight, in micro-batches, and equally often on every rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.distributed.collectives import any_rank
from unirl.distributed.fsdp2 import is_sharded
from unirl.functional.seeding import RowGenerator
from unirl.types import Answers, Images, Rollout

T = TypeVar("T")


@dataclass(frozen=True)
class ScoringBatch:
    """Samples of a rollout that are scored at once; made by `scoring_batch`.

    Args:
        rollout: Where they are from.
        rows: Their indices in the rollout.
        selected: The samples that the whole loss scores, now and in other micro-batches. None means all.
        sharded: Whether the model is sharded.
        is_dummy: Whether it is one sample of weight 0, scored because other ranks score some.

    Shapes:
        rows (R,), selected (B,) bool.
    """

    rollout: Rollout
    rows: Tensor
    selected: Tensor | None = None
    sharded: bool = False
    is_dummy: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def prompts(self) -> list[str]:
        """Their prompts."""
        return self._select(self.rollout.prompts)

    @property
    def questions(self) -> list[str]:
        """The questions about them, k for each, as the backbone's methods take them."""
        return self._select(self.rollout.questions, self.rollout.num_questions)

    @property
    def images(self) -> Images:
        """Their images."""
        return self.rollout.images[self._index]

    @property
    def answers(self) -> Answers:
        """The model's answers to the questions."""
        index, k = self._index, self.rollout.num_questions
        rows = slice(index.start * k, index.stop * k) if isinstance(index, slice) else self.answer_rows
        return self.rollout.answers[rows]

    @property
    def answer_rows(self) -> Tensor:
        """Indices of their answers in the rollout, k for each of `rows`.

        Shapes:
            returns (R x k,).
        """
        return self.rollout.answer_rows(self.rows)

    @property
    def all_rows(self) -> Tensor:
        """Indices of the samples of all micro-batches, ascending: for the denominators of the loss.

        Shapes:
            returns (S,).
        """
        if self.selected is None:
            return torch.arange(len(self.rollout), device=self.rows.device)
        return self.selected.nonzero().flatten()

    @property
    def all_answer_rows(self) -> Tensor:
        """Indices of the answers about the samples of all micro-batches: for the denominators of the loss.

        Shapes:
            returns (S x k,).
        """
        return self.rollout.answer_rows(self.all_rows)

    @property
    def positions(self) -> Tensor:
        """Where `all_rows` has each sample of this batch; 0 for a dummy.

        Shapes:
            returns (R,).
        """
        if self.selected is None:
            return self.rows
        return (self.selected.cumsum(0)[self.rows] - 1).clamp(min=0)

    @property
    def answer_positions(self) -> Tensor:
        """Where `all_answer_rows` has each answer of this batch.

        Shapes:
            returns (R x k,).
        """
        return self.rollout.answer_rows(self.positions)

    def generator(self, generator: torch.Generator) -> torch.Generator:
        """The generator to score these samples with: they get the random masks that they get in a single batch.

        Args:
            generator: That of the loss, in the state in which the loss got it.
        """
        if self.rollout.micro_batch is None and not self.sharded:
            return generator
        return RowGenerator(generator, self.positions, max(1, len(self.all_rows)))

    @property
    def _index(self) -> Tensor | slice:
        if self.selected is None:
            return slice(*(self.rollout.micro_batch or (0, len(self.rollout))))
        return self.rows

    def _select(self, values: Sequence[T], per_image: int = 1) -> list[T]:
        if isinstance(self._index, slice):
            return list(values[self._index.start * per_image : self._index.stop * per_image])
        return [value for i in self.rows.tolist() for value in values[i * per_image : (i + 1) * per_image]]


def scoring_batch(backbone: Backbone, rollout: Rollout, weights: Tensor | None = None) -> ScoringBatch:
    """The samples of the current micro-batch whose weight is not 0.

    Under FSDP2 it is collective: call it equally often on every rank. All ranks must then make the same calls of the
    backbone's scoring methods. So a rank without samples gets one of weight 0 where another rank has some, and no rank
    gets any where none has. Multiply what was scored by the weights, and such a sample has no effect.

    Args:
        backbone: What scores the samples.
        rollout: All samples, with a `micro_batch` where a part of them is scored.
        weights: Weight of each sample in the loss, or whether it is scored. None scores all.

    Returns:
        The samples; where it is empty, skip the scoring.

    Shapes:
        weights (B,).

    Example:
        >>> from unirl import ImageSampling
        >>> from unirl.testing import BanditBackbone, make_bandit_rollout
        >>> backbone = BanditBackbone()
        >>> rollout = make_bandit_rollout(backbone, 2, ImageSampling(), seed=0, num_prompts=2)
        >>> scoring_batch(backbone, rollout, torch.tensor([0.5, 0.0, 0.0, 1.0])).rows.tolist()
        [0, 3]
    """
    sharded, selected = is_sharded(backbone), None if weights is None else weights != 0
    if selected is None:
        return ScoringBatch(rollout, rollout.rows, None, sharded)
    rows = rollout.rows
    chosen = rows[selected[rows]]
    if sharded and any_rank(len(chosen) > 0, rows.device) and not len(chosen):
        return ScoringBatch(rollout, rows[:1], selected, sharded, is_dummy=True)
    return ScoringBatch(rollout, chosen, selected, sharded)
