"""Accuracy by category, correct under several processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class AccuracyByCategory(Metric):
    """Share of right samples in each category, and the mean over categories (GenEval's overall score).

    Args:
        categories: All that can occur, in the order of tables.

    Example:
        >>> metric = AccuracyByCategory(["colors", "counting"])
        >>> metric.update(torch.tensor([True, False, True]), ["colors", "colors", "counting"])
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'colors': 0.5, 'counting': 1.0, 'overall': 0.75}
    """

    full_state_update = False
    right: Tensor
    seen: Tensor

    def __init__(self, categories: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.categories = tuple(categories)
        self.add_state("right", torch.zeros(len(self.categories)), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros(len(self.categories)), dist_reduce_fx="sum")

    def update(self, right: Tensor, categories: Sequence[str]) -> None:
        """Count samples.

        Shapes:
            right (B,) bool; categories has B names.
        """
        index = torch.tensor(
            [self.categories.index(name) for name in categories], dtype=torch.long, device=self.seen.device
        )
        self.right.index_add_(0, index, right.to(self.right))
        self.seen.index_add_(0, index, torch.ones_like(index, dtype=self.seen.dtype))

    def compute(self) -> dict[str, Tensor]:
        """Accuracy in [0, 1] by category and "overall"; categories never seen are left out."""
        share = self.right / self.seen
        values = {c: s for c, s, n in zip(self.categories, share, self.seen, strict=True) if n > 0}
        return values | ({"overall": torch.stack(list(values.values())).mean()} if values else {})
