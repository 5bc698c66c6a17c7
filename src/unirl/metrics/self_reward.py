"""Accuracy of the model's own reward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class SelfRewardAccuracy(Metric):
    """Balanced accuracy of the self-reward against a judge, in each category and overall.

    The mean of two shares: correct images that are accepted, and wrong images that are not. A self-reward that accepts
    everything has 0.5; no update rule can improve a model by it.

    Args:
        categories: All categories, in the order of tables.
        kwargs: As for `torchmetrics.Metric`.

    Example:
        >>> metric = SelfRewardAccuracy(["colors"])
        >>> metric.update(torch.tensor([True, True]), torch.tensor([True, False]), ["colors"] * 2)
        >>> metric.compute()["overall"].item()
        0.5
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, categories: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.categories = tuple(categories)
        self.add_state("counts", torch.zeros(len(self.categories), 2, 2, dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, accepted: Tensor, correct: Tensor, categories: Sequence[str]) -> None:
        """Add samples.

        Args:
            accepted: Which images the rewards accept.
            correct: Which images are correct according to the judge.
            categories: The category of each sample.

        Shapes:
            accepted and correct (B,) bool; categories has B names.

        Raises:
            ValueError: a category is unknown.
        """
        index = torch.tensor(
            [self.categories.index(name) for name in categories], dtype=torch.long, device=self.counts.device
        )
        one = torch.ones_like(index, dtype=self.counts.dtype)
        self.counts.index_put_((index, correct.long(), accepted.long()), one, accumulate=True)

    def compute(self) -> dict[str, Tensor]:
        """Balanced accuracy in [0, 1]. Left out where no image is correct, or none is wrong."""
        counts = dict(zip(self.categories, self.counts, strict=True)) | {"overall": self.counts.sum(0)}
        values = {name: (c.diagonal() / c.sum(1)).mean() for name, c in counts.items()}
        return {name: value for name, value in values.items() if torch.isfinite(value)}
