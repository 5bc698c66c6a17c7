"""The contract of update rules: how samples and scores become a loss."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.types import CandidateSampling, Images, ImageSampling, Rollout


class UpdateRule(ABC):
    """Turns a rollout into a loss for Lightning's automatic optimization."""

    learns_from_accepted: bool = False
    """Whether a part of the loss is computed from accepted samples only. A guard warns where none is accepted."""
    loss_unit: Literal["sample", "group"] | None = None
    """What the loss is a sum over: with "sample" it can be computed in micro-batches of any samples, with "group" in
    micro-batches of whole groups. None refuses `model.rollout.loss_batch_size`. See `loss`."""

    @property
    def metric_names(self) -> Collection[str] | None:
        """Names of the metrics that `loss` returns, so that a callback that watches another one is refused at start.

        None, the default, does not say; then such a callback is warned about.
        """
        return None

    @property
    def candidate_sampling(self) -> CandidateSampling | None:
        """How candidates for the labels of answers are sampled, now. None for no candidates.

        A rollout's `candidates` are then there in `prepare`, with the verdicts of the rewards, which a rule cannot ask.
        """
        return None

    def check(  # noqa: B027 - an optional hook
        self, backbone: Backbone, group_size: int, sampling: ImageSampling
    ) -> None:
        """Refuse settings that this rule cannot train, before anything is loaded.

        Args:
            backbone: Not built yet.
            group_size: Samples of each prompt.
            sampling: How images are generated.

        Raises:
            UserError: with what was got and what is needed.
        """

    def attach(self, backbone: Backbone) -> None:  # noqa: B027 - an optional hook
        """Called once with the built model, before the first step: the place to keep a reference model.

        Args:
            backbone: Built, and not trained yet.
        """

    def sample_answer_images(
        self, backbone: Backbone, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator
    ) -> Images | None:
        """Generate images for understanding to learn from by another model than the policy. Called without gradient.

        They are asked about and scored as the policy's own, and are then in `rollout.answer_rollout`.

        Args:
            backbone: The model in training.
            prompts: The prompts of the step, each once.
            sampling: How the policy's images are generated.
            generator: The only source of randomness.

        Returns:
            Equally many images of each prompt, prompt-major; None where understanding learns from the policy's images.
        """
        return None

    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        """Add to a fresh rollout what only the policy that generated it can compute: `old_log_probs`, `answer_labels`.

        Called without gradient.

        Args:
            backbone: The model in training.
            rollout: Fresh.
            sampling: How its images were generated.
            generators: One for each iteration on this rollout, in the state in which `loss` gets it.

        Returns:
            The rollout, with these values added.
        """
        return rollout

    @abstractmethod
    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimize, and metrics to log.

        Compare the samples of a group by `rollout.advantage_rewards`, and multiply the loss of each sample by
        `rollout.sample_weights`: a sample of weight 0, which quality control dropped, must have no effect. Add
        `unirl.functional.zero_loss(backbone)` where some parameters may get no gradient, and return metrics of the
        same names in every step and on every rank.

        There may be several questions about an image, then `rollout.answers` has several rows for it: weigh each by
        `rollout.answer_weights`, so that all of them count as one.

        Score the samples of `unirl.updates.scoring_batch`. With a `loss_unit`, the losses and metrics of all
        `rollout.micro_batches()` must add up to those of the whole rollout: take group statistics and denominators from
        the whole rollout, which is given each time.

        Args:
            backbone: The model in training.
            rollout: Scored samples: all of the step, with a `micro_batch` where some of them are scored.
            sampling: How the images were generated.
            generator: The only source of randomness.

        Shapes:
            returns a scalar with gradient, and scalars by name.
        """

    def task_losses(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What of the loss trains each task, for the callback `TaskGradientNorms`. It is not part of a training step.

        Args:
            backbone: The model in training.
            rollout: As for `loss`.
            sampling: How the images were generated.
            generator: The only source of randomness, in the state in which `loss` gets it.

        Returns:
            The parts "image" and "answer", which add up to `loss`; {}, the default, where the rule does not tell them
            apart.

        Shapes:
            returns scalars with gradient.
        """
        return {}


def warn_guidance_mismatch(rule: str, loss_guidance: float | None, sampling: ImageSampling) -> None:
    """Warn where images are scored with another guidance than generated them.

    Args:
        rule: Name of the update rule.
        loss_guidance: Guidance in the loss; None takes that of `sampling`.
        sampling: How images are generated.
    """
    if loss_guidance not in (None, sampling.guidance):
        from lightning.pytorch.utilities.rank_zero import rank_zero_warn  # noqa: PLC0415 - takes 3 s to import

        rank_zero_warn(
            f"{rule}: images are generated with guidance {sampling.guidance} and scored with {loss_guidance}: another "
            "distribution is trained than the one that is sampled; leave loss_guidance out"
        )
