"""Shapes, dtypes and ranges of everything that a backbone returns."""

import torch

from unirl.backbones.base import Backbone
from unirl.testing.backbone_base import Checks, check_answers, check_log_probs, require, seeded, shape
from unirl.types import Images


class ShapeChecks(Checks):
    """Each method gives what the contract says."""

    def test_drawings_have_codes_and_log_probs(self, backbone: Backbone) -> None:
        images, count = self.generate(backbone), len(self.prompts)
        require(
            isinstance(images, Images), f"sample_images: returns {type(images).__name__}, expected unirl.types.Images"
        )
        codes, log_probs, actions = images.codes, self.kept(images), images.actions
        whole = not codes.is_floating_point() and codes.dtype != torch.bool
        require(whole, f"sample_images: codes are {codes.dtype}, expected integers")
        right = codes.ndim == 2 and len(codes) == count and codes.shape[1] > 0
        require(right, f"sample_images: codes have shape {shape(codes)}, expected ({count}, N) for {count} prompts")
        require(bool((codes >= 0).all()), "sample_images: a code is below 0")
        require(actions is not None, "sample_images: actions are None; they are the decisions that log_probs belong to")
        assert actions is not None
        require(len(actions) == count, f"sample_images: actions have shape {shape(actions)}, expected ({count}, A)")
        check_log_probs(log_probs, actions, "sample_images", "actions")
        for name, value in images.memory.items():
            rows = len(value) if value.ndim else 0
            require(rows == count, f"sample_images: memory {name!r} has {rows} rows, expected one a picture, {count}")

    def test_scores_have_the_shape_of_decisions(self, backbone: Backbone) -> None:
        images = self.generate(backbone)
        scored = backbone.image_log_probs(list(self.prompts), images, self.sampling)
        require(isinstance(scored, tuple) and len(scored) == 2, "image_log_probs: returns no pair (log_probs, mask)")
        log_probs, mask = scored
        check_log_probs(log_probs, self.kept(images), "image_log_probs", "images.log_probs")
        require(mask.dtype == torch.bool, f"image_log_probs: the mask is {mask.dtype}, expected torch.bool")
        same = mask.shape == log_probs.shape
        require(same, f"image_log_probs: the mask has shape {shape(mask)}, the log-probabilities {shape(log_probs)}")
        require(bool(mask.all()), "image_log_probs: the mask leaves decisions out, though scored=None asks for all")

    @torch.no_grad()
    def test_picture_weights_add_up_to_one(self, backbone: Backbone) -> None:
        count = 64
        images, prompts = self.group(backbone, count), [self.prompts[0]] * count
        log_probs, weights = backbone.image_log_likelihood(prompts, images, self.sampling, 2, seeded())
        check_log_probs(log_probs, weights, "image_log_likelihood", "the weights")
        require(len(log_probs) == count, f"image_log_likelihood: {len(log_probs)} rows for {count} pictures")
        require(bool((weights >= 0).all()), "image_log_likelihood: a weight is below 0")
        total = weights.sum(1)
        mean, error = float(total.mean()), float(total.std()) / count**0.5
        # Random masks weigh 1 on average only; five standard errors are no chance.
        near = abs(mean - 1) <= 5 * error + 1e-4
        require(near, f"image_log_likelihood: the weights of a picture add up to {mean:.4g} on average, expected 1")

    def test_pixels_are_pictures(self, backbone: Backbone) -> None:
        pixels = backbone.decode(self.generate(backbone)).detach()
        right = pixels.ndim == 4 and pixels.shape[:2] == (len(self.prompts), 3)
        require(right, f"decode: pixels have shape {shape(pixels)}, expected ({len(self.prompts)}, 3, H, W)")
        require(pixels.is_floating_point(), f"decode: pixels are {pixels.dtype}, expected floats in [0, 1]")
        low, high = float(pixels.min()), float(pixels.max())
        require(low >= 0 and high <= 1, f"decode: pixels range from {low:.3g} to {high:.3g}, expected [0, 1]")

    def test_given_pictures_can_be_asked_about(self, backbone: Backbone) -> None:
        count = len(self.questions)
        pixels = backbone.decode(self.generate(backbone)).detach()[:1].repeat(count, 1, 1, 1)
        given = backbone.encode(pixels)
        require(len(given) == count, f"encode: {len(given)} pictures of {count} given ones")
        answers = backbone.sample_answers(given, list(self.questions), self.answering, seeded())
        check_answers(answers, count, "sample_answers (about what encode gave)")

    def test_answers_have_ids_mask_and_text(self, backbone: Backbone) -> None:
        images = self.seen(backbone, self.generate(backbone))
        answers = backbone.sample_answers(images, list(self.questions), self.answering, seeded())
        check_answers(answers, len(self.questions), "sample_answers")
        longest, most = answers.ids.shape[1], self.answering.max_tokens
        require(longest <= most, f"sample_answers: an answer has {longest} tokens; max_tokens is {most}")
        require(answers.log_probs is not None, "sample_answers: log_probs are None; keep those of each token")
        assert answers.log_probs is not None
        check_log_probs(answers.log_probs, answers.ids, "sample_answers", "the ids")

    def test_answer_scores_have_the_shape_of_tokens(self, backbone: Backbone) -> None:
        images, given = self.seen(backbone, self.generate(backbone)), backbone.tokenize_answers(list(self.answers))
        log_probs = backbone.answer_log_probs(images, list(self.questions), given)
        check_log_probs(log_probs, given.ids, "answer_log_probs", "the ids")
        outside = log_probs[~given.mask]
        require(bool((outside == 0).all()), "answer_log_probs: log-probabilities outside the mask are not 0")
