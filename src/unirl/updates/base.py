"""How do samples and scores become a loss?"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.types import ImageSampling, Rollout


class UpdateRule(ABC):
    """Turns a rollout into a loss for Lightning's automatic optimisation."""

    def check(self, backbone: Backbone) -> None:  # noqa: B027 - an optional hook
        """Refuse a backbone that this rule cannot train, before anything is loaded.

        Raises:
            UserError: with the backbone's name and what it lacks.
        """

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
