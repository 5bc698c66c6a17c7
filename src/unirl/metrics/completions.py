"""How many of the model's answers were cut off."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class ClippedRatio(Metric):
    """The share of sampled answers that were cut off at `max_tokens` before they ended, in [0, 1]: `clipped_ratio`.

    Source: TRL's `completions/clipped_ratio`.

    Example:
        >>> metric = ClippedRatio()
        >>> metric.update(torch.tensor([True, False, False, False]))
        >>> metric.compute()["clipped_ratio"].item()
        0.25
    """

    full_state_update = False
    names = ("clipped_ratio",)
    counts: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(2, dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, clipped: Tensor) -> None:
        """Add answers.

        Args:
            clipped: Whether each was cut off.

        Shapes:
            clipped (B,) bool.
        """
        self.counts += torch.stack((clipped.sum(), torch.ones_like(clipped).sum())).to(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """The share; 0 where there were no answers."""
        clipped, total = self.counts
        return {"clipped_ratio": clipped / total.clamp(min=1)}
