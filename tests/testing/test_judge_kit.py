"""A judge that breaks the contract is told so, in words that name the fault."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from unirl.judges import Judge
from unirl.testing import JudgeConformance
from unirl.testing.samples import EXAMPLES
from unirl.types import Example

Faults = Callable[[object], str]


class Shade(Judge):
    """A right picture has a certain red in its corner: a right one, from which the broken ones differ in a line."""

    def shade(self, example: Example) -> float:
        return (len(example.prompt) % 7 + 1) / 16

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        wanted = torch.tensor([self.shade(example) for example in examples], device=pixels.device)
        return ((pixels[:, 0, 0, 0] - wanted).abs() < 0.01) & (pixels[:, 1, 0, 0] == 1)

    def references(self, examples: Sequence[Example]) -> Tensor | None:
        pictures = torch.ones(len(examples), 3, 64, 64)
        pictures[:, 0] = torch.tensor([self.shade(example) for example in examples])[:, None, None]
        return pictures

    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        examples = [EXAMPLES[i % len(EXAMPLES)] for i in range(count)]
        pictures = self.references(examples)
        assert pictures is not None
        return examples, pictures


class Floats(Shade):
    def verdicts(self, *given: Any) -> Tensor:
        return super().verdicts(*given).float()


class Listed(Shade):
    def verdicts(self, *given: Any) -> Tensor:
        return super().verdicts(*given).tolist()  # type: ignore[return-value]


class OneForAll(Shade):
    def verdicts(self, *given: Any) -> Tensor:
        return super().verdicts(*given).all()


class Elsewhere(Shade):
    def verdicts(self, *given: Any) -> Tensor:
        return super().verdicts(*given).to("meta")


class Companions(Shade):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        found = super().verdicts(examples, pixels)
        return found & ~found.all()


class Place(Shade):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.arange(len(examples)) < 1


class InPlace(Shade):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        found = super().verdicts(examples, pixels)
        pixels.clamp_(max=0.5)
        return found


class Guessing(Shade):
    def verdicts(self, *given: Any) -> Tensor:
        found = super().verdicts(*given)
        return found & (torch.rand(len(found)) < 0.9)


class Remembering(Shade):
    def __init__(self) -> None:
        self.asked = 0

    def verdicts(self, *given: Any) -> Tensor:
        self.asked += 1
        return super().verdicts(*given) ^ (self.asked > 1)


class Kind(Shade):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.ones(len(examples), dtype=torch.bool)


class WrongReferences(Shade):
    def references(self, examples: Sequence[Example]) -> Tensor | None:
        pictures = super().references(examples)
        return None if pictures is None else pictures.roll(1, 0)


class BrightReferences(Shade):
    def references(self, examples: Sequence[Example]) -> Tensor | None:
        return torch.full((len(examples), 3, 64, 64), 255.0)


class OneReference(Shade):
    def references(self, examples: Sequence[Example]) -> Tensor | None:
        pictures = super().references(examples)
        return None if pictures is None else pictures[:1]


class ShortExam(Shade):
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        return super().understanding_set(count - 1, seed)


class BytesExam(Shade):
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        return [EXAMPLES[0]] * count, torch.zeros(count, 3, 64, 64, dtype=torch.uint8)


class NoAnswers(Shade):
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        return [Example("a ring", "what is it ?", "", "c")] * count, torch.zeros(count, 3, 64, 64)


class NewExam(Shade):
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        return [EXAMPLES[0]] * count, torch.rand(count, 3, 64, 64)


def judged(faults: Faults, kind: type[Judge]) -> str:
    class Kit(JudgeConformance):
        def make(self) -> Judge:
            return kind()

    return faults(Kit())


def test_a_right_one_passes(faults: Faults) -> None:
    assert judged(faults, Shade) == ""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Floats, "Floats.verdicts returned torch.float32, expected torch.bool (6,) on cpu"),
        (Listed, "Listed.verdicts returned a list, expected torch.bool (6,)"),
        (OneForAll, "OneForAll.verdicts returned shape (), expected torch.bool (6,)"),
        (Elsewhere, "Elsewhere.verdicts returned a tensor on meta, expected torch.bool (6,) on cpu"),
        (Companions, "Companions.verdicts judges picture"),
        (Place, "Place.verdicts depends on the order of the batch"),
        (InPlace, "InPlace.verdicts changes the pixels in place"),
        (Guessing, "Guessing.verdicts draws from a global generator: a judge must not guess"),
        (Remembering, "Remembering.verdicts judges the same pictures otherwise the second time"),
        (Kind, "Kind.verdicts calls a blank picture of shade 0.0 right for 'a photo of a ring'"),
        (WrongReferences, "WrongReferences.references gave pictures of which WrongReferences.verdicts calls 0% right"),
        (BrightReferences, "BrightReferences.references gave pictures from 255 to 255, expected [0, 1]"),
        (OneReference, "OneReference.references gave pictures of shape (1, 3, 64, 64), expected (6, 3, H, W)"),
        (ShortExam, "ShortExam.understanding_set(24) gave 23 examples"),
        (BytesExam, "BytesExam.understanding_set(24) gave pictures of torch.uint8, expected floats in [0, 1]"),
        (NoAnswers, "NoAnswers.understanding_set(24) gave no question or no answer for picture 0"),
        (NewExam, "NewExam.understanding_set(24) is another exam when it is asked for again"),
    ],
)
def test_a_broken_one_is_told_what_is_wrong(faults: Faults, kind: type[Judge], message: str) -> None:
    assert message in judged(faults, kind)
