"""Is the model a fair critic of its own drawings?"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class SelfRewardAccuracy(Metric):
    """Balanced accuracy of the model's own verdict against a judge's, by category and over all.

    The mean of two shares: right drawings that were accepted, and wrong drawings that were refused. A critic that
    accepts everything has 0.5, and nothing can improve on it.

    Args:
        categories: All that can occur, in the order of tables.

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
        self.add_state("counts", torch.zeros(len(self.categories), 2, 2), dist_reduce_fx="sum")

    def update(self, accepted: Tensor, right: Tensor, categories: Sequence[str]) -> None:
        """Count verdicts.

        Args:
            accepted: The model's own verdict.
            right: The judge's.
            categories: Where each sample counts.

        Shapes:
            accepted and right (B,) bool; categories has B names.
        """
        index = torch.tensor(
            [self.categories.index(name) for name in categories], dtype=torch.long, device=self.counts.device
        )
        one = torch.ones_like(index, dtype=self.counts.dtype)
        self.counts.index_put_((index, right.long(), accepted.long()), one, accumulate=True)

    def compute(self) -> dict[str, Tensor]:
        """Balanced accuracy in [0, 1]; left out where there were no right or no wrong drawings."""
        values = dict(zip(self.categories, self.counts, strict=True)) | {"overall": self.counts.sum(0)}
        fair = {name: (c.diagonal() / c.sum(1)).mean() for name, c in values.items()}
        return {name: value for name, value in fair.items() if torch.isfinite(value)}
