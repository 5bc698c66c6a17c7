"""Checks of what a backbone says about the lengths of texts: its limits, its counts, and what ends an answer."""

from collections.abc import Callable, Sequence

import pytest
import torch

from unirl.backbones.base import Backbone
from unirl.testing.backbone_settings import BackboneSettings, with_pixels
from unirl.testing.comparison import make_generator, max_difference

LONGEST = 4096
"""Limits above it are not reached by the checks."""


class LengthChecks(BackboneSettings):
    """Checks of `BackboneConformance`."""

    def test_lengths_count_tokens(self, backbone: Backbone) -> None:
        """Answers are counted as `tokenize_answers` has them; prompts and questions can be where there is a limit."""
        texts = list(self.answers)
        counted = list(backbone.answer_lengths(texts))
        expected = backbone.tokenize_answers(texts).mask.sum(1).tolist()
        assert counted == expected, (
            f"answer_lengths returned {counted} for {texts}, expected the tokens of tokenize_answers, end of text "
            f"included: {expected}"
        )
        unbuilt = self.make_unbuilt()
        if unbuilt is not None:
            unbuilt.build(meta=True)
        for model in (backbone,) if unbuilt is None else (backbone, unbuilt):
            _assert_lengths("answer_lengths", model.answer_lengths, texts)
            if model.max_prompt_length is not None:
                _assert_lengths("prompt_lengths", model.prompt_lengths, self.prompts)
            if model.max_question_length is not None:
                _assert_lengths("question_lengths", model.question_lengths, self.questions)

    @torch.no_grad()
    def test_what_is_longer_than_the_limit_is_cut_off(self, backbone: Backbone) -> None:
        """Where `truncates_prompts` is True, prompts that differ only behind `max_prompt_length` are one prompt."""
        limit = backbone.max_prompt_length
        if not backbone.truncates_prompts:
            pytest.skip("truncates_prompts is False")
        assert limit is not None, "truncates_prompts is True, but max_prompt_length is None; return the limit"
        if limit > LONGEST:
            pytest.skip(f"max_prompt_length is {limit}")
        prompt = " ".join([self.prompts[0]] * limit)
        assert backbone.prompt_lengths([prompt])[0] > limit, (
            f"prompt_lengths returned {backbone.prompt_lengths([prompt])[0]} for {limit} times the prompt "
            f"{self.prompts[0]!r}, expected more than max_prompt_length, {limit}"
        )
        prompts = [f"{prompt} {end}" for end in self.prompts[1:3]]
        images = backbone.sample_images(prompts[:1], self.image_sampling, make_generator())
        one, other = (backbone.image_log_probs([text], images, self.image_sampling)[0] for text in prompts)
        difference = max_difference(one, other)
        assert difference <= self.tolerance, (
            f"image_log_probs returned values that differ by {difference:.2g} nats for prompts that differ only behind "
            f"{limit} tokens, though truncates_prompts is True; cut them off, or leave it False"
        )

    def test_answers_end_with_an_end_of_text(self, backbone: Backbone) -> None:
        """Given answers, and sampled ones that are shorter than `max_tokens`, end with one of `eos_token_ids`."""
        ends = list(backbone.eos_token_ids)
        sampled = backbone.sample_answers(
            with_pixels(backbone, backbone.sample_images(list(self.prompts), self.image_sampling, make_generator())),
            list(self.questions),
            self.answer_sampling,
            make_generator(),
        )
        for method, answers in (
            ("tokenize_answers", backbone.tokenize_answers(list(self.answers))),
            ("sample_answers", sampled),
        ):
            for row, mask in zip(answers.ids.tolist(), answers.mask.tolist(), strict=True):
                length = sum(mask)
                is_cut_off = method == "sample_answers" and length >= self.answer_sampling.max_tokens
                assert is_cut_off or row[length - 1] in ends, (
                    f"{method} returned an answer that ends with the token {row[length - 1]}, which is none of "
                    f"eos_token_ids, {ends}: answers that end by themselves would count as cut off"
                )


def _assert_lengths(method: str, count: Callable[[Sequence[str]], Sequence[int]], texts: Sequence[str]) -> None:
    try:
        lengths = list(count(list(texts)))
    except Exception as error:
        message = f"{method} raised {type(error).__name__}: {error}"
        raise AssertionError(f"{message}; define it, or give the backbone a `tokenizer` of transformers") from error
    right = len(lengths) == len(texts) and all(isinstance(length, int) and length > 0 for length in lengths)
    assert right, f"{method} returned {lengths} for {len(texts)} texts, expected a number of tokens for each"
