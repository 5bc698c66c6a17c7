"""What every judge promises: derive a test class, say how to make one, and run pytest."""

import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from unirl.judges.base import Judge
from unirl.testing.checks import same, stir, who
from unirl.testing.reward import told
from unirl.testing.samples import EXAMPLES, sample_images
from unirl.types import Example


class JudgeConformance(ABC):
    """Checks that a judge keeps the contract; a message says in a sentence what is wrong, and in which method.

    Example:
        >>> from unirl_shapes.judge import ShapesJudge
        >>> class TestShapes(JudgeConformance):
        ...     def make(self):
        ...         return ShapesJudge()
        >>> TestShapes().test_right_pictures_are_judged_right()
    """

    examples: ClassVar[tuple[Example, ...]] = EXAMPLES
    """What pictures are judged by; prompts that the judge understands."""
    size: ClassVar[int] = 64
    """Side of the pictures."""
    device: ClassVar[str] = "cpu"
    """Where they lie."""
    count: ClassVar[int] = 24
    """Pictures of an exam."""
    least: ClassVar[float] = 0.99
    """Share of its own references that it must judge right."""

    @abstractmethod
    def make(self) -> Judge:
        """A fresh judge."""

    def pictures(self) -> Tensor:
        """A picture for each example: by turns its reference, another's and noise, or noise where it has no references.

        Shapes:
            returns (B, 3, size, size) in [0, 1].
        """
        pixels = sample_images(len(self.examples), side=self.size).pixels
        references = self.make().references(self.examples)
        assert pixels is not None
        if references is not None and references.shape[0] == len(pixels):
            noise = torch.nn.functional.interpolate(pixels, size=references.shape[2:])
            kinds = (references, references.roll(1, 0), noise.to(references))
            pixels = torch.stack([kinds[i % 3][i] for i in range(len(noise))])
        return pixels.to(self.device)

    def test_verdicts_are_a_bool_a_picture(self) -> None:
        judge, pixels = self.make(), self.pictures()
        assert isinstance(judge, Judge), f"make gave a {type(judge).__name__}, which is no unirl.judges.Judge"
        given: object = judge.verdicts(self.examples, pixels)
        where, expected = who(judge, "verdicts"), f"expected torch.bool ({len(pixels)},) on {pixels.device}"
        assert isinstance(given, Tensor), f"{where} returned {told(given)}, {expected}"
        assert given.dtype == torch.bool, f"{where} returned {given.dtype}, {expected}"
        assert given.shape == (len(pixels),), f"{where} returned shape {tuple(given.shape)}, {expected}"
        assert given.device == pixels.device, f"{where} returned a tensor on {given.device}, {expected}"

    def test_a_verdict_does_not_depend_on_the_rest_of_the_batch(self) -> None:
        judge, pixels = self.make(), self.pictures()
        whole, where = judge.verdicts(self.examples, pixels), who(judge, "verdicts")
        back = judge.verdicts(self.examples[::-1], pixels.flip(0))
        assert torch.equal(whole.flip(0), back), f"{where} depends on the order of the batch"
        alone = [judge.verdicts([example], pixels[i : i + 1]) for i, example in enumerate(self.examples)]
        apart = (torch.cat(alone) != whole).nonzero().flatten().tolist()
        assert not apart, f"{where} judges picture {apart[0]} otherwise when it comes alone"

    def test_it_is_deterministic(self) -> None:
        judge, pixels = self.make(), self.pictures()
        stir(0)
        before = torch.get_rng_state(), random.getstate()
        first = judge.verdicts(self.examples, pixels)
        where = who(judge, "verdicts")
        untouched = same(before, (torch.get_rng_state(), random.getstate()))
        assert untouched, f"{where} draws from a global generator: a judge must not guess"
        again = judge.verdicts(self.examples, pixels)
        assert torch.equal(first, again), f"{where} judges the same pictures otherwise the second time"
        anew = self.make().verdicts(self.examples, pixels)
        assert torch.equal(first, anew), f"{where} judges the same pictures otherwise when the judge is made anew"

    def test_it_leaves_pictures_as_they_were(self) -> None:
        judge, pixels = self.make(), self.pictures()
        before = pixels.clone()
        judge.verdicts(self.examples, pixels)
        assert same(before, pixels), f"{who(judge, 'verdicts')} changes the pixels in place, which are measured again"

    def test_blank_pictures_show_nothing(self) -> None:
        judge = self.make()
        single = [example for example in self.examples if example.category == "single_object"]
        if not single:
            pytest.skip("no example asks for a single object")
        for shade in (0.0, 0.5, 1.0):
            blank = torch.full((len(single), 3, self.size, self.size), shade, device=self.device)
            right = judge.verdicts(single, blank).nonzero().flatten().tolist()
            assert not right, (
                f"{who(judge, 'verdicts')} calls a blank picture of shade {shade} right for {single[right[0]].prompt!r}"
            )

    def test_right_pictures_are_judged_right(self) -> None:
        judge = self.make()
        pictures: object = judge.references(self.examples)
        if pictures is None:
            pytest.skip("it has no references")
        where = who(judge, "references")
        given = _checked(pictures, len(self.examples), where)
        assert same(given, judge.references(self.examples)), f"{where} gives other pictures the second time"
        right = judge.verdicts(self.examples, given.to(self.device)).float().mean().item()
        assert right >= self.least, (
            f"{where} gave pictures of which {who(judge, 'verdicts')} calls {right:.0%} right, expected "
            f"{self.least:.0%}: one of the two is wrong"
        )

    def test_an_exam_has_pictures_questions_and_answers(self) -> None:
        judge = self.make()
        exam: Any = judge.understanding_set(self.count)
        if exam is None:
            pytest.skip("it has no exam")
        where = f"{who(judge, 'exam')}({self.count})"
        pair = isinstance(exam, tuple) and len(exam) == 2
        assert pair, f"{where} returned {told(exam)}, expected examples and pictures"
        examples, pictures = exam
        assert len(examples) == self.count, f"{where} gave {len(examples)} examples"
        _checked(pictures, self.count, where)
        for i, example in enumerate(examples):
            fine = isinstance(example, Example) and example.question.strip() and example.answer.strip()
            assert fine, f"{where} gave no question or no answer for picture {i}: {example!r}"
        stir(1)
        assert same(exam, self.make().understanding_set(self.count)), (
            f"{where} is another exam when it is asked for again"
        )


def _checked(pictures: object, count: int, where: str) -> Tensor:
    assert isinstance(pictures, Tensor), f"{where} gave {told(pictures)} for pictures, expected a tensor"
    shape = tuple(pictures.shape)
    fits = pictures.ndim == 4 and shape[:2] == (count, 3)
    assert fits, f"{where} gave pictures of shape {shape}, expected ({count}, 3, H, W)"
    assert pictures.is_floating_point(), f"{where} gave pictures of {pictures.dtype}, expected floats in [0, 1]"
    least, most = pictures.min().item(), pictures.max().item()
    assert 0 <= least <= most <= 1, f"{where} gave pictures from {least:g} to {most:g}, expected [0, 1]"
    return pictures
