"""What all checks of a backbone share: how it is made, what it is asked, and how a fault is told."""

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.types import Answers, AnswerSampling, Images, ImageSampling


def require(holds: bool, fault: str) -> None:
    """Fail the check with one plain sentence.

    Args:
        holds: What should be true.
        fault: Which method is at fault, and what is wrong.
    """
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(fault)


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of a known state."""
    return torch.Generator().manual_seed(seed)


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite where shapes differ or a number is none."""
    if one.shape != other.shape:
        return float("inf")
    difference = (one.detach().double() - other.detach().double()).abs()
    return float(difference.nan_to_num(nan=float("inf")).max()) if difference.numel() else 0.0


def shape(tensor: Tensor) -> str:
    """As a message shows it."""
    return str(tuple(tensor.shape))


class Checks:
    """Settings and helpers; `BackboneConformance` explains them."""

    prompts: ClassVar[Sequence[str]] = ("a photo of a red circle", "two blue square", "circle")
    questions: ClassVar[Sequence[str]] = ("what color is it ?", "how many circle are there in it ?", "what is it ?")
    answers: ClassVar[Sequence[str]] = ("red", "two circle", "blue square")
    sampling: ClassVar[ImageSampling] = ImageSampling(steps=4, guidance=2.0, temperature=0.7)
    answering: ClassVar[AnswerSampling] = AnswerSampling(max_tokens=6, temperature=1.0)
    tolerance: ClassVar[float] = 1e-4
    frozen: ClassVar[Sequence[str]] = ()

    def make(self) -> Backbone:
        """A fresh backbone: built, small, with the same random weights every time."""
        raise TypeError(f"{type(self).__name__} must say how its backbone is made: def make(self): return ...")

    def make_unbuilt(self) -> Backbone | None:
        """One that `build` was not called on, and whose `build(meta=True)` works; None leaves these checks out."""
        return None

    @pytest.fixture
    def backbone(self) -> Backbone:
        return self.make()

    def generate(self, backbone: Backbone, sampling: ImageSampling | None = None, seed: int = 0) -> Images:
        """One drawing of each prompt."""
        return backbone.sample_images(list(self.prompts), sampling or self.sampling, seeded(seed))

    def kept(self, images: Images) -> Tensor:
        """The log-probabilities of a drawing."""
        require(images.log_probs is not None, "sample_images: log_probs are None; keep those of each decision")
        assert images.log_probs is not None
        return images.log_probs

    def seen(self, backbone: Backbone, images: Images) -> Images:
        """What is asked about: with pixels, where questions are answered from them."""
        return with_pixels(backbone, images)

    def group(self, backbone: Backbone, size: int = 8, seed: int = 0) -> Images:
        """Several drawings of one prompt, at temperature 1 and without guidance."""
        return backbone.sample_images([self.prompts[0]] * size, ImageSampling(self.sampling.steps), seeded(seed))


def with_pixels(backbone: Backbone, images: Images) -> Images:
    """As the training loop does it: a drawing is decoded once, before it is asked about."""
    if not backbone.understands_pixels or images.soft is not None:
        return images
    return Images(images.codes, backbone.decode(images), images.actions, images.log_probs, images.memory)


def check_answers(answers: Answers, count: int, method: str) -> None:
    """Ids, mask and text of some answers."""
    ids, mask = answers.ids, answers.mask
    require(len(answers.text) == count, f"{method}: {len(answers.text)} texts for {count} answers")
    require(
        not ids.is_floating_point() and ids.dtype != torch.bool, f"{method}: ids are {ids.dtype}, expected integers"
    )
    require(mask.dtype == torch.bool, f"{method}: the mask is {mask.dtype}, expected torch.bool")
    require(ids.ndim == 2 and len(ids) == count, f"{method}: ids have shape {shape(ids)}, expected ({count}, T)")
    require(mask.shape == ids.shape, f"{method}: the mask has shape {shape(mask)}, the ids {shape(ids)}")
    require(bool(mask[:, 0].all()), f"{method}: the mask leaves an answer without any token")
    falling = bool((mask[:, 1:] <= mask[:, :-1]).all())
    require(falling, f"{method}: answers are not right-padded; the mask must be True first, then False")
    require(all(isinstance(text, str) for text in answers.text), f"{method}: text holds something other than strings")


def check_log_probs(log_probs: Tensor, expected: Tensor, method: str, what: str) -> None:
    """Log-probabilities have a shape, are finite and not above 0."""
    require(log_probs.is_floating_point(), f"{method}: log-probabilities are {log_probs.dtype}, expected floats")
    same = log_probs.shape == expected.shape
    require(
        same, f"{method}: log-probabilities have shape {shape(log_probs)}, expected that of {what}, {shape(expected)}"
    )
    require(bool(log_probs.isfinite().all()), f"{method}: a log-probability is not finite")
    top = float(log_probs.detach().max())
    require(top <= 1e-5, f"{method}: a log-probability is {top:.3g}; none can be above 0")
