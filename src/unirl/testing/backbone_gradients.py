"""Gradients: where they are promised, and nowhere else."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.testing.backbone_base import Checks, gap, require, seeded
from unirl.types import Images


def reached(backbone: Backbone, loss: Tensor) -> list[str]:
    """Names of the parameters that a loss has a gradient for, other than 0."""
    named = [(name, p) for name, p in backbone.named_parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return [name for (name, _), slope in zip(named, slopes, strict=True) if slope is not None and slope.abs().sum() > 0]


class GradientChecks(Checks):
    """Who learns from what."""

    def test_sampling_carries_no_gradient(self, backbone: Backbone) -> None:
        images = self.generate(backbone)
        answers = backbone.sample_answers(self.seen(backbone, images), list(self.questions), self.answering, seeded())
        given = backbone.encode(backbone.decode(images).detach())
        for method, values in {
            "sample_images": [images.codes, images.log_probs, images.actions, *images.memory.values()],
            "sample_answers": [answers.log_probs],
            "encode": [given.codes, given.pixels, *given.memory.values()],
        }.items():
            carries = any(value is not None and value.requires_grad for value in values)
            require(not carries, f"{method}: what it returns carries gradient; put it under torch.no_grad()")

    def test_drawing_learns_from_its_scores(self, backbone: Backbone) -> None:
        images = self.generate(backbone)
        log_probs, _ = backbone.image_log_probs(list(self.prompts), images, self.sampling)
        self._teaches(backbone, log_probs, "image_log_probs")
        log_probs, _ = backbone.image_log_likelihood(list(self.prompts), images, self.sampling, 1, seeded())
        self._teaches(backbone, log_probs, "image_log_likelihood")

    def test_answering_learns_from_its_scores(self, backbone: Backbone) -> None:
        images, given = self.seen(backbone, self.generate(backbone)), backbone.tokenize_answers(list(self.answers))
        log_probs = backbone.answer_log_probs(images, list(self.questions), given)
        self._teaches(backbone, log_probs, "answer_log_probs")

    def _teaches(self, backbone: Backbone, log_probs: Tensor, method: str) -> None:
        require(log_probs.requires_grad, f"{method}: its log-probabilities carry no gradient")
        names = reached(backbone, log_probs.sum())
        require(bool(names), f"{method}: its gradient reaches no trainable parameter")
        wrong = [name for name in names if any(part in name for part in self.frozen)]
        require(not wrong, f"{method}: its gradient reaches {wrong and wrong[0]!r}, which must be frozen")

    def test_the_image_tokenizer_is_frozen(self, backbone: Backbone) -> None:
        images = self.generate(backbone)
        pixels = backbone.decode(images)
        trained = reached(backbone, pixels.sum()) if pixels.requires_grad else []
        require(
            not pixels.requires_grad,
            f"decode: pixels of hard codes carry gradient{f' to {trained[0]!r}' if trained else ''}; the image "
            "tokenizer must be frozen (requires_grad_(False))",
        )
        for part in self.frozen:
            found = [p for name, p in backbone.named_parameters() if part in name]
            require(bool(found), f"frozen: no parameter's name contains {part!r}")
            require(not any(p.requires_grad for p in found), f"build: {part!r} must be frozen (requires_grad_(False))")

    def test_relaxed_codes_carry_gradient(self, backbone: Backbone) -> None:
        if not backbone.supports_straight_through:
            pytest.skip("supports_straight_through is False")
        images, questions = self.generate(backbone), list(self.questions)
        relaxed = self._relaxed(backbone, images)
        given = backbone.tokenize_answers(list(self.answers))
        log_probs = backbone.answer_log_probs(relaxed, questions, given)
        assert relaxed.soft is not None
        (slope,) = torch.autograd.grad(log_probs.sum(), relaxed.soft, retain_graph=True, allow_unused=True)
        lost = slope is None or not slope.abs().sum()
        require(not lost, "answer_log_probs: its gradient does not reach soft codes")
        drawing = reached(backbone, (relaxed.soft * slope).sum())
        require(bool(drawing), "relax: the gradient of soft codes reaches no trainable parameter")
        off = gap(log_probs, backbone.answer_log_probs(self.seen(backbone, images), questions, given))
        require(
            off <= self.tolerance,
            f"answer_log_probs: soft codes score otherwise than the hard ones they equal (by {off:.2g} nats)",
        )

    def test_soft_codes_decode_to_the_same_picture_with_gradient(self, backbone: Backbone) -> None:
        if not backbone.supports_straight_through:
            pytest.skip("supports_straight_through is False")
        images = self.generate(backbone)
        relaxed = self._relaxed(backbone, images)
        assert relaxed.soft is not None
        soft = relaxed.soft.detach().requires_grad_()
        pixels = backbone.decode(dataclasses.replace(relaxed, soft=soft))
        off = gap(pixels, backbone.decode(images))
        require(off <= 1e-3, f"decode: soft codes give another picture than the hard ones they equal (by {off:.2g})")
        require(pixels.requires_grad, "decode: pixels of soft codes carry no gradient")
        (slope,) = torch.autograd.grad(pixels.sum(), soft, retain_graph=True, allow_unused=True)
        require(slope is not None, "decode: the gradient of pixels does not reach soft codes")
        wrong = reached(backbone, pixels.sum())
        require(not wrong, f"decode: its gradient reaches {wrong and wrong[0]!r}; the image tokenizer must be frozen")

    def _relaxed(self, backbone: Backbone, images: Images) -> Images:
        relaxed = backbone.straight_through(list(self.prompts), images, self.sampling, 1.0, None, seeded(1))
        require(relaxed.soft is not None, "relax: soft is None, expected straight-through codes (B, N, K)")
        assert relaxed.soft is not None
        soft, codes = relaxed.soft, images.codes
        right = soft.ndim == 3 and soft.shape[:2] == codes.shape
        require(right, f"relax: soft has shape {tuple(soft.shape)}, expected {(*codes.shape, 'K')}")
        hard = F.one_hot(codes, soft.shape[-1]).to(soft.dtype)
        off = gap(soft, hard)
        require(off <= 1e-4, f"relax: soft codes are not the one-hot vectors of images.codes (off by {off:.2g})")
        require(soft.requires_grad, "relax: soft codes carry no gradient")
        return relaxed

    def test_a_backbone_without_soft_codes_says_so(self, backbone: Backbone) -> None:
        if backbone.supports_straight_through:
            pytest.skip("supports_straight_through is True")
        name = type(backbone).__name__
        try:
            backbone.straight_through(list(self.prompts), self.generate(backbone), self.sampling)
        except (TypeError, UserError) as error:
            require(name in str(error), f"relax: refuses without saying that it is {name} which cannot ({error})")
            return
        raise AssertionError("relax: returns something, though supports_straight_through is False")
