"""GenEval as a judge: whether an image shows the objects of its prompt, in their numbers, colors and places."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from unirl import Example, UserError
from unirl.backbones import PretrainedModel
from unirl.judges import COUNTING_THRESHOLD, THRESHOLD, ReferenceImages, Verdict, matches_answer, verdict
from unirl.metrics import is_correct_answer
from unirl_geneval.base import PretrainedJudge
from unirl_geneval.colors import ColorClassifier
from unirl_geneval.detector import DetectedObject, Detector
from unirl_geneval.metadata import benchmark_examples, find_unknown, read_metadata
from unirl_geneval.pretrained import exact_float32, levels
from unirl_geneval.prompts import with_question

COUNTING = "counting"


class GenEvalJudge(PretrainedJudge):
    """GenEval: a Mask2Former detects objects, a CLIP names their colors, and a rule decides.

    All is computed as GenEval does, on the device of the images, in float32. **The default detector is not GenEval's**:
    it has the same architecture and data, and Facebook's weights in place of mmdet's, so some verdicts differ. For
    GenEval's own, convert mmdet's checkpoint by `unirl-geneval convert`, and give the folder.

    Args:
        detector: A `Mask2FormerForUniversalSegmentation` of COCO's 80 classes: a folder, `package:folder` or hub id.
        clip: A `CLIPModel` with its tokenizer, which classifies colors.
        metadata: A file in the form of GenEval's `evaluation_metadata.jsonl`. By default GenEval's 553 prompts.
        detector_revision: Branch, tag or commit of the detector's hub repository.
        clip_revision: The same of the CLIP.
        batch_size: Images that the detector sees at once. With 1, a verdict does not depend on the other images.
        reference_images: Real images with their prompts, as `ReferenceImages` reads them: a JSON Lines file, or a
            folder in GenEval's layout. They measure understanding, and its consistency with generation. A prompt of
            GenEval's six tasks needs no question.

    Raises:
        UserError: the metadata or the reference images cannot be read, or the metadata name what GenEval does not know;
            or `batch_size` is below 1.

    Source: Ghosh et al. 2023 (arXiv 2310.11513).

    Example:
        >>> len(GenEvalJudge().benchmark())
        553
    """

    def __init__(
        self,
        detector: str = "facebook/mask2former-swin-small-coco-instance",
        clip: str = "openai/clip-vit-large-patch14",
        metadata: str | None = None,
        detector_revision: str | None = None,
        clip_revision: str | None = None,
        batch_size: int = 1,
        reference_images: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"geneval: batch_size {batch_size}; it must be 1 or more")
        self.detector, self.clip, self.metadata = detector, clip, metadata
        self.detector_revision, self.clip_revision = detector_revision, clip_revision
        self.batch_size = batch_size
        self.examples = benchmark_examples() if metadata is None else read_metadata(metadata)
        self.reference_images = reference_images
        self.images = None if reference_images is None else ReferenceImages(reference_images, with_question)

    @cached_property
    def loaded(self) -> tuple[Detector, ColorClassifier]:
        """The two models, loaded when they are first needed.

        Raises:
            UserError: one of them cannot be read.
        """
        return Detector(self.detector, self.detector_revision), ColorClassifier(self.clip, self.clip_revision)

    @property
    @override
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        return (
            PretrainedModel(self.detector, model_type="mask2former", revision=self.detector_revision),
            PretrainedModel(self.clip, model_type="clip", revision=self.clip_revision),
        )

    @override
    def check_example(self, example: Example) -> None:
        """Refuse an example without objects, or with what GenEval does not know.

        Args:
            example: What an image must show.

        Raises:
            UserError: why it cannot be judged.
        """
        if (problem := find_unknown(example)) is not None:
            raise UserError(problem)

    @override
    def benchmark(self) -> Sequence[Example]:
        return self.examples

    @override
    def accepts_answer(self, example: Example, answer: str) -> bool:
        """Whether an answer has the words of the right one, or states the same facts.

        Args:
            example: With the right answer.
            answer: The model's.

        Example:
            >>> from unirl import Item
            >>> cups = Example("two cups", "How many cups are in the picture?", "two cups", objects=(Item("cup", 2),))
            >>> GenEvalJudge().accepts_answer(cups, "There are 2 cups.")
            True
        """
        return matches_answer(answer, [example.answer]) or is_correct_answer(example, answer)

    @override
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        """Whether each image is correct for its example.

        Args:
            examples: What each image was generated for.
            pixels: The images, in [0, 1]. They are rounded to 8 bits.

        Shapes:
            pixels (B, 3, H, W); returns (B,) bool, on the device of `pixels`.

        Raises:
            UserError: there is not one RGB image for each example; an example has no objects, or what GenEval does not
                know; or a model cannot be read.
        """
        correct = [one.correct for one in self.explain(examples, pixels)]
        return torch.tensor(correct, dtype=torch.bool, device=pixels.device)

    @override
    def explain(self, examples: Sequence[Example], pixels: Tensor) -> list[Verdict]:
        """Verdicts with GenEval's reasons. Arguments, shapes and errors are those of `verdicts`."""
        _check(examples, pixels)
        images = levels(pixels)
        with exact_float32(pixels.device):
            detected = self.detect(examples, images)
            return [self._verdict(*one) for one in zip(examples, images, detected, strict=True)]

    def detect(self, examples: Sequence[Example], images: Tensor) -> list[list[DetectedObject]]:
        """The objects in each image, without those that are too uncertain for any verdict.

        Args:
            examples: What each image was generated for.
            images: Levels from 0 to 255.

        Shapes:
            images (B, 3, H, W) uint8.
        """
        detector, _ = self.loaded
        min_score = min(threshold(example) for example in examples) if examples else THRESHOLD
        batches = torch.split(images, self.batch_size) if len(images) else ()
        return [objects for batch in batches for objects in detector.detect(batch, min_score)]

    def _verdict(self, example: Example, image: Tensor, detected: Sequence[DetectedObject]) -> Verdict:
        def classify(objects: Sequence[DetectedObject]) -> list[str]:
            return self.loaded[1].colors(image, objects)

        return verdict(
            example.objects,
            example.exclude,
            detected,
            counting=example.category == COUNTING,
            classify_colors=classify,
        )


def threshold(example: Example) -> float:
    """The confidence above which objects count: another one where a number of them is asked for.

    Args:
        example: What an image was generated for.

    Example:
        >>> threshold(Example("a photo of two cups", category="counting"))
        0.9
    """
    return COUNTING_THRESHOLD if example.category == COUNTING else THRESHOLD


def _check(examples: Sequence[Example], pixels: Tensor) -> None:
    """Refuse images and examples about which the judge can say nothing."""
    if pixels.ndim != 4 or pixels.shape[1] != 3 or 0 in pixels.shape[2:]:
        raise UserError(f"geneval judges RGB images (B, 3, H, W), got {tuple(pixels.shape)}")
    if len(examples) != len(pixels):
        raise UserError(f"geneval needs one image for each example, got {len(pixels)} for {len(examples)}")
    for example in examples:
        if (problem := find_unknown(example)) is not None:
            raise UserError(
                f"geneval cannot judge the prompt {example.prompt!r}: {problem}; validate on prompts that it knows, "
                "such as those of geneval_coco, or set another judge"
            )
