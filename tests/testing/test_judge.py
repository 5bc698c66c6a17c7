"""JudgeConformance detects errors in a judge and describes them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from unirl.callbacks.grids import to_pil
from unirl.judges import Judge, Verdict
from unirl.testing import EXAMPLES, JudgeConformance
from unirl.testing.pretend import is_supported
from unirl.types import Example

Failures = Callable[[object], str]


class RedValue(Judge):
    """Correct: an image is right if its first pixel has the red value of its prompt."""

    def red_value(self, example: Example) -> float:
        return (len(example.prompt) % 7 + 1) / 16

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        expected = torch.tensor([self.red_value(example) for example in examples], device=pixels.device)
        return ((pixels[:, 0, 0, 0] - expected).abs() < 0.01) & (pixels[:, 1, 0, 0] == 1)

    def references(self, examples: Sequence[Example]) -> Tensor | None:
        images = torch.ones(len(examples), 3, 64, 64)
        images[:, 0] = torch.tensor([self.red_value(example) for example in examples])[:, None, None]
        return images

    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        examples = [EXAMPLES[i % len(EXAMPLES)] for i in range(count)]
        images = self.references(examples)
        assert images is not None
        return examples, images


class OnDisk(RedValue):
    """Correct: its images are files, as those of `ReferenceImages`; the last prompt has none."""

    folder: ClassVar[Path]

    def references(self, examples: Sequence[Example]) -> Any:
        paths: list[str | None] = [str(self.folder / f"{i}.png") for i in range(len(examples))]
        images = RedValue.references(self, examples)
        assert images is not None
        for path, image in zip(paths, images, strict=True):
            to_pil(image).save(path)
        return [*paths[:-1], None]

    def understanding_set(self, count: int, seed: int = 0) -> Any:
        return list(EXAMPLES[:2]), self.references(EXAMPLES[:3])[:2]


class NoImages(OnDisk):
    def references(self, examples: Sequence[Example]) -> Any:
        return [None] * len(examples)


class NoFiles(OnDisk):
    def understanding_set(self, count: int, seed: int = 0) -> Any:
        return list(EXAMPLES[:2]), [str(self.folder / "none.png")] * 2


class FloatVerdicts(RedValue):
    def verdicts(self, *args: Any) -> Tensor:
        return super().verdicts(*args).float()


class ListOfVerdicts(RedValue):
    def verdicts(self, *args: Any) -> Tensor:
        return super().verdicts(*args).tolist()  # type: ignore[return-value]


class OneVerdict(RedValue):
    def verdicts(self, *args: Any) -> Tensor:
        return super().verdicts(*args).all()


class OtherDevice(RedValue):
    def verdicts(self, *args: Any) -> Tensor:
        return super().verdicts(*args).to("meta")


class BatchDependent(RedValue):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        verdicts = super().verdicts(examples, pixels)
        return verdicts & ~verdicts.all()


class PositionDependent(RedValue):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.arange(len(examples)) < 1


class InPlace(RedValue):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        verdicts = super().verdicts(examples, pixels)
        pixels.clamp_(max=0.5)
        return verdicts


class RandomVerdicts(RedValue):
    def verdicts(self, *args: Any) -> Tensor:
        verdicts = super().verdicts(*args)
        return verdicts & (torch.rand(len(verdicts)) < 0.9)


class Stateful(RedValue):
    def __init__(self) -> None:
        self.calls = 0

    def verdicts(self, *args: Any) -> Tensor:
        self.calls += 1
        return super().verdicts(*args) ^ (self.calls > 1)


class AlwaysTrue(RedValue):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.ones(len(examples), dtype=torch.bool)


class WrongReferences(RedValue):
    def references(self, examples: Sequence[Example]) -> Tensor | None:
        images = super().references(examples)
        return None if images is None else images.roll(1, 0)


class ReferencesUpTo255(RedValue):
    def references(self, examples: Sequence[Example]) -> Tensor | None:
        return torch.full((len(examples), 3, 64, 64), 255.0)


class OneReference(RedValue):
    def references(self, examples: Sequence[Example]) -> Tensor | None:
        images = super().references(examples)
        return None if images is None else images[:1]


class TooSmallSet(RedValue):
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        return super().understanding_set(count - 1, seed)


class ByteImages(RedValue):
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        return [EXAMPLES[0]] * count, torch.zeros(count, 3, 64, 64, dtype=torch.uint8)


class NoAnswers(RedValue):
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        return [Example("a ring", "what is it ?", "", "c")] * count, torch.zeros(count, 3, 64, 64)


class RandomSet(RedValue):
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        return [EXAMPLES[0]] * count, torch.rand(count, 3, 64, 64)


class MadeOnCPU(RedValue):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return super().verdicts(examples, pixels).cpu()


class Numpy(RedValue):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return super().verdicts(examples, torch.from_numpy(pixels.numpy()))


class OtherWorld(RedValue):
    def red_value(self, example: Example) -> float:
        return {"a photo of a cat": 0.5}[example.prompt]


class OtherReferences(RedValue):
    def references(self, examples: Sequence[Example]) -> Tensor | None:
        raise KeyError(examples[0].prompt)


class OtherReasons(RedValue):
    def explain(self, examples: Sequence[Example], pixels: Tensor) -> list[Verdict]:
        return [Verdict(not correct) for correct in self.verdicts(examples, pixels).tolist()]


class WordsOnly(RedValue):
    def explain(self, examples: Sequence[Example], pixels: Tensor) -> list[Any]:
        return ["too dark" for _ in examples]


class TwicePrompted(RedValue):
    def benchmark(self) -> list[Example]:
        return [EXAMPLES[0], EXAMPLES[0]]


class Percent(RedValue):
    def benchmark(self) -> list[Example]:
        return list(EXAMPLES)

    def summarize(self, examples: Sequence[Example], verdicts: Sequence[Verdict]) -> dict[str, float]:
        return {"overall": 50.0}


class NoOverall(Percent):
    def summarize(self, examples: Sequence[Example], verdicts: Sequence[Verdict]) -> dict[str, float]:
        return {"score": 0.5}


class KnownObjects(RedValue):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        assert all(example.objects[0].name != "unicorn" for example in examples)
        return super().verdicts(examples, pixels)


CASES: list[tuple[type[Judge], str]] = [
    (MadeOnCPU, "MadeOnCPU.verdicts returned a tensor on cpu for pixels on another device; return it there"),
    (Numpy, "Numpy.verdicts failed on another device than the CPU with TypeError: can't convert pretend:0 device"),
    (OtherWorld, "'a photo of a ring', 'a photo of a ring and a cross' and so on; set `examples` of the test class to"),
    (OtherReferences, "OtherReferences.references failed with KeyError: 'a photo of a ring', for the examples"),
    (KnownObjects, "check_example accepted an example with the objects (), and the judge failed with IndexError"),
    (FloatVerdicts, "FloatVerdicts.verdicts returned torch.float32, expected torch.bool (6,) on cpu"),
    (ListOfVerdicts, "ListOfVerdicts.verdicts returned a list, expected torch.bool (6,)"),
    (OneVerdict, "OneVerdict.verdicts returned shape (), expected torch.bool (6,)"),
    (OtherDevice, "OtherDevice.verdicts returned a tensor on meta, expected torch.bool (6,) on cpu"),
    (BatchDependent, "BatchDependent.verdicts returned another verdict for image"),
    (PositionDependent, "PositionDependent.verdicts returned other verdicts when the batch was reversed"),
    (InPlace, "InPlace.verdicts modified the pixels in place"),
    (RandomVerdicts, "RandomVerdicts.verdicts uses global random numbers"),
    (Stateful, "Stateful.verdicts returned other verdicts in a second call"),
    (AlwaysTrue, "AlwaysTrue.verdicts returned True for a blank image of value 0.0 and the prompt 'a photo of a ring'"),
    (WrongReferences, "WrongReferences.verdicts returned True for 0% of the images from WrongReferences.references"),
    (ReferencesUpTo255, "ReferencesUpTo255.references returned images from 255 to 255, expected [0, 1]"),
    (OneReference, "OneReference.references returned images of shape (1, 3, 64, 64), expected (6, 3, H, W)"),
    (TooSmallSet, "TooSmallSet.understanding_set(24) returned 23 examples, expected 24"),
    (ByteImages, "ByteImages.understanding_set(24) returned images of torch.uint8, expected floats in [0, 1]"),
    (NoAnswers, "for image 0, expected a unirl.Example with question and answer"),
    (OtherReasons, "OtherReasons.explain says correct="),
    (WordsOnly, "WordsOnly.explain returned a str, expected a unirl.judges.Verdict"),
    (TwicePrompted, "TwicePrompted.benchmark has the prompt 'a photo of a ring' more than once"),
    (Percent, "Percent.summarize returned {'overall': 50.0}, expected scores in [0, 1]"),
    (NoOverall, "NoOverall.summarize returned ['score'], without the score of the benchmark, 'overall'"),
    (NoImages, "NoImages.references returned no image of any of the 6 examples; set `examples` to some it has"),
    (NoFiles, "NoFiles.understanding_set(24) returned the path of what is no image: "),
    (RandomSet, "RandomSet.understanding_set(24) returned another set in a second call"),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnDisk, "folder", tmp_path, raising=False)


def failures_of(failures: Failures, kind: type[Judge]) -> str:
    class Conformance(JudgeConformance):
        def make(self) -> Judge:
            return kind()

    return failures(Conformance())


def test_checks_pass_for_a_correct_implementation(failures: Failures) -> None:
    assert failures_of(failures, RedValue) == failures_of(failures, OnDisk) == ""


@pytest.mark.skipif(not is_supported(), reason="this PyTorch has no Python backend for PrivateUse1")
def test_each_check_detects_errors(failures: Failures) -> None:
    messages = {kind: failures_of(failures, kind) for kind, _ in CASES}
    missed = [f"{message!r} is not in:\n{messages[kind]}" for kind, message in CASES if message not in messages[kind]]
    assert not missed, "\n\n".join(missed)
    failed = set(re.findall(r"^(test_\w+):", "\n".join(messages.values()), re.MULTILINE))
    checks = {name for name in dir(JudgeConformance) if name.startswith("test_")}
    assert failed == checks, f"no case fails {checks - failed}"
