"""How different are the drawings of one prompt?"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class GroupDiversity(Metric):
    """Mean distance between the samples of a group, over all pairs and groups.

    Args:
        distance: "hamming", the share of differing entries, for codes; "cosine", 1 minus the cosine, for features.

    Example:
        >>> metric = GroupDiversity("hamming")
        >>> metric.update(torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5], [7, 7, 7, 7], [7, 7, 7, 7]]), group_size=2)
        >>> metric.compute().item()
        0.125
    """

    full_state_update = False
    total: Tensor
    pairs: Tensor

    def __init__(self, distance: Literal["hamming", "cosine"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.distance = distance
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("pairs", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, values: Tensor, group_size: int) -> None:
        """Count the pairs of each group; a group of one has none.

        Shapes:
            values (B, N), prompt-major.
        """
        groups = values.view(-1, group_size, values.shape[-1])
        if self.distance == "hamming":
            apart = (groups[:, :, None] != groups[:, None]).float().mean(-1)
        else:
            directions = F.normalize(groups.float(), dim=-1)
            apart = 1 - directions @ directions.mT
        upper = torch.ones(group_size, group_size, device=values.device).triu(1).bool()
        self.total += apart[:, upper].sum()
        self.pairs += apart[:, upper].numel()

    def compute(self) -> Tensor:
        """In [0, 1] for codes, in [0, 2] for features; NaN where no group had two samples."""
        return self.total / self.pairs
