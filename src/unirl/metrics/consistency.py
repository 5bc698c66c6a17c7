"""Consistency of generation and understanding."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unirl.rewards.attribute import extract_facts, recall
from unirl.types import Example
from unirl.unicode import normalize_text


class Consistency(Metric):
    """How often each task succeeds where the other one does, and the imbalance between the two.

    - `mmu_given_t2i`, Acc(MMU|T2I): of the prompts whose generated image is correct, the share whose question about
      that image is answered correctly.
    - `t2i_given_mmu`, Acc(T2I|MMU): of the prompts whose question about a reference image is answered correctly, the
      share whose generated image is correct.
    - `imbalance`: the absolute difference of the two, as we read the paper.

    Source: UniRL (arXiv 2505.23380).

    Example:
        >>> metric = Consistency()
        >>> generated, own, reference = torch.tensor([[True, False], [True, True], [True, True]])
        >>> metric.update(generated, own, reference)
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'mmu_given_t2i': 1.0, 't2i_given_mmu': 0.5, 'imbalance': 0.5}
    """

    full_state_update = False
    names = ("mmu_given_t2i", "t2i_given_mmu", "imbalance")
    counts: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(4, dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, generated: Tensor, own: Tensor, reference: Tensor) -> None:
        """Add prompts.

        Args:
            generated: Whether the generated image is correct.
            own: Whether the question about the generated image is answered correctly.
            reference: Whether the question about the reference image is answered correctly.

        Shapes:
            each (B,) bool.
        """
        counts = [(generated & own).sum(), generated.sum(), (generated & reference).sum(), reference.sum()]
        self.counts += torch.stack(counts).to(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]. A share of no prompts is left out, and the imbalance with it."""
        generated_and_own, generated, generated_and_reference, reference = self.counts
        shares = generated_and_own / generated, generated_and_reference / reference
        values = zip(self.names, (*shares, (shares[0] - shares[1]).abs()), strict=True)
        return {name: value for name, value in values if torch.isfinite(value)}


def is_correct_answer(example: Example, text: str) -> bool:
    """Whether an answer states everything that the correct one states. "left above" states "left".

    Args:
        example: With the correct answer.
        text: The answer.

    Example:
        >>> is_correct_answer(Example("two cups", "how many ?", "two cups", "counting"), "There are 2 cups.")
        True
    """
    target = extract_facts(example.answer, example.objects)
    if not target:
        return normalize_text(text) == normalize_text(example.answer)
    return recall(target, extract_facts(text, example.objects)) == 1
