"""The contract of judges, which decide whether an image is correct."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from unirl.backbones.checkpoints import PretrainedModel
from unirl.types import Example
from unirl.unicode import normalize_text


@dataclass(frozen=True)
class Verdict:
    """What a judge says about an image.

    Args:
        correct: Whether the image is correct.
        reason: What is missing or wrong; empty for a correct image.
        scores: Graded scores by name, of judges that have some. They are saved with the verdict.
    """

    correct: bool
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict, repr=False)


class Judge(ABC):
    """Decides from pixels whether an image is correct. Used in evaluation, never in training.

    `verdicts` is required; a judge that cannot judge every example says so in `check_example`. A judge that can make
    images of its own measures more: `understanding_set` is for validation of understanding, `references` for the
    consistency of generation and understanding. A judge that brings prompts of its own is a benchmark:
    `unirl evaluate --benchmark NAME` takes its registered name.

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

    def load(self) -> None:  # noqa: B027 - an optional hook
        """Load the models of the judge, so that what is wrong with them is said before an image is generated. Optional.

        It may be called several times.

        Raises:
            UserError: a model cannot be read.
        """

    def explain(self, examples: Sequence[Example], pixels: Tensor) -> Sequence[Verdict]:
        """Verdicts with their reasons. Optional; by default those of `verdicts`, without reasons.

        Args:
            examples: As for `verdicts`.
            pixels: As for `verdicts`.

        Returns:
            One for each image; `correct` is what `verdicts` returns.

        Shapes:
            pixels (B, 3, H, W).
        """
        return [Verdict(correct) for correct in self.verdicts(examples, pixels).tolist()]

    def benchmark(self) -> Sequence[Example]:
        """The examples of the benchmark that this judge is, always the same ones. Optional; by default none.

        `fit` refuses to train on their prompts.
        """
        return ()

    def summarize(self, examples: Sequence[Example], verdicts: Sequence[Verdict]) -> dict[str, float]:
        """The scores of a benchmark, from the verdicts about all images. Optional.

        By default the share of correct images in each category, and "overall", the mean of these shares.

        Args:
            examples: One for each image; several images of a prompt follow each other.
            verdicts: One for each image.

        Returns:
            Scores in [0, 1] by name; "overall" is the score of the benchmark.

        Example:
            >>> class Bright(Judge):
            ...     def verdicts(self, examples, pixels):
            ...         return pixels.mean((1, 2, 3)) > 0.5
            >>> examples = [Example("a cat", category="one"), Example("two cats", category="two")]
            >>> Bright().summarize(examples, [Verdict(True), Verdict(False)])
            {'one': 1.0, 'two': 0.0, 'overall': 0.5}
        """
        correct: dict[str, list[bool]] = {}
        for example, verdict in zip(examples, verdicts, strict=True):
            correct.setdefault(example.category, []).append(verdict.correct)
        shares = {category: sum(values) / len(values) for category, values in correct.items()}
        return shares | ({"overall": sum(shares.values()) / len(shares)} if shares else {})

    @property
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        """The checkpoints that the judge loads, for `unirl doctor`. By default none."""
        return ()

    def understanding_set(self, count: int, seed: int = 0) -> tuple[Sequence[Example], Tensor | Sequence[str]] | None:
        """Images with questions and true answers, to measure understanding.

        Args:
            count: Number of images wanted; a judge that has fewer gives those.
            seed: The same seed gives the same set.

        Returns:
            Examples whose `answer` is true of their image, and the images, or the paths of their files, which
            `Backbone.preprocess` reads; or None where the judge has none. See `ReferenceImages` for those of a folder.

        Shapes:
            images (count, 3, H, W) in [0, 1].
        """
        return None

    def accepts_answer(self, example: Example, answer: str) -> bool:
        """Whether an answer about an image of `understanding_set` is correct. By default where it equals the right one.

        Args:
            example: With the right answer.
            answer: The model's. Case, spaces and the form of Unicode do not matter.

        Example:
            >>> Judge.accepts_answer(None, Example("", "how many ?", "two"), "Two")
            True
        """
        return normalize_text(answer) == normalize_text(example.answer)

    def references(self, examples: Sequence[Example]) -> Tensor | Sequence[str | None] | None:
        """A correct image for each example, to measure the consistency of generation and understanding.

        Args:
            examples: What the images must show.

        Returns:
            The images, always the same ones for the same examples, or the paths of their files, with None for examples
            that have no image; or None where the judge has none.

        Shapes:
            images (B, 3, H, W) in [0, 1].
        """
        return None
