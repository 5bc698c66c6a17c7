"""The contract of judges, which decide whether an image is correct."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from unirl.backbones.checkpoints import PretrainedModel
from unirl.types import Example


class Judge(ABC):
    """Decides from pixels whether an image is correct. Used in evaluation, never in training.

    `verdicts` is required; a judge that cannot judge every example says so in `check_example`. A judge that can make
    images of its own measures more: `understanding_set` is for validation of understanding, `references` for the
    consistency of generation and understanding.

    Example:
        >>> class Bright(Judge):
        ...     def verdicts(self, examples, pixels):
        ...         return pixels.mean((1, 2, 3)) > 0.5
        >>> import torch
        >>> Bright().verdicts([Example("a bright image", "", "", "")], torch.ones(1, 3, 8, 8)).tolist()
        [True]
    """

    @abstractmethod
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        """Whether each image is correct for its example.

        Args:
            examples: What each image was generated for.
            pixels: The images, in [0, 1].

        Shapes:
            pixels (B, 3, H, W); returns (B,) bool, on the device of `pixels`.

        Raises:
            UserError: the images are of a size that this judge cannot read.
        """

    def check_example(self, example: Example) -> None:  # noqa: B027 - an optional hook
        """Refuse an example that this judge cannot judge, such as one of objects that it does not know.

        Called before the model is loaded, for all prompts that a validation generates. By default every example can be
        judged.

        Args:
            example: A held-out example, or any example of a run with the reward `oracle`.

        Raises:
            UserError: why it cannot be judged. The caller names judge, prompt and line, and says what to do.
        """

    @property
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        """The checkpoints that the judge loads, for `unirl doctor`. By default none."""
        return ()

    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        """Images with questions and true answers, to measure understanding.

        Args:
            count: Number of images.
            seed: The same seed gives the same set.

        Returns:
            Examples whose `answer` is true of their image, and the images; or None where the judge has none. An answer
            counts as correct where it equals `answer` up to case.

        Shapes:
            images (count, 3, H, W) in [0, 1].
        """
        return None

    def references(self, examples: Sequence[Example]) -> Tensor | None:
        """A correct image for each example, to measure the consistency of generation and understanding.

        Args:
            examples: What the images must show.

        Returns:
            The images, always the same ones for the same examples; or None where the judge has none.

        Shapes:
            images (B, 3, H, W) in [0, 1].
        """
        return None
