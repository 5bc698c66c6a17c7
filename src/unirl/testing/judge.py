"""The conformance class of judges."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.errors import UserError
from unirl.image_files import open_image
from unirl.judges.base import Judge, Verdict
from unirl.testing.comparison import describe_type, global_rng_state, is_equal, method_name, seed_global_rngs
from unirl.testing.devices import ADVICE, on_pretend_device
from unirl.testing.samples import EXAMPLES, make_images
from unirl.types import Example, Item


class JudgeConformance(ABC):
    """Checks the contract of a judge. Derive a test class from it and define `make`.

    A failed check names the method, what it returned and what is expected. A judge that does not know the shapes of
    `unirl.testing.EXAMPLES` sets `examples` of the test class.

    Example:
        >>> from unirl_shapes.judge import ShapesJudge
        >>> class TestShapes(JudgeConformance):
        ...     def make(self):
        ...         return ShapesJudge()
        >>> TestShapes().test_references_are_correct()
    """

    examples: ClassVar[tuple[Example, ...]] = EXAMPLES
    """Examples that the judge understands: those of shapes by default, so a judge of another world sets its own.

    Blank images are checked with those of the category "single_object".
    """
    image_size: ClassVar[int] = 64
    """Height and width of the images, in pixels."""
    device: ClassVar[str] = "cpu"
    """Device of the images."""
    num_understanding: ClassVar[int] = 24
    """Size of the understanding set."""
    min_accuracy: ClassVar[float] = 0.99
    """Fraction of its own references that the judge must call correct."""

    @abstractmethod
    def make(self) -> Judge:
        """A new judge."""

    def _verdicts(self, judge: Judge, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        """What the judge returns; a failure becomes an AssertionError that says what to set."""
        try:
            return judge.verdicts(examples, pixels)
        except Exception as error:
            raise AssertionError(self._failure(method_name(judge, "verdicts"), error)) from error

    def _references(self, judge: Judge) -> Tensor | Sequence[str | None] | None:
        """The judge's images of `examples`; a failure becomes an AssertionError that says what to set."""
        try:
            return judge.references(self.examples)
        except Exception as error:
            raise AssertionError(self._failure(method_name(judge, "references"), error)) from error

    def _failure(self, method: str, error: Exception) -> str:
        prompts = ", ".join(repr(example.prompt) for example in self.examples[:2])
        return (
            f"{method} failed with {type(error).__name__}: {error}, for the examples {prompts} and so on; set "
            "`examples` of the test class to examples that the judge understands"
        )

    def make_pixels(self) -> Tensor:
        """An image for each example: its reference, another example's reference and noise in turn, or noise only.

        Shapes:
            returns (B, 3, H, W) in [0, 1].
        """
        pixels = make_images(len(self.examples), image_size=self.image_size).pixels
        references = self._references(self.make())
        assert pixels is not None
        if isinstance(references, Tensor) and references.shape[0] == len(pixels):
            noise = F.interpolate(pixels, size=references.shape[2:])
            sources = (references, references.roll(1, 0), noise.to(references))
            pixels = torch.stack([sources[i % 3][i] for i in range(len(noise))])
        return pixels.to(self.device)

    def test_verdicts_return_one_bool_per_image(self) -> None:
        """Verdicts are a bool tensor (B,) on the device of the pixels."""
        judge, pixels = self.make(), self.make_pixels()
        assert isinstance(judge, Judge), f"make returned {describe_type(judge)}, expected a unirl.judges.Judge"
        verdicts: object = self._verdicts(judge, self.examples, pixels)
        method, expected = method_name(judge, "verdicts"), f"expected torch.bool ({len(pixels)},) on {pixels.device}"
        assert isinstance(verdicts, Tensor), f"{method} returned {describe_type(verdicts)}, {expected}"
        assert verdicts.dtype == torch.bool, f"{method} returned {verdicts.dtype}, {expected}"
        assert verdicts.shape == (len(pixels),), f"{method} returned shape {tuple(verdicts.shape)}, {expected}"
        assert verdicts.device == pixels.device, f"{method} returned a tensor on {verdicts.device}, {expected}"

    def test_verdicts_on_another_device(self) -> None:
        """On another device than the CPU, verdicts are equal, and on that device."""
        judge, pixels = self.make(), self.make_pixels()
        expected, method = self._verdicts(judge, self.examples, pixels).cpu(), method_name(judge, "verdicts")
        with on_pretend_device(judge) as accelerator:
            try:
                verdicts = judge.verdicts(self.examples, pixels.to(accelerator.device))
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                raise AssertionError(
                    f"{method} failed on another device than the CPU with {cause}; {ADVICE}"
                ) from error
            assert verdicts.device == accelerator.device, (
                f"{method} returned a tensor on {verdicts.device} for pixels on another device; return it there"
            )
            assert torch.equal(verdicts.cpu(), expected), f"{method} returned other verdicts on another device"

    def test_verdicts_do_not_depend_on_the_batch(self) -> None:
        """Each image gets the same verdict alone and in a batch."""
        judge, pixels = self.make(), self.make_pixels()
        verdicts, method = self._verdicts(judge, self.examples, pixels), method_name(judge, "verdicts")
        reversed_order = self._verdicts(judge, self.examples[::-1], pixels.flip(0))
        assert torch.equal(verdicts.flip(0), reversed_order), (
            f"{method} returned other verdicts when the batch was reversed; judge each image independently"
        )
        alone = [self._verdicts(judge, [example], pixels[i : i + 1]) for i, example in enumerate(self.examples)]
        different = (torch.cat(alone) != verdicts).nonzero().flatten().tolist()
        assert not different, (
            f"{method} returned another verdict for image {different[0]} alone than in a batch; judge each image "
            "independently"
        )

    def test_verdicts_are_deterministic(self) -> None:
        """Verdicts use no random numbers and no state."""
        judge, pixels = self.make(), self.make_pixels()
        seed_global_rngs(0)
        before = global_rng_state()
        verdicts, method = self._verdicts(judge, self.examples, pixels), method_name(judge, "verdicts")
        assert is_equal(before, global_rng_state()), (
            f"{method} uses global random numbers; the same image must always get the same verdict"
        )
        repeated = self._verdicts(judge, self.examples, pixels)
        assert torch.equal(verdicts, repeated), f"{method} returned other verdicts in a second call; keep no state"
        recreated = self._verdicts(self.make(), self.examples, pixels)
        assert torch.equal(verdicts, recreated), f"{method} of a second judge from make returned other verdicts"

    def test_verdicts_do_not_modify_pixels(self) -> None:
        """Pixels stay as they are."""
        judge, pixels = self.make(), self.make_pixels()
        before = pixels.clone()
        self._verdicts(judge, self.examples, pixels)
        method = method_name(judge, "verdicts")
        assert is_equal(before, pixels), f"{method} modified the pixels in place; clone them first"

    def test_what_is_not_refused_is_judged(self) -> None:
        """`check_example` refuses with a `UserError` what cannot be judged, and nothing of `examples`."""
        judge, pixels = self.make(), self.make_pixels()
        method, first = method_name(judge, "check_example"), self.examples[0]
        for example in self.examples:
            try:
                judge.check_example(example)
            except Exception as error:
                raise AssertionError(self._failure(method, error)) from error
        names = [item.name for item in first.objects[:1]]
        items = [Item("unicorn"), *(Item(name, color="mauve") for name in names), *(Item(name, 50) for name in names)]
        for objects in ((), *((item,) for item in items)):
            example = replace(first, objects=objects)
            try:
                judge.check_example(example)
            except UserError:
                continue
            try:
                judge.verdicts([example], pixels[:1])
                judge.references([example])
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                raise AssertionError(
                    f"{method} accepted an example with the objects {objects}, and the judge failed with {cause}; "
                    "refuse it there with a UserError"
                ) from error

    def test_blank_images_are_wrong(self) -> None:
        """A blank image never shows an object."""
        judge = self.make()
        examples = [example for example in self.examples if example.category == "single_object"]
        if not examples:
            pytest.skip("no example has the category single_object")
        for gray in (0.0, 0.5, 1.0):
            blank = torch.full(
                (len(examples), 3, self.image_size, self.image_size), gray, dtype=torch.float32, device=self.device
            )
            correct = self._verdicts(judge, examples, blank).nonzero().flatten().tolist()
            assert not correct, (
                f"{method_name(judge, 'verdicts')} returned True for a blank image of value {gray} and the prompt "
                f"{examples[correct[0]].prompt!r}, expected False"
            )

    def test_references_are_correct(self) -> None:
        """The judge calls its own reference images correct."""
        judge = self.make()
        references: object = self._references(judge)
        if references is None:
            pytest.skip("references returns None")
        method = method_name(judge, "references")
        repeated = self._references(judge)
        assert is_equal(references, repeated), f"{method} returned other images in a second call; seed its randomness"
        given = _checked_images(references, len(self.examples), method, may_lack=True)
        pairs = [pair for pair in zip(self.examples, given, strict=True) if pair[1] is not None]
        assert pairs, f"{method} returned no image of any of the {len(given)} examples; set `examples` to some it has"
        verdicts = [self._verdicts(judge, [one], image.to(self.device)) for one, image in pairs if image is not None]
        accuracy = torch.cat(verdicts).float().mean().item()
        assert accuracy >= self.min_accuracy, (
            f"{method_name(judge, 'verdicts')} returned True for {accuracy:.0%} of the images from {method}, expected "
            f"at least {self.min_accuracy:.0%}; one of the two is wrong"
        )

    def test_understanding_set_is_complete(self) -> None:
        """The understanding set has valid pixels, questions and answers, and is reproducible."""
        judge, count = self.make(), self.num_understanding
        result: Any = judge.understanding_set(count)
        if result is None:
            pytest.skip("understanding_set returns None")
        method = f"{method_name(judge, 'understanding_set')}({count})"
        pair = isinstance(result, tuple) and len(result) == 2
        assert pair, f"{method} returned {describe_type(result)}, expected a tuple (examples, pixels)"
        examples, images = result
        is_file_based = not isinstance(images, Tensor)
        right = 0 < len(examples) <= count if is_file_based else len(examples) == count
        assert right, f"{method} returned {len(examples)} examples, expected {count}"
        _checked_images(images, len(examples), method)
        for i, example in enumerate(examples):
            complete = isinstance(example, Example) and example.question.strip() and example.answer.strip()
            assert complete, (
                f"{method} returned {example!r} for image {i}, expected a unirl.Example with question and answer"
            )
        seed_global_rngs(1)
        repeated = self.make().understanding_set(count)
        assert is_equal(result, repeated), f"{method} returned another set in a second call; seed it with `seed`"

    def test_explanations_agree_with_verdicts(self) -> None:
        """`explain` gives a `unirl.judges.Verdict` for each image, which is what `verdicts` says."""
        judge, pixels = self.make(), self.make_pixels()
        verdicts, method = self._verdicts(judge, self.examples, pixels).tolist(), method_name(judge, "explain")
        explained: Any = judge.explain(self.examples, pixels)
        for i, (one, correct) in enumerate(zip(explained, verdicts, strict=True)):
            assert isinstance(one, Verdict), f"{method} returned {describe_type(one)}, expected a unirl.judges.Verdict"
            assert one.correct == correct, (
                f"{method} says correct={one.correct} for image {i}, and verdicts says {correct}; let one of them call "
                "the other"
            )

    def test_a_benchmark_is_always_the_same(self) -> None:
        """The benchmark's prompts are different ones, always the same, and its scores are in [0, 1]."""
        examples, method = list(self.make().benchmark()), method_name(self.make(), "benchmark")
        if not examples:
            pytest.skip("benchmark returns nothing")
        seed_global_rngs(1)
        assert examples == list(self.make().benchmark()), f"{method} returned other examples in a second call"
        twice = [prompt for prompt, count in Counter(one.prompt for one in examples).items() if count > 1]
        assert not twice, f"{method} has the prompt {twice[0]!r} more than once; results are by prompt"
        verdicts = [Verdict(i % 2 == 0) for i in range(len(examples))]
        method = method_name(self.make(), "summarize")
        scores: Any = self.make().summarize(examples, verdicts)
        assert "overall" in scores, f"{method} returned {sorted(scores)}, without the score of the benchmark, 'overall'"
        outside = {name: value for name, value in scores.items() if not 0 <= value <= 1}
        assert not outside, f"{method} returned {outside}, expected scores in [0, 1]"


