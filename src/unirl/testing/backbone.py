"""The conformance class of backbones, with the checks of shapes, state and gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.testing.backbone_device import DeviceChecks
from unirl.testing.backbone_lengths import LengthChecks
from unirl.testing.backbone_sampling import SamplingChecks
from unirl.testing.backbone_settings import (
    assert_answers,
    assert_codes,
    assert_log_probs,
    format_shape,
    sampled_log_probs,
    with_pixels,
)
from unirl.testing.backbone_weights import WeightChecks
from unirl.testing.comparison import make_generator, max_difference
from unirl.types import Images


class BackboneConformance(SamplingChecks, WeightChecks, LengthChecks, DeviceChecks):
    """Checks the contract of a backbone. Derive a test class from it and define `make`.

    A failed check names the method, what it returned and what is expected. `test_sharded_model_matches_unsharded`
    starts processes and takes seconds; `pytest -k "not sharded"` leaves it out.

    Attributes:
        prompts: Three or more different prompts of different lengths, in words that the model knows.
        questions: One question for each prompt.
        answers: One target answer for each prompt, all different, in words that the model can generate.
        image_sampling: How images are sampled. Its guidance (0 where the model has none) and its temperature are
            checked together, each alone, and against guidance 0 and temperature 1.
        answer_sampling: How answers are sampled.
        tolerance: Largest difference of log-probabilities of the same decision, in nats.
        frozen_parameters: Parts of the names of parameters that must be frozen, such as "image_tokenizer".

    Example:
        >>> class TestTiny(BackboneConformance):
        ...     frozen_parameters = ("image_tokenizer",)
        ...
        ...     def make(self):
        ...         backbone = TinyBackbone()
        ...         backbone.build()
        ...         return backbone
        ...
        ...     def make_unbuilt(self):
        ...         return TinyBackbone()
    """

    # --- shapes, dtypes and ranges ---

    def test_sample_images_returns_codes_actions_and_log_probs(self, backbone: Backbone) -> None:
        """Codes, actions, log-probabilities and memory have one row per prompt, and valid dtypes and values."""
        images, count = self._sample_images(backbone), len(self.prompts)
        name = type(images).__name__
        assert isinstance(images, Images), f"sample_images returned a {name}, expected unirl.Images"
        assert_codes(images.codes, count)
        log_probs, actions = sampled_log_probs(images), images.actions
        assert actions is not None, "sample_images returned actions None; store the decisions that log_probs belong to"
        assert len(actions) == count, (
            f"sample_images returned actions of shape {format_shape(actions)}, expected ({count}, A)"
        )
        assert_log_probs(log_probs, actions, "sample_images", "actions")
        for key, value in images.memory.items():
            rows = len(value) if value.ndim else 0
            assert rows == count, (
                f"sample_images returned memory {key!r} with {rows} rows, expected {count}, one per image"
            )

    def test_image_log_probs_returns_log_probs_and_mask(self, backbone: Backbone) -> None:
        """Log-probabilities have the shape of the sampled ones, and the mask is True everywhere."""
        images = self._sample_images(backbone)
        result: object = backbone.image_log_probs(list(self.prompts), images, self.image_sampling)
        assert isinstance(result, tuple), (
            f"image_log_probs returned a {type(result).__name__}, expected (log_probs, mask)"
        )
        assert len(result) == 2, f"image_log_probs returned {len(result)} values, expected (log_probs, mask)"
        log_probs, mask = result
        assert_log_probs(log_probs, sampled_log_probs(images), "image_log_probs", "images.log_probs")
        assert mask.dtype == torch.bool, f"image_log_probs returned a mask of {mask.dtype}, expected torch.bool"
        assert mask.shape == log_probs.shape, (
            f"image_log_probs returned a mask of shape {format_shape(mask)}, expected {format_shape(log_probs)}"
        )
        assert mask.all(), (
            "image_log_probs returned a mask with False; without a number of steps it scores all decisions"
        )

    @torch.no_grad()
    def test_image_log_likelihood_weights_sum_to_one(self, backbone: Backbone) -> None:
        """The weights of each image sum to 1 in expectation."""
        method, count = "image_log_likelihood", 64
        images, prompts = self._sample_group(backbone, count), [self.prompts[0]] * count
        log_probs, weights = backbone.image_log_likelihood(prompts, images, self.image_sampling, 2, make_generator())
        assert_log_probs(log_probs, weights, method, "the weights")
        assert len(log_probs) == count, f"{method} returned {len(log_probs)} rows, expected {count}, one per image"
        assert (weights >= 0).all(), f"{method} returned a weight of {float(weights.min()):.3g}, expected 0 or more"
        total = weights.sum(1)
        mean, standard_error = float(total.mean()), float(total.std()) / count**0.5
        # With random masks the sum is 1 in expectation only.
        assert abs(mean - 1) <= 5 * standard_error + 1e-4, (
            f"{method} returned weights that sum to {mean:.4g} per image on average, expected 1"
        )

    def test_decode_returns_pixels_between_0_and_1(self, backbone: Backbone) -> None:
        """Pixels are floats (B, 3, H, W) in [0, 1]."""
        pixels = backbone.decode(self._sample_images(backbone)).detach()
        right = pixels.ndim == 4 and pixels.shape[:2] == (len(self.prompts), 3)
        expected = f"expected ({len(self.prompts)}, 3, H, W)"
        assert right, f"decode returned pixels of shape {format_shape(pixels)}, {expected}"
        assert pixels.is_floating_point(), f"decode returned pixels of {pixels.dtype}, expected floats in [0, 1]"
        low, high = float(pixels.min()), float(pixels.max())
        assert 0 <= low <= high <= 1, f"decode returned pixels from {low:.3g} to {high:.3g}, expected [0, 1]"

    def test_encode_accepts_external_images(self, backbone: Backbone) -> None:
        """Questions can be answered about images that the model did not generate."""
        count = len(self.questions)
        pixels = backbone.decode(self._sample_images(backbone)).detach()[:1].repeat(count, 1, 1, 1)
        images = backbone.encode(pixels)
        assert len(images) == count, f"encode returned {len(images)} images, expected {count}"
        answers = backbone.sample_answers(images, list(self.questions), self.answer_sampling, make_generator())
        assert_answers(answers, count, "sample_answers, about images from encode,")

    def test_sample_answers_returns_ids_mask_and_text(self, backbone: Backbone) -> None:
        """Ids, mask, text and log-probabilities fit together, and `max_tokens` is respected."""
        images = with_pixels(backbone, self._sample_images(backbone))
        answers = backbone.sample_answers(images, list(self.questions), self.answer_sampling, make_generator())
        assert_answers(answers, len(self.questions), "sample_answers")
        longest, most = answers.ids.shape[1], self.answer_sampling.max_tokens
        assert longest <= most, f"sample_answers returned an answer of {longest} tokens, but max_tokens is {most}"
        assert answers.log_probs is not None, (
            "sample_answers returned log_probs None; store the log-probability of each token"
        )
        assert_log_probs(answers.log_probs, answers.ids, "sample_answers", "the ids")

    def test_answer_log_probs_match_the_token_shape(self, backbone: Backbone) -> None:
        """Log-probabilities have the shape of the ids, and are 0 outside the mask."""
        images = with_pixels(backbone, self._sample_images(backbone))
        answers = backbone.tokenize_answers(list(self.answers))
        log_probs = backbone.answer_log_probs(images, list(self.questions), answers)
        assert_log_probs(log_probs, answers.ids, "answer_log_probs", "the ids")
        padding = log_probs[~answers.mask]
        assert (padding == 0).all(), (
            "answer_log_probs returned log-probabilities other than 0 outside the mask; multiply by answers.mask"
        )

    # --- state ---

    def test_methods_do_not_change_the_model(self, backbone: Backbone) -> None:
        """Weights, gradients, `requires_grad` and train or eval mode stay as they are."""
        prompts, questions = list(self.prompts), list(self.questions)
        images = self._sample_images(backbone)
        inputs = with_pixels(backbone, images)
        pixels, answers = backbone.decode(images).detach(), backbone.tokenize_answers(list(self.answers))
        calls: dict[str, Callable[[], Any]] = {
            "sample_images": lambda: self._sample_images(backbone),
            "image_log_probs": lambda: backbone.image_log_probs(prompts, images, self.image_sampling),
            "decode": lambda: backbone.decode(images),
            "encode": lambda: backbone.encode(pixels),
            "sample_answers": lambda: backbone.sample_answers(
                inputs, questions, self.answer_sampling, make_generator()
            ),
            "answer_log_probs": lambda: backbone.answer_log_probs(inputs, questions, answers),
        }
        for training in (True, False):
            backbone.train(training)
            before = _model_state(backbone)
            for method, call in calls.items():
                call()
                for what, values in _model_state(backbone).items():
                    changed = [name for name, value in values.items() if before[what].get(name) != value]
                    assert not changed, (
                        f"{method} changes {what} of {changed[0] or 'the model'}; restore it before returning"
                    )

    @torch.no_grad()
    def test_train_and_eval_mode_agree(self, backbone: Backbone) -> None:
        """Train and eval mode give the same images and log-probabilities."""
        advice = "switch dropout off, because sampled images are scored in train mode"
        images, other = self._sample_images(backbone.train()), self._sample_images(backbone.eval())
        assert torch.equal(images.codes, other.codes), (
            f"sample_images returned different images in train and eval mode; {advice}"
        )
        in_train, in_eval = (
            backbone.train(training).image_log_probs(list(self.prompts), images, self.image_sampling)[0]
            for training in (True, False)
        )
        difference = max_difference(in_train, in_eval)
        assert difference <= self.tolerance, (
            f"image_log_probs returned values that differ by {difference:.2g} nats in train and eval mode; {advice}"
        )

    # --- gradients ---

    def test_sampling_is_without_gradient(self, backbone: Backbone) -> None:
        """Sampled images, sampled answers and encoded images carry no gradient."""
        images = self._sample_images(backbone)
        inputs = with_pixels(backbone, images)
        answers = backbone.sample_answers(inputs, list(self.questions), self.answer_sampling, make_generator())
        encoded = backbone.encode(backbone.decode(images).detach())
        for method, tensors in {
            "sample_images": [images.codes, images.log_probs, images.actions, *images.memory.values()],
            "sample_answers": [answers.log_probs],
            "encode": [encoded.codes, encoded.pixels, *encoded.memory.values()],
        }.items():
            has_gradient = any(tensor is not None and tensor.requires_grad for tensor in tensors)
            assert not has_gradient, f"{method} returned a tensor with gradient; decorate it with @torch.no_grad()"

    def test_image_log_probs_have_gradient(self, backbone: Backbone) -> None:
        """Image log-probabilities have gradient to trainable parameters only."""
        images, prompts = self._sample_images(backbone), list(self.prompts)
        log_probs, _ = backbone.image_log_probs(prompts, images, self.image_sampling)
        self._assert_trains(backbone, log_probs, "image_log_probs")
        log_probs, _ = backbone.image_log_likelihood(prompts, images, self.image_sampling, 1, make_generator())
        self._assert_trains(backbone, log_probs, "image_log_likelihood")

    def test_answer_log_probs_have_gradient(self, backbone: Backbone) -> None:
        """Answer log-probabilities have gradient to trainable parameters only."""
        images = with_pixels(backbone, self._sample_images(backbone))
        answers = backbone.tokenize_answers(list(self.answers))
        log_probs = backbone.answer_log_probs(images, list(self.questions), answers)
        self._assert_trains(backbone, log_probs, "answer_log_probs")

    def test_image_tokenizer_is_frozen(self, backbone: Backbone) -> None:
        """Pixels of integer codes carry no gradient, and `frozen_parameters` are frozen."""
        pixels = backbone.decode(self._sample_images(backbone))
        names = _parameters_with_gradient(backbone, pixels.sum()) if pixels.requires_grad else []
        to = f" to {names[0]!r}" if names else ""
        assert not pixels.requires_grad, (
            f"decode returned pixels of integer codes with gradient{to}; freeze the image tokenizer: "
            "requires_grad_(False)"
        )
        for part in self.frozen_parameters:
            parameters = [p for name, p in backbone.named_parameters() if part in name]
            assert parameters, f"frozen_parameters has {part!r}, but no parameter's name contains it"
            trainable = any(p.requires_grad for p in parameters)
            assert not trainable, f"build left {part!r} trainable; freeze it: requires_grad_(False)"

    def test_straight_through_codes_have_gradient(self, backbone: Backbone) -> None:
        """Gradient passes from answers through soft codes to the parameters that generate images."""
        images, questions = self._sample_images(backbone), list(self.questions)
        relaxed, soft = self._straight_through(backbone, images)
        answers = backbone.tokenize_answers(list(self.answers))
        log_probs = backbone.answer_log_probs(relaxed, questions, answers)
        (gradient,) = torch.autograd.grad(log_probs.sum(), soft, retain_graph=True, allow_unused=True)
        connected = gradient is not None and bool(gradient.abs().sum())
        assert connected, "answer_log_probs has no gradient with respect to images.soft; embed the soft codes"
        names = _parameters_with_gradient(backbone, (soft * gradient).sum())
        assert names, "straight_through returned soft codes without gradient to any trainable parameter"
        expected = backbone.answer_log_probs(with_pixels(backbone, images), questions, answers)
        difference = max_difference(log_probs, expected)
        assert difference <= self.tolerance, (
            f"answer_log_probs returned values that differ by {difference:.2g} nats for soft codes and equal "
            "integer codes"
        )

    def test_decode_passes_gradient_to_straight_through_codes(self, backbone: Backbone) -> None:
        """Soft codes decode to the same pixels as integer codes, with gradient."""
        images = self._sample_images(backbone)
        relaxed, soft = self._straight_through(backbone, images)
        leaf = soft.detach().requires_grad_()
        pixels = backbone.decode(dataclasses.replace(relaxed, soft=leaf))
        difference = max_difference(pixels, backbone.decode(images))
        assert difference <= 1e-3, (
            f"decode returned pixels that differ by {difference:.2g} for soft codes and the equal integer codes"
        )
        assert pixels.requires_grad, "decode returned pixels of soft codes without gradient; decode images.soft"
        (gradient,) = torch.autograd.grad(pixels.sum(), leaf, retain_graph=True, allow_unused=True)
        assert gradient is not None, "decode has no gradient with respect to images.soft; decode images.soft"
        names = _parameters_with_gradient(backbone, pixels.sum())
        assert not names, f"decode passes gradient to {names[0]!r}; freeze the image tokenizer: requires_grad_(False)"

    def test_missing_straight_through_raises_an_error(self, backbone: Backbone) -> None:
        """A backbone without `straight_through` raises an error that names its class."""
        if backbone.supports_straight_through:
            pytest.skip("supports_straight_through is True")
        name, message = type(backbone).__name__, None
        try:
            backbone.straight_through(list(self.prompts), self._sample_images(backbone), self.image_sampling)
        except (TypeError, UserError) as error:
            message = str(error)
        assert message is not None, (
            "straight_through returned a value, but supports_straight_through is False; set it to True"
        )
        assert name in message, (
            f"straight_through raised an error with the message {message!r}; name the class that does not support it, "
            f"{name}"
        )

    def _assert_trains(self, backbone: Backbone, log_probs: Tensor, method: str) -> None:
        assert log_probs.requires_grad, f"{method} returned log-probabilities without gradient"
        names = _parameters_with_gradient(backbone, log_probs.sum())
        assert names, f"{method} passes gradient to no trainable parameter"
        frozen = [name for name in names if any(part in name for part in self.frozen_parameters)]
        assert not frozen, f"{method} passes gradient to {frozen[0]!r}; freeze it: requires_grad_(False)"

    def _straight_through(self, backbone: Backbone, images: Images) -> tuple[Images, Tensor]:
        if not backbone.supports_straight_through:
            pytest.skip("supports_straight_through is False")
        method, codes = "straight_through", images.codes
        relaxed = backbone.straight_through(
            list(self.prompts), images, self.image_sampling, 1.0, None, make_generator(1)
        )
        soft = relaxed.soft
        assert soft is not None, f"{method} returned soft None, expected straight-through codes (B, N, K)"
        right = soft.ndim == 3 and soft.shape[:2] == codes.shape
        assert right, f"{method} returned soft of shape {format_shape(soft)}, expected {(*codes.shape, 'K')}"
        difference = max_difference(soft, F.one_hot(codes, soft.shape[-1]).to(soft.dtype))
        assert difference <= 1e-4, (
            f"{method} returned soft codes that differ by {difference:.2g} from one-hot images.codes, expected equality"
        )
        assert soft.requires_grad, f"{method} returned soft codes without gradient"
        return relaxed, soft


def _model_state(backbone: Backbone) -> dict[str, dict[str, Any]]:
    """What must not change while a model is used, by description and name."""
    parameters = dict(backbone.named_parameters())
    return {
        "train or eval mode": {name: module.training for name, module in backbone.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in parameters.items()},
        "the gradient": {name: p.grad is not None for name, p in parameters.items()},
        "the weights": {name: (p._version, float(p.detach().double().sum())) for name, p in parameters.items()},
    }


def _parameters_with_gradient(backbone: Backbone, loss: Tensor) -> list[str]:
    """Names of the parameters whose gradient is not 0."""
    trainable = [(name, p) for name, p in backbone.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [p for _, p in trainable], allow_unused=True)
    pairs = zip(trainable, gradients, strict=True)
    return [name for (name, _), gradient in pairs if gradient is not None and gradient.abs().sum() > 0]
