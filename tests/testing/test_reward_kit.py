"""A reward that breaks the contract is told so, in words that name the fault."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unirl.rewards import Reward
from unirl.rewards.base import reaches
from unirl.testing import RewardConformance
from unirl.types import Answers, Example, Images

Faults = Callable[[object], str]


class Short(Reward):
    """One over the number of tokens: a right one, from which the broken ones differ in a line."""

    accept_threshold: float | None = 0.5

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return 1 / answers.mask.sum(1)


class OneTooFew(Short):
    def score(self, *given: Any) -> Tensor:
        return super().score(*given)[1:]


class Column(Short):
    def score(self, *given: Any) -> Tensor:
        return super().score(*given)[:, None]


class Nothing(Short):
    def score(self, *given: Any) -> Tensor:
        return None  # type: ignore[return-value]


class Listed(Short):
    def score(self, *given: Any) -> Tensor:
        return super().score(*given).tolist()  # type: ignore[return-value]


class NaN(Short):
    def score(self, *given: Any) -> Tensor:
        values = super().score(*given)
        return torch.where(values < 0.4, torch.nan, values)


class Counts(Short):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return answers.mask.sum(1)


class TooMuch(Short):
    def score(self, *given: Any) -> Tensor:
        return 3 * super().score(*given)


class Elsewhere(Short):
    def score(self, *given: Any) -> Tensor:
        return super().score(*given).to("meta")


class Companions(Short):
    def score(self, *given: Any) -> Tensor:
        values = super().score(*given)
        return values / values.max() if len(values) > 1 else values / 2


class Place(Short):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.arange(len(examples)) / len(examples)


class Padding(Short):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return answers.mask.float().mean(1)


class Chance(Short):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.rand(len(examples))


class InPlace(Short):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        answers.mask[:, 0] = False
        return 1 / answers.mask.sum(1).clamp(min=1)


class Gradient(Short):
    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight, standardize)
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.model.weight, 1.0)

    def score(self, *given: Any) -> Tensor:
        return self.model(super().score(*given)[:, None])[:, 0]


class Trainable(Gradient):
    @torch.no_grad()
    def score(self, *given: Any) -> Tensor:
        return super().score(*given)


class Undeclared(Short):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return images.pixels.mean((1, 2, 3))


class Failing(Short):
    def score(self, *given: Any) -> Tensor:
        return given[2].txt


class Peeking(Short):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return super().score(examples, images, answers) / (1 if images.pixels is None else 2)


class NoOptions(Short):
    def __init__(self) -> None:
        super().__init__()


class NoBase(Short):
    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        pass


class Forgetful(Short):
    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight)


class Odd(Short):
    def score(self, *given: Any) -> Tensor:
        if any(not text.isascii() for text in given[2].text):
            raise UnicodeError("what is this?")
        return super().score(*given)


class Stuck(Short):
    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight, standardize)
        self.rule = lambda value: value


class FloatVerdicts(Short):
    accept_threshold = None

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        return (scores > 0.4).float()


class BackwardVerdicts(Short):
    accept_threshold = None

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        return scores < 0.4


class OtherVerdicts(Short):
    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        return reaches(scores, 0.2)


class OutOfReach(Short):
    accept_threshold = 2.0


def judged(faults: Faults, kind: type[Reward]) -> str:
    class Kit(RewardConformance):
        def make(self) -> Reward:
            return kind()

    return faults(Kit())


def test_a_right_one_passes(faults: Faults) -> None:
    assert judged(faults, Short) == ""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OneTooFew, "OneTooFew.score returned shape (11,), expected a tensor (12,)"),
        (Column, "Column.score returned shape (12, 1), expected a tensor (12,)"),
        (Nothing, "Nothing.score returned None, expected a tensor (12,): one number for each of 12 samples"),
        (Listed, "Listed.score returned a list, expected a tensor"),
        (NaN, "NaN.score returned nan for the answer 'two green dogs'; it must be finite"),
        (Counts, "Counts.score returned torch.int64, expected floats: call .float()"),
        (TooMuch, "to 1.5, but the range is 0 to 1: mend it, or set low and high"),
        (Elsewhere, "Elsewhere.score returned a tensor on meta, but the answers are on cpu"),
        (Companions, "Companions.score depends on the rest of the batch"),
        (Place, "Place.score depends on the order of the batch"),
        (Padding, "Padding.score depends on the rest of the batch or on padding"),
        (Chance, "Chance.score gives other scores in a second call"),
        (InPlace, "InPlace.score changes the answers in place"),
        (Gradient, "Gradient.score returned scores with gradient: decorate it with @torch.no_grad()"),
        (Trainable, "Trainable holds a Linear with 1 trainable parameters, such as 'weight'"),
        (Undeclared, "Undeclared.score fails where pixels are None: set needs_pixels = True on the class"),
        (Failing, "Failing.score fails: AttributeError: 'Answers' object has no attribute 'txt'"),
        (Peeking, "Peeking.score looks at pixels that it does not ask for"),
        (NoOptions, "NoOptions.__init__ takes no 'weight', so no config can set it"),
        (NoBase, "NoBase.__init__ sets no 'weight': it must call super().__init__(weight, standardize)"),
        (Forgetful, "Forgetful.__init__ got standardize=True and keeps False"),
        (Odd, "Odd.score fails on the answer"),
        (Stuck, "Stuck does not survive pickle"),
        (FloatVerdicts, "FloatVerdicts.accepts returned torch.float32 (12,) on cpu, expected torch.bool (12,)"),
        (BackwardVerdicts, "BackwardVerdicts.accepts refuses a score of"),
        (OtherVerdicts, "OtherVerdicts.accepts contradicts accept = 0.5 of its own class"),
        (OutOfReach, "accept is 2 where scores end at 1: OutOfReach accepts nothing"),
    ],
)
def test_a_broken_one_is_told_what_is_wrong(faults: Faults, kind: type[Reward], message: str) -> None:
    assert message in judged(faults, kind)


def test_a_class_without_make_says_so() -> None:
    class Kit(RewardConformance):
        pass

    with pytest.raises(TypeError, match="make"):
        Kit()  # type: ignore[abstract]