def _checked_images(images: object, count: int, method: str, may_lack: bool = False) -> Sequence[Tensor | None]:
    """Images (1, 3, H, W) in [0, 1], of a tensor or of files, with None for missing ones where these are allowed."""
    if not isinstance(images, list | tuple):
        return _checked_pixels(images, count, method).split(1)
    assert len(images) == count, f"{method} returned {len(images)} paths, expected {count}"
    opened: list[Tensor | None] = []
    for path in images:
        assert isinstance(path, str) or (path is None and may_lack), f"{method} returned {path!r}, expected a path"
        try:
            opened.append(None if path is None else _read(path))
        except UserError as error:
            raise AssertionError(f"{method} returned the path of what is no image: {error}") from error
    return opened


def _read(path: str) -> Tensor:
    image = open_image(path)
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return levels.view(1, image.height, image.width, 3).permute(0, 3, 1, 2) / 255


def _checked_pixels(pixels: object, count: int, method: str) -> Tensor:
    """Pixels, asserted to be floats (count, 3, H, W) in [0, 1]."""
    assert isinstance(pixels, Tensor), f"{method} returned {describe_type(pixels)} for images, expected a tensor"
    shape = tuple(pixels.shape)
    right = pixels.ndim == 4 and shape[:2] == (count, 3)
    assert right, f"{method} returned images of shape {shape}, expected ({count}, 3, H, W)"
    assert pixels.is_floating_point(), f"{method} returned images of {pixels.dtype}, expected floats in [0, 1]"
    low, high = pixels.min().item(), pixels.max().item()
    assert 0 <= low <= high <= 1, f"{method} returned images from {low:g} to {high:g}, expected [0, 1]"
    return pixels
