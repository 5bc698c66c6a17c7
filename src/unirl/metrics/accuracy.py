"""Accuracy of generation and of understanding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class AccuracyByCategory(Metric):
    """Share of correct samples in each category, and the mean over categories (GenEval's overall score).

    Args:
        categories: All categories, in the order of tables.
        kwargs: As for `torchmetrics.Metric`.

    Attributes:
        counts: Samples of each category in the last `compute`, over all processes.

    Example:
        >>> metric = AccuracyByCategory(["colors", "counting"])
        >>> metric.update(torch.tensor([True, False, True]), ["colors", "colors", "counting"])
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'colors': 0.5, 'counting': 1.0, 'overall': 0.75}
    """

    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, categories: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.categories = tuple(categories)
        self.counts: dict[str, int] = {}
        self.add_state("correct", torch.zeros(len(self.categories), dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(len(self.categories), dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, correct: Tensor, categories: Sequence[str]) -> None:
        """Add samples.

        Args:
            correct: Which samples are correct.
            categories: The category of each sample.

        Shapes:
            correct (B,) bool; categories has B names.

        Raises:
            ValueError: a category is unknown.
        """
        index = torch.tensor(
            [self.categories.index(name) for name in categories], dtype=torch.long, device=self.total.device
        )
        self.correct.index_add_(0, index, correct.to(self.correct))
        self.total.index_add_(0, index, torch.ones_like(index, dtype=self.total.dtype))

    def compute(self) -> dict[str, Tensor]:
        """Accuracy in [0, 1] of each category and "overall". Categories without samples are left out."""
        accuracy = self.correct / self.total
        counts = {name: int(n) for name, n in zip(self.categories, self.total.tolist(), strict=True)}
        self.counts = {name: n for name, n in counts.items() if n}
        values = {c: a for c, a in zip(self.categories, accuracy, strict=True) if c in self.counts}
        return values | ({"overall": torch.stack(list(values.values())).mean()} if values else {})
