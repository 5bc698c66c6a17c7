"""How do samples and scores become a loss?"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.types import ImageSampling, Rollout


class UpdateRule(ABC):
    """Turns a rollout into a loss for Lightning's automatic optimisation."""

    learns_accepted: bool = False
    """Whether part of it learns from accepted samples only, so that without any it learns nothing: a guard watches."""

    def check(  # noqa: B027 - an optional hook
        self, backbone: Backbone, group_size: int, sampling: ImageSampling
    ) -> None:
        """Refuse what this rule cannot train, before anything is loaded.

        Args:
            backbone: Not built yet.
            group_size: Drawings of each prompt.
            sampling: How it will draw.

        Raises:
            UserError: with what was got and what is needed.
        """

    def attach(self, backbone: Backbone) -> None:  # noqa: B027 - an optional hook
        """Look at the model when it is built and nothing is learnt yet: the place to keep a reference."""

    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        """Add to a fresh rollout what only the policy that drew it can say, such as `old_log_probs`; without gradient.

        Args:
            backbone: The model in training.
            rollout: What it drew, answered and earned.
            sampling: How it drew.
            generators: One for each update that will learn from the rollout, in the state that `loss` gets it in.
        """
        return rollout

    @abstractmethod
    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise and what to log beside it.

        Args:
            backbone: The model in training.
            rollout: What it drew, answered and earned.
            sampling: How it drew.
            generator: The only source of randomness.

        Shapes:
            returns a scalar with gradient, and scalars by name.
        """


def warn_of_guidance(rule: str, scored: float | None, sampling: ImageSampling) -> None:
    """Say where drawings are learnt under another guidance than drew them.

    Args:
        rule: Whose setting it is.
        scored: Guidance under which they are learnt; None is the one that drew them.
        sampling: How they are drawn.
    """
    if scored not in (None, sampling.guidance):
        rank_zero_warn(
            f"{rule}: drawn with guidance {sampling.guidance}, scored with {scored}: what is learnt is not what draws; "
            "leave score_guidance out"
        )
