"""Checks that sampling and scoring of a backbone agree, by every input and by nothing else."""

import dataclasses
from collections.abc import Iterable

import pytest
import torch

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.functional.seeding import PerImageGenerator, RowGenerator
from unirl.testing.backbone_settings import (
    BackboneSettings,
    assert_answers,
    sampled_log_probs,
    with_pixels,
)
from unirl.testing.comparison import call_without_global_rng, make_generator, max_difference
from unirl.types import Images, ImageSampling

REPRODUCIBLE = "take every random number from the `generator` argument"
PER_IMAGE = (
    "draw random numbers by unirl.functional.draw_rows or unirl.functional.multinomial, which take those of each image "
    "from its own generator"
)


class SamplingChecks(BackboneSettings):
    """The part of `BackboneConformance` on sampled decisions and their log-probabilities."""

    # --- images ---

    @torch.no_grad()
    def test_image_log_probs_match_sampling(self, backbone: Backbone) -> None:
        """Scored log-probabilities equal the sampled ones, with and without guidance and temperature."""
        for sampling in self._image_samplings():
            images = self._sample_images(backbone, sampling)
            log_probs, _ = backbone.image_log_probs(list(self.prompts), images, sampling)
            difference = max_difference(log_probs, sampled_log_probs(images))
            assert difference <= self.tolerance, (
                f"image_log_probs returned values that differ by {difference:.2g} nats from those of sample_images "
                f"with guidance {sampling.guidance:g} and temperature {sampling.temperature:g}; score the decisions "
                f"that were sampled, under the same settings (allowed: {self.tolerance:g})"
            )

    @torch.no_grad()
    def test_image_log_probs_depend_on_prompt_guidance_and_temperature(self, backbone: Backbone) -> None:
        """Another prompt, guidance or temperature changes the log-probabilities."""
        prompts, plain = list(self.prompts), self._image_samplings()[0]
        images = self._sample_images(backbone, plain)
        log_probs, _ = backbone.image_log_probs(prompts, images, plain)
        variants = {
            "the temperature": (prompts, dataclasses.replace(plain, temperature=2.0)),
            "the prompt": ([*prompts[1:], prompts[0]], plain),
        }
        if self.image_sampling.guidance:
            variants["guidance"] = prompts, dataclasses.replace(plain, guidance=self.image_sampling.guidance)
        for name, (other_prompts, sampling) in variants.items():
            other, _ = backbone.image_log_probs(other_prompts, images, sampling)
            assert max_difference(log_probs, other) > 0, f"image_log_probs ignores {name}; the values must depend on it"

    @torch.no_grad()
    def test_scored_steps_match_full_scoring(self, backbone: Backbone) -> None:
        """Decisions that are scored alone have the same log-probabilities as among all."""
        prompts, images = list(self.prompts), self._sample_images(backbone)
        expected, _ = backbone.image_log_probs(prompts, images, self.image_sampling)
        log_probs, mask = backbone.image_log_probs(prompts, images, self.image_sampling, 1, make_generator(1))
        _, repeated = backbone.image_log_probs(prompts, images, self.image_sampling, 1, make_generator(1))
        method = "image_log_probs, asked for one sampling step,"
        assert mask.dtype == torch.bool, f"{method} returned a mask of {mask.dtype}, expected torch.bool"
        assert mask.shape == expected.shape, f"{method} returned a mask of another shape than for all steps"
        assert mask.any(1).all(), f"{method} returned a mask without a scored decision for some image"
        difference = max_difference(log_probs[mask], expected[mask])
        assert difference <= self.tolerance, (
            f"{method} returned values that differ by {difference:.2g} nats from those for all steps; the mask must be "
            "True only where a decision was scored"
        )
        assert torch.equal(mask, repeated), f"{method} chose other steps with an equal generator; {REPRODUCIBLE}"

    def test_image_sampling_uses_only_the_generator(self, backbone: Backbone) -> None:
        """The generator determines the images, and each image of a group has its own random numbers."""
        first = call_without_global_rng("sample_images", lambda: self._sample_images(backbone), 1)
        second = call_without_global_rng("sample_images", lambda: self._sample_images(backbone), 2)
        difference = max_difference(sampled_log_probs(first), sampled_log_probs(second))
        reproduced = torch.equal(first.codes, second.codes) and difference <= self.tolerance
        assert reproduced, f"sample_images returned different images with an equal generator; {REPRODUCIBLE}"
        group, other_seed = self._sample_group(backbone, 8, seed=0), self._sample_group(backbone, 8, seed=1)
        assert not torch.equal(group.codes, other_seed.codes), (
            f"sample_images returned equal images with differently seeded generators; {REPRODUCIBLE}"
        )
        distinct = len(group.codes.unique(dim=0))
        assert distinct > 1, (
            "sample_images returned 8 equal images of one prompt; each image needs its own random numbers"
        )

    def test_each_image_uses_only_its_own_generator(self, backbone: Backbone) -> None:
        """With a `PerImageGenerator`, an image is the same whatever else is sampled with it."""
        prompts = [*self.prompts, self.prompts[0]]
        codes = self._sample_images_alone(backbone, prompts, range(len(prompts))).codes
        for rows in ([len(prompts) - 1], [1, 0]):
            others = self._sample_images_alone(backbone, prompts, rows).codes
            for i, other in zip(rows, others, strict=True):
                assert torch.equal(codes[i], other), (
                    f"sample_images returned another image {i} in a batch of {len(rows)} than in one of {len(codes)}, "
                    f"with a PerImageGenerator that has an equal generator for it; {PER_IMAGE}"
                )

    def test_image_scoring_uses_only_the_generator(self, backbone: Backbone) -> None:
        """The generator determines random masks, scored steps and Gumbel noise."""
        prompts, images, sampling = list(self.prompts), self._sample_images(backbone), self.image_sampling
        calls = {
            "image_log_probs": lambda: backbone.image_log_probs(prompts, images, sampling, 1, make_generator())[0],
            "image_log_likelihood": lambda: backbone.image_log_likelihood(
                prompts, images, sampling, 1, make_generator()
            )[0],
        }
        if backbone.supports_straight_through:
            calls["straight_through"] = lambda: backbone.decode(
                backbone.straight_through(prompts, images, sampling, 1.0, 1, make_generator())
            )
        for name, call in calls.items():
            difference = max_difference(call_without_global_rng(name, call, 1), call_without_global_rng(name, call, 2))
            assert difference <= self.tolerance, (
                f"{name} returned values that differ by {difference:.2g} with an equal generator; {REPRODUCIBLE}"
            )

    @torch.no_grad()
    def test_random_masks_do_not_depend_on_the_batch(self, backbone: Backbone) -> None:
        """Images get the same random masks whether all are scored at once, or some of them with a `RowGenerator`."""
        images, masks = self._sample_images(backbone), 2
        whole = backbone.image_log_likelihood(list(self.prompts), images, self.image_sampling, masks, make_generator())
        some = RowGenerator(make_generator(), torch.tensor([1, 2]), len(images))
        part = backbone.image_log_likelihood(list(self.prompts[1:3]), images[1:3], self.image_sampling, masks, some)
        difference = max(max_difference(a[1:3], b) for a, b in zip(whole, part, strict=True))
        assert difference <= self.tolerance, (
            f"image_log_likelihood returned values that differ by {difference:.2g} for images of a micro-batch; draw "
            "random numbers by unirl.functional.draw_rows, or take contexts of unirl.sampling.random_contexts"
        )

    @torch.no_grad()
    def test_images_do_not_depend_on_the_batch(self, backbone: Backbone) -> None:
        """Log-probabilities of an image are the same alone and in a batch."""
        prompts = list(self.prompts)
        for sampling in (self._image_samplings()[0], self.image_sampling):
            images = self._sample_images(backbone, sampling)
            in_batch, _ = backbone.image_log_probs(prompts, images, sampling)
            for i in range(len(prompts)):
                row = slice(i, i + 1)
                alone, _ = backbone.image_log_probs(prompts[row], images[row], sampling)
                for method, log_probs in {
                    "sample_images": sampled_log_probs(images),
                    "image_log_probs": in_batch,
                }.items():
                    difference = max_difference(log_probs[row], alone)
                    assert difference <= self.tolerance, (
                        f"{method} returned log-probabilities of image {i} that depend on the rest of the batch: they "
                        f"differ by {difference:.2g} nats from image_log_probs of this image alone; check the padding "
                        "mask"
                    )

    @torch.no_grad()
    def test_the_order_of_rows_has_no_effect(self, backbone: Backbone) -> None:
        """Reordered rows give reordered log-probabilities and pixels."""
        prompts = [prompt for prompt in self.prompts for _ in range(2)]
        images = backbone.sample_images(prompts, self.image_sampling, make_generator())
        log_probs, _ = backbone.image_log_probs(prompts, images, self.image_sampling)
        order = torch.arange(len(prompts)).flip(0)
        reordered, _ = backbone.image_log_probs(prompts[::-1], images[order], self.image_sampling)
        difference = max_difference(reordered, log_probs[order])
        assert difference <= self.tolerance, (
            f"image_log_probs returned values that differ by {difference:.2g} nats when rows are reordered"
        )
        difference = max_difference(backbone.decode(images[order]), backbone.decode(images)[order])
        assert difference <= self.tolerance, (
            f"decode returned pixels that differ by {difference:.2g} when rows are reordered"
        )

    # --- answers ---

    @torch.no_grad()
    def test_answer_log_probs_match_sampling(self, backbone: Backbone) -> None:
        """Scored log-probabilities equal the sampled ones, greedy and at temperature 1."""
        images, questions = with_pixels(backbone, self._sample_images(backbone)), list(self.questions)
        for temperature in (0.0, 1.0):
            sampling = dataclasses.replace(self.answer_sampling, temperature=temperature)
            answers = backbone.sample_answers(images, questions, sampling, make_generator())
            assert answers.log_probs is not None, (
                "sample_answers returned log_probs None; store the log-probability of each token"
            )
            scored = backbone.answer_log_probs(images, questions, answers)
            difference = max_difference(scored * answers.mask, answers.log_probs * answers.mask)
            assert difference <= self.tolerance, (
                f"answer_log_probs returned values that differ by {difference:.2g} nats from those of sample_answers "
                f"at temperature {temperature:g}; both must be log-probabilities of the model at temperature 1 "
                f"(allowed: {self.tolerance:g})"
            )

    @torch.no_grad()
    def test_answer_log_probs_depend_on_question_and_image(self, backbone: Backbone) -> None:
        """Another question or image changes the log-probabilities."""
        images, questions = with_pixels(backbone, self._sample_images(backbone)), list(self.questions)
        answers = backbone.tokenize_answers(list(self.answers))
        log_probs = backbone.answer_log_probs(images, questions, answers)
        other = backbone.answer_log_probs(images, [*questions[1:], questions[0]], answers)
        message = "answer_log_probs ignores the {}; the values must depend on it"
        assert max_difference(log_probs, other) > 0, message.format("question")
        rolled = images[torch.arange(len(questions)).roll(1)]
        other = backbone.answer_log_probs(rolled, questions, answers)
        assert max_difference(log_probs, other) > 0, message.format("image")

    def test_answer_sampling_uses_only_the_generator(self, backbone: Backbone) -> None:
        """The generator determines the answers."""
        images, questions = with_pixels(backbone, self._sample_images(backbone)), list(self.questions) * 3
        images = images[torch.arange(len(images)).repeat_interleave(3)]

        def sample(seed: int) -> torch.Tensor:
            return backbone.sample_answers(images, questions, self.answer_sampling, make_generator(seed)).ids

        first = call_without_global_rng("sample_answers", lambda: sample(0), 1)
        second = call_without_global_rng("sample_answers", lambda: sample(0), 2)
        assert torch.equal(first, second), (
            f"sample_answers returned different answers with an equal generator; {REPRODUCIBLE}"
        )
        if self.answer_sampling.temperature:
            varies = any(not torch.equal(first, sample(seed)) for seed in range(1, 4))
            assert varies, f"sample_answers returned equal answers with differently seeded generators; {REPRODUCIBLE}"

    def test_each_answer_uses_only_the_generator_of_its_image(self, backbone: Backbone) -> None:
        """With a `PerImageGenerator`, answers about an image are the same whatever else is asked about."""
        images = with_pixels(backbone, self._sample_images(backbone))
        questions = [question for question in self.questions for _ in range(2)]
        sampling = dataclasses.replace(self.answer_sampling, temperature=self.answer_sampling.temperature or 1.0)

        def sample(rows: list[int]) -> list[list[int]]:
            asked = [question for i in rows for question in questions[2 * i : 2 * i + 2]]
            generator = PerImageGenerator(make_generator(i) for i in rows)
            answers = backbone.sample_answers(images[torch.tensor(rows)], asked, sampling, generator)
            return [ids[mask].tolist() for ids, mask in zip(answers.ids, answers.mask, strict=True)]

        together, i = sample(list(range(len(images)))), len(images) - 1
        assert sample([i]) == together[2 * i :], (
            f"sample_answers returned other answers about image {i} alone than in a batch, with a PerImageGenerator "
            f"that has an equal generator for it; {PER_IMAGE}"
        )

    @torch.no_grad()
    def test_answers_do_not_depend_on_the_batch(self, backbone: Backbone) -> None:
        """Answers and their log-probabilities are the same alone and in a batch."""
        images, questions = with_pixels(backbone, self._sample_images(backbone)), list(self.questions)
        greedy = dataclasses.replace(self.answer_sampling, temperature=0.0)
        answers = backbone.sample_answers(images, questions, greedy)
        in_batch = backbone.answer_log_probs(images, questions, answers)
        for i, question in enumerate(questions):
            row = slice(i, i + 1)
            alone = backbone.sample_answers(images[row], [question], greedy).text[0]
            assert answers.text[i] == alone, (
                f"sample_answers returned {answers.text[i]!r} for question {i} in a batch and {alone!r} alone; check "
                "the padding mask"
            )
            scored = backbone.answer_log_probs(images[row], [question], answers[row])
            difference = max_difference(scored, in_batch[row])
            assert difference <= self.tolerance, (
                f"answer_log_probs returned values for answer {i} that depend on the rest of the batch (they differ by "
                f"{difference:.2g} nats); check the padding mask"
            )

    @torch.no_grad()
    def test_several_questions_per_image(self, backbone: Backbone) -> None:
        """The first k of k x B questions are about the first image, and so on."""
        images = with_pixels(backbone, self._sample_images(backbone))[:2]
        questions = [*self.questions[:2], *self.questions[:2]]
        answers = backbone.tokenize_answers([self.answers[0]] * 4)
        repeated = images[torch.tensor([0, 0, 1, 1])]
        difference = max_difference(
            backbone.answer_log_probs(images, questions, answers),
            backbone.answer_log_probs(repeated, questions, answers),
        )
        advice = "the first k of k x B questions are about the first image, and so on"
        assert difference <= self.tolerance, (
            f"answer_log_probs returned values that differ by {difference:.2g} nats for 4 questions about 2 images and "
            f"about each image repeated; {advice}"
        )
        greedy = dataclasses.replace(self.answer_sampling, temperature=0.0)
        texts, expected = (list(backbone.sample_answers(i, questions, greedy).text) for i in (images, repeated))
        assert texts == expected, (
            f"sample_answers returned {texts} for 4 questions about 2 images, expected {expected}; {advice}"
        )
        self._assert_multiple(backbone, images, questions[:3])

    def _assert_multiple(self, backbone: Backbone, images: Images, questions: list[str]) -> None:
        answers = backbone.tokenize_answers([self.answers[0]] * len(questions))
        try:
            backbone.answer_log_probs(images, questions, answers)
        except (UserError, ValueError):
            return
        raise AssertionError(
            f"answer_log_probs accepted {len(questions)} questions about {len(images)} images; raise a UserError where "
            "the number of questions is not a multiple of the number of images"
        )

    def test_tokenize_answers_appends_end_of_text(self, backbone: Backbone) -> None:
        """Tokens are right-padded, end with end-of-text, and differ between answers."""
        texts = list(self.answers)
        answers = backbone.tokenize_answers(texts)
        assert_answers(answers, len(texts), "tokenize_answers")
        assert list(answers.text) == texts, f"tokenize_answers returned the text {list(answers.text)}, expected {texts}"
        rows = [ids[mask].tolist() for ids, mask in zip(answers.ids, answers.mask, strict=True)]
        for text, row in zip(texts, rows, strict=True):
            alone = backbone.tokenize_answers([text])
            expected = alone.ids[0][alone.mask[0]].tolist()
            assert row == expected, f"tokenize_answers returned {row} for {text!r} in a batch and {expected} alone"
        ends = len({row[-1] for row in rows}) == 1 and all(len(row) > 1 for row in rows)
        assert ends, "tokenize_answers returned answers without a common last token; append end-of-text to each"
        distinct = len({tuple(row) for row in rows}) == len(set(texts))
        assert distinct, f"tokenize_answers returned equal tokens for different answers among {texts}"

    def test_control_tokens_in_texts_are_text(self, backbone: Backbone) -> None:
        """A text that says "<|endoftext|>" has no further control token, in prompts, questions and answers."""
        tokenizer = getattr(backbone, "tokenizer", None) or getattr(getattr(backbone, "chat", None), "tokenizer", None)
        tokens = [*getattr(tokenizer, "all_special_tokens", ())]
        if tokenizer is None or not tokens:
            pytest.skip("no `tokenizer` with special tokens")
        methods = {name: getattr(backbone, name, None) for name in ("prompt_ids", "question_ids", "answer_ids")}
        for name, ids_of in methods.items():
            for token in tokens:
                number = tokenizer.convert_tokens_to_ids(token)
                if number == tokenizer.unk_token_id:
                    continue
                counts = (
                    [list(row).count(number) for row in ids_of(["red blue", f"red {token} blue"])] if ids_of else []
                )
                assert len(set(counts)) <= 1, (
                    f"{name} reads {token!r} in a text as a control token; pass the text through "
                    "`unirl.backbones.plain_text` before tokenizing it"
                )

    def test_padding_has_no_effect(self, backbone: Backbone) -> None:
        """Tokens outside the mask do not change the log-probabilities."""
        texts = list(self.answers)
        if len({len(text) for text in texts}) == 1:
            pytest.skip("all `answers` have the same length")
        images, answers = with_pixels(backbone, self._sample_images(backbone)), backbone.tokenize_answers(texts)
        ids = answers.ids.masked_fill(~answers.mask, int(answers.ids[0, 0]))
        difference = max_difference(
            backbone.answer_log_probs(images, list(self.questions), answers),
            backbone.answer_log_probs(images, list(self.questions), dataclasses.replace(answers, ids=ids)),
        )
        assert difference <= self.tolerance, (
            f"answer_log_probs returned values that differ by {difference:.2g} nats with other padding tokens; ignore "
            "tokens outside the mask"
        )

    def _sample_images_alone(self, backbone: Backbone, prompts: list[str], rows: Iterable[int]) -> Images:
        """Images of some of the prompts, each with a generator that is seeded by its index."""
        generator = PerImageGenerator(make_generator(i) for i in rows)
        return backbone.sample_images([prompts[i] for i in rows], self.image_sampling, generator)

    def _image_samplings(self) -> list[ImageSampling]:
        """Guidance and temperature neutral, each alone, and together."""
        plain = dataclasses.replace(self.image_sampling, guidance=0.0, temperature=1.0)
        tempered = dataclasses.replace(plain, temperature=self.image_sampling.temperature)
        guided = dataclasses.replace(plain, guidance=self.image_sampling.guidance)
        return list(dict.fromkeys([plain, tempered, guided, self.image_sampling]))
