"""RewardConformance detects errors in a reward and describes them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unirl.errors import UserError
from unirl.rewards import Reward
from unirl.rewards.base import reaches
from unirl.testing import RewardConformance
from unirl.testing.pretend import is_supported
from unirl.types import Answers, Example, Images

Failures = Callable[[object], str]


class Brevity(Reward):
    """Correct: 1 over the number of tokens."""

    accept_threshold: float | None = 0.5

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return 1 / answers.mask.sum(1)


class OneTooFew(Brevity):
    def score(self, *args: Any) -> Tensor:
        return super().score(*args)[1:]


class TwoDimensional(Brevity):
    def score(self, *args: Any) -> Tensor:
        return super().score(*args)[:, None]


class NoScores(Brevity):
    def score(self, *args: Any) -> Tensor:
        return None  # type: ignore[return-value]


class ListOfScores(Brevity):
    def score(self, *args: Any) -> Tensor:
        return super().score(*args).tolist()  # type: ignore[return-value]


class NaN(Brevity):
    def score(self, *args: Any) -> Tensor:
        values = super().score(*args)
        return torch.where(values < 0.4, torch.nan, values)


class IntegerScores(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return answers.mask.sum(1)


class OutOfRange(Brevity):
    def score(self, *args: Any) -> Tensor:
        return 3 * super().score(*args)


class OtherDevice(Brevity):
    def score(self, *args: Any) -> Tensor:
        return super().score(*args).to("meta")


class BatchDependent(Brevity):
    def score(self, *args: Any) -> Tensor:
        values = super().score(*args)
        return values / values.max() if len(values) > 1 else values / 2


class PositionDependent(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.arange(len(examples)) / len(examples)


class PaddingDependent(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return answers.mask.float().mean(1)


class RandomScores(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.rand(len(examples))


class InPlace(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        answers.mask[:, 0] = False
        return 1 / answers.mask.sum(1).clamp(min=1)


class Gradient(Brevity):
    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight, standardize)
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.model.weight, 1.0)

    def score(self, *args: Any) -> Tensor:
        return self.model(super().score(*args)[:, None])[:, 0]


class Trainable(Gradient):
    @torch.no_grad()
    def score(self, *args: Any) -> Tensor:
        return super().score(*args)


class UndeclaredPixels(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return images.pixels.mean((1, 2, 3))


class Failing(Brevity):
    def score(self, *args: Any) -> Tensor:
        return args[2].txt


class OptionalPixels(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return super().score(examples, images, answers) / (1 if images.pixels is None else 2)


class NoOptions(Brevity):
    def __init__(self) -> None:
        super().__init__()


class NoSuperInit(Brevity):
    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        pass


class IgnoredOption(Brevity):
    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight)


class AsciiOnly(Brevity):
    def score(self, *args: Any) -> Tensor:
        if any(not text.isascii() for text in args[2].text):
            raise UnicodeError("not ASCII")
        return super().score(*args)


class Unpicklable(Brevity):
    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight, standardize)
        self.rule = lambda value: value


class FloatAccepts(Brevity):
    accept_threshold = None

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        return (scores > 0.4).float()


class AcceptsLowScores(Brevity):
    accept_threshold = None

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        return scores < 0.4


class TwoThresholds(Brevity):
    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        return reaches(scores, 0.2)


class UnreachableThreshold(Brevity):
    accept_threshold = 2.0


class MadeOnCPU(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.tensor(super().score(examples, images, answers).tolist())


class MixedDevices(Brevity):
    def score(self, *args: Any) -> Tensor:
        return super().score(*args) * torch.ones(len(args[0]))


class NeedsAnswer(Brevity):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return super().score(examples, images, answers) / min(len(example.answer.split()) for example in examples)


class RefusesAll(Brevity):
    def check_example(self, example: Example) -> None:
        raise UserError("it has no number")


CASES: list[tuple[type[Reward], str]] = [
    (MadeOnCPU, "MadeOnCPU.score returned a tensor on cpu for answers on another device; return it there"),
    (MixedDevices, "MixedDevices.score failed on another device than the CPU with RuntimeError: Expected all tensors"),
    (OneTooFew, "OneTooFew.score returned shape (11,), expected a tensor (12,)"),
    (TwoDimensional, "TwoDimensional.score returned shape (12, 1), expected a tensor (12,)"),
    (NoScores, "NoScores.score returned None, expected a tensor (12,), one number per sample"),
    (ListOfScores, "ListOfScores.score returned a list, expected a tensor"),
    (NaN, "NaN.score returned nan for the answer 'two green dogs', expected a finite number"),
    (IntegerScores, "IntegerScores.score returned torch.int64, expected floats; call .float()"),
    (OutOfRange, "to 1.5, expected 0 to 1; correct the score, or set low and high"),
    (OtherDevice, "OtherDevice.score returned a tensor on meta, expected cpu, as the answers"),
    (BatchDependent, "for a sample alone, without padding, than in a batch"),
    (PositionDependent, "when the batch is reordered; score each sample independently"),
    (PaddingDependent, "for a sample alone, without padding, than in a batch; ignore padding and other samples"),
    (RandomScores, "in a second call; use no randomness and keep no state"),
    (InPlace, "InPlace.score modified the answers in place"),
    (Gradient, "Gradient.score returned scores with gradient; decorate it with @torch.no_grad()"),
    (Trainable, "Trainable holds a Linear with 1 trainable parameters, such as 'weight'"),
    (UndeclaredPixels, "UndeclaredPixels.score failed where pixels are None; set needs_pixels = True on the class"),
    (Failing, "Failing.score failed with AttributeError: 'Answers' object has no attribute 'txt'"),
    (OptionalPixels, "for images with pixels; set needs_pixels = True on the class"),
    (NoOptions, "NoOptions.__init__ has no parameter 'weight', so no config can set it"),
    (NoSuperInit, "NoSuperInit.__init__ did not set 'weight'; call super().__init__(weight, standardize)"),
    (IgnoredOption, "IgnoredOption.__init__ got standardize=True and set False"),
    (AsciiOnly, "AsciiOnly.score failed for the answer"),
    (
        NeedsAnswer,
        "returned [inf] for an example with {'answer': ''}, which NeedsAnswer.check_example does not refuse",
    ),
    (
        RefusesAll,
        "RefusesAll.check_example failed with UserError: it has no number, for the prompt 'a photo of a ring'",
    ),
    (Unpicklable, "Unpicklable cannot be copied by pickle"),
    (FloatAccepts, "FloatAccepts.accepts returned torch.float32 (12,) on cpu, expected torch.bool (12,)"),
    (AcceptsLowScores, "AcceptsLowScores.accepts rejects a sample with score"),
    (TwoThresholds, "TwoThresholds.accepts returned other samples than those of at least accept_threshold = 0.5"),
    (UnreachableThreshold, "UnreachableThreshold.accept_threshold is 2, but the highest score is 1"),
]


def failures_of(failures: Failures, kind: type[Reward]) -> str:
    class Conformance(RewardConformance):
        def make(self) -> Reward:
            return kind()

    return failures(Conformance())


def test_checks_pass_for_a_correct_implementation(failures: Failures) -> None:
    assert failures_of(failures, Brevity) == ""


@pytest.mark.skipif(not is_supported(), reason="this PyTorch has no Python backend for PrivateUse1")
def test_each_check_detects_errors(failures: Failures) -> None:
    messages = {kind: failures_of(failures, kind) for kind, _ in CASES}
    missed = [f"{message!r} is not in:\n{messages[kind]}" for kind, message in CASES if message not in messages[kind]]
    assert not missed, "\n\n".join(missed)
    failed = set(re.findall(r"^(test_\w+):", "\n".join(messages.values()), re.MULTILINE))
    checks = {name for name in dir(RewardConformance) if name.startswith("test_")}
    assert failed == checks, f"no case fails {checks - failed}"


def test_missing_make_is_an_error() -> None:
    class Conformance(RewardConformance):
        pass

    with pytest.raises(TypeError, match="make"):
        Conformance()  # type: ignore[abstract]
