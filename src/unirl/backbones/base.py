"""The contract of a unified model: one that draws and that answers questions about pictures."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unirl.types import Answers, AnswerSampling, Images, ImageSampling


class Backbone(nn.Module, ABC):
    """A model that draws and understands. B samples; consecutive equal prompts form a group.

    A decision is one code in the context in which the sampler fixed it. `sample_images` and `image_log_probs` speak of
    the same A decisions in the same order, so update rules never learn which family of models they train.
    """

    @abstractmethod
    def build(self, meta: bool = False) -> None:
        """Create the modules and load the weights; a second call does nothing.

        Constructors only read settings, so that a wrong config fails before gigabytes are read.

        Args:
            meta: Create the modules on the meta device and load nothing.

        Raises:
            UserError: the checkpoint is missing, truncated, or of another vocabulary.
        """

    @abstractmethod
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        """Draw one picture per prompt, without gradient; `log_probs` and `memory` are kept for scoring."""

    @abstractmethod
    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of the decisions behind some drawings, with gradient.

        Args:
            prompts: What was asked for.
            images: What `sample_images` returned.
            sampling: How they were sampled; with other guidance or temperature, the decisions are scored under those.
            scored: How many sampling steps to score, chosen at random; None scores every decision.
                A model that scores all decisions in one pass ignores it.
            generator: Chooses the scored steps.

        Shapes:
            returns log-probabilities (B, A), nats, and the mask (B, A) of what was scored.
        """

    def image_log_likelihood(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        num_masks: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities whose weighted sum is the log-likelihood of each picture, per code, however it was drawn.

        By default each decision, all alike. A masked model takes random masks instead, as in pre-training: each says
        something about every code that it hides, where scoring a sampling step says something about the few that it
        fixed. For a sampler in random order the expected gradient is the same.

        Args:
            prompts: What was asked for.
            images: Their codes.
            sampling: Guidance, temperature and steps of the policy whose likelihood it is.
            num_masks: Random masks of each picture.
            generator: Draws them; in the same state it draws the same ones.

        Shapes:
            returns log-probabilities (B, T), nats, and weights (B, T) whose sum over T is 1 on average.
        """
        log_probs, mask = self.image_log_probs(prompts, images, sampling, None, generator)
        return log_probs, mask / mask.sum(1, keepdim=True)

    @abstractmethod
    def decode(self, images: Images) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1]; with gradient where codes are soft."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Images:
        """Given pictures (B, 3, H, W) in [0, 1], ready to be asked about; without gradient."""

    @abstractmethod
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        """Answer questions, without gradient. Of k x B questions the first k are about the first picture, and so on."""

    @abstractmethod
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        """Given answers as tokens, end-of-text included, ready for `answer_log_probs`."""

    @abstractmethod
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        """Log-probability (B, T) of each answer token, nats, 0 outside the mask. Gradient reaches soft codes, too."""

    def straight_through(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        """The same drawings with straight-through codes, for end-to-end SFT. Optional: see `supports_straight_through`.

        Args:
            prompts: What was asked for.
            images: What `sample_images` returned.
            sampling: How they were sampled.
            temperature: Of the Gumbel-softmax.
            steps: How many of the last sampling steps carry gradient; None lets all of them.
            generator: Draws the Gumbel noise.
        """
        raise TypeError(f"{type(self).__name__} does not relax its codes (supports_straight_through is False)")

    @property
    def straight_through_steps(self) -> int | None:
        """What `straight_through` is asked for where nobody says how many steps carry gradient; None for all of them."""
        return None

    @property
    def supports_straight_through(self) -> bool:
        """Whether `straight_through` is implemented."""
        return type(self).straight_through is not Backbone.straight_through

    @property
    def supports_greedy_images(self) -> bool:
        """Whether `ImageSampling.temperature` may be 0: the likeliest code, each time."""
        return True

    @property
    def understands_pixels(self) -> bool:
        """Whether questions are answered from pixels: then a drawing is decoded once, before it is asked about."""
        return False

    @property
    @abstractmethod
    def blocks(self) -> tuple[type[nn.Module], ...]:
        """Classes of the repeated layers: what FSDP wraps and checkpointing recomputes."""

    @classmethod
    @abstractmethod
    def from_pretrained(cls, path_or_id: str) -> "Backbone":
        """A built model from a local folder, `package:folder`, or a hub id."""

    @abstractmethod
    def save_pretrained(self, path: str | Path) -> None:
        """Write the checkpoint in the public format; `from_pretrained` reads it back."""
