"""What the checks of a backbone share: settings, how the backbone is made, and assertions on its outputs."""

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.testing.comparison import make_generator
from unirl.types import Answers, AnswerSampling, Images, ImageSampling


class BackboneSettings:
    """Settings and helpers of `BackboneConformance`, which documents them."""

    prompts: ClassVar[Sequence[str]] = ("a photo of a red circle", "two blue square", "circle")
    questions: ClassVar[Sequence[str]] = ("what color is it ?", "how many circle are there in it ?", "what is it ?")
    answers: ClassVar[Sequence[str]] = ("red", "two circle", "blue square")
    image_sampling: ClassVar[ImageSampling] = ImageSampling(steps=4, guidance=2.0, temperature=0.7)
    answer_sampling: ClassVar[AnswerSampling] = AnswerSampling(max_tokens=6, temperature=1.0)
    tolerance: ClassVar[float] = 1e-4
    frozen_parameters: ClassVar[Sequence[str]] = ()

    def make(self) -> Backbone:
        """A new small backbone, built, with the same random weights in every call."""
        raise TypeError(f"{type(self).__name__} must define how its backbone is made: def make(self): return ...")

    def make_unbuilt(self) -> Backbone | None:
        """A backbone before `build`, for which `build(meta=True)` works. None skips the check of `build(meta=True)`."""
        return None

    @pytest.fixture
    def backbone(self) -> Backbone:
        """A new backbone for each check."""
        return self.make()

    def _sample_images(self, backbone: Backbone, sampling: ImageSampling | None = None, seed: int = 0) -> Images:
        """One image of each prompt."""
        return backbone.sample_images(list(self.prompts), sampling or self.image_sampling, make_generator(seed))

    def _sample_group(self, backbone: Backbone, size: int, seed: int = 0) -> Images:
        """Several images of one prompt, at temperature 1 and without guidance."""
        sampling = ImageSampling(self.image_sampling.steps)
        return backbone.sample_images([self.prompts[0]] * size, sampling, make_generator(seed))


def sampled_log_probs(images: Images) -> Tensor:
    """The log-probabilities (B, A) of sampled images, asserted to exist."""
    assert images.log_probs is not None, (
        "sample_images returned log_probs None; store the log-probability of each decision"
    )
    return images.log_probs


def with_pixels(backbone: Backbone, images: Images) -> Images:
    """Images as the training loop passes them to `sample_answers`: decoded where the backbone understands pixels."""
    if not backbone.understands_pixels or images.soft is not None:
        return images
    return Images(images.codes, backbone.decode(images), images.actions, images.log_probs, images.memory)


def format_shape(tensor: Tensor) -> str:
    """Shape of a tensor in messages, such as "(2, 3)"."""
    return str(tuple(tensor.shape))


def assert_answers(answers: Answers, count: int, method: str) -> None:
    """Assert that ids, mask and text of answers fit together.

    Args:
        answers: The answers.
        count: Expected number of answers.
        method: Name of the method that returned them.
    """
    ids, mask = answers.ids, answers.mask
    assert len(answers.text) == count, f"{method} returned {len(answers.text)} texts, expected {count}"
    assert _is_integer(ids), f"{method} returned ids of {ids.dtype}, expected integers"
    assert mask.dtype == torch.bool, f"{method} returned a mask of {mask.dtype}, expected torch.bool"
    assert ids.ndim == 2, f"{method} returned ids of shape {format_shape(ids)}, expected ({count}, T)"
    assert len(ids) == count, f"{method} returned ids of shape {format_shape(ids)}, expected ({count}, T)"
    assert mask.shape == ids.shape, (
        f"{method} returned a mask of shape {format_shape(mask)}, expected that of the ids, {format_shape(ids)}"
    )
    assert mask[:, 0].all(), f"{method} returned an answer without tokens; the mask must be True at the first token"
    right_padded = bool((mask[:, 1:] <= mask[:, :-1]).all())
    assert right_padded, (
        f"{method} returned answers that are not right-padded; each row of the mask must be True first, then False"
    )
    assert all(isinstance(text, str) for text in answers.text), f"{method} returned text that is not a string"


def assert_log_probs(log_probs: Tensor, expected: Tensor, method: str, name: str) -> None:
    """Assert that log-probabilities are finite floats of the expected shape, not above 0.

    Args:
        log_probs: The log-probabilities.
        expected: A tensor of the expected shape.
        method: Name of the method that returned them.
        name: Name of `expected` in messages.
    """
    assert log_probs.is_floating_point(), f"{method} returned log-probabilities of {log_probs.dtype}, expected floats"
    assert log_probs.shape == expected.shape, (
        f"{method} returned log-probabilities of shape {format_shape(log_probs)}, "
        f"expected that of {name}, {format_shape(expected)}"
    )
    assert log_probs.isfinite().all(), f"{method} returned a log-probability that is not finite"
    highest = float(log_probs.detach().max())
    assert highest <= 1e-5, f"{method} returned a log-probability of {highest:.3g}, expected at most 0"


def assert_codes(codes: Tensor, count: int) -> None:
    """Assert that image codes are integers from 0 on, of shape (count, N)."""
    assert _is_integer(codes), f"sample_images returned codes of {codes.dtype}, expected integers"
    right = codes.ndim == 2 and len(codes) == count and codes.shape[1] > 0
    expected = f"expected ({count}, N) for {count} prompts"
    assert right, f"sample_images returned codes of shape {format_shape(codes)}, {expected}"
    assert (codes >= 0).all(), f"sample_images returned the code {int(codes.min())}, expected 0 or more"


def _is_integer(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and tensor.dtype != torch.bool
