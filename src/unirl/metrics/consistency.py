"""Do drawing and understanding agree?"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unirl.rewards.attribute import agreement, facts
from unirl.types import Example


class Consistency(Metric):
    """How often understanding follows drawing, drawing follows understanding, and the gap between the two.

    Acc(MMU|T2I): of the drawings that a judge calls right, the share whose question the model answers rightly.
    Acc(T2I|MMU): of the prompts whose reference picture the model answers rightly, the share that it draws right.

    Source: UniRL (arXiv 2505.23380). That the imbalance is the absolute difference is inferred.

    Example:
        >>> metric, yes, no = Consistency(), torch.tensor([True, True]), torch.tensor([True, False])
        >>> metric.update(drawn=no, said=yes, seen=yes)
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'mmu_given_t2i': 1.0, 't2i_given_mmu': 0.5, 'imbalance': 0.5}
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(4), dist_reduce_fx="sum")

    def update(self, drawn: Tensor, said: Tensor, seen: Tensor) -> None:
        """Count prompts.

        Args:
            drawn: The drawing is right.
            said: The question about the drawing was answered rightly.
            seen: The question about the reference picture was answered rightly.

        Shapes:
            each (B,) bool.
        """
        self.counts += torch.stack([(drawn & said).sum(), drawn.sum(), (seen & drawn).sum(), seen.sum()]).to(
            self.counts
        )

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]; left out where nothing was drawn, or seen, rightly."""
        both, drawn, follows, seen = self.counts
        values = {"mmu_given_t2i": both / drawn, "t2i_given_mmu": follows / seen}
        values["imbalance"] = (values["mmu_given_t2i"] - values["t2i_given_mmu"]).abs()
        return {name: value for name, value in values.items() if torch.isfinite(value)}


def is_correct_answer(example: Example, text: str) -> bool:
    """Whether an answer states all that the right one does; "left above" states "left".

    Example:
        >>> is_correct_answer(Example("two cups", "how many ?", "two cups", "counting"), "There are 2 cups.")
        True
    """
    wanted = facts(example.answer, example.objects)
    if not wanted:
        return text.casefold().split() == example.answer.casefold().split()
    return agreement(wanted, facts(text, example.objects)) == 1
