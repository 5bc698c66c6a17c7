"""Backbones with one error each in sampling, scoring or decoding."""

import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from unirl.testing import TinyBackbone
from unirl.types import Answers, Images


class ChangedImages(TinyBackbone):
    """Correct; subclasses change the sampled images."""

    def change(self, images: Images) -> Images:
        return images

    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return self.change(super().sample_images(prompts, sampling, generator))


class ReadsControlTokens(TinyBackbone):
    tokenizer = SimpleNamespace(all_special_tokens=["</s>"], unk_token_id=None, convert_tokens_to_ids=lambda token: 1)

    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [[1 if word == "</s>" else 2 for word in text.split()] for text in texts]


class FloatCodes(ChangedImages):
    def change(self, images: Images) -> Images:
        return replace(images, codes=images.codes.float())


class NegativeCodes(ChangedImages):
    def change(self, images: Images) -> Images:
        return replace(images, codes=images.codes - 9)


class NoLogProbs(ChangedImages):
    def change(self, images: Images) -> Images:
        return replace(images, log_probs=None)


class NoActions(ChangedImages):
    def change(self, images: Images) -> Images:
        return replace(images, actions=None)


class TooFewLogProbs(ChangedImages):
    def change(self, images: Images) -> Images:
        return replace(images, log_probs=images.log_probs[:, 1:])


class PositiveLogProbs(ChangedImages):
    def change(self, images: Images) -> Images:
        return replace(images, log_probs=images.log_probs + 9)


class TruncatedMemory(ChangedImages):
    def change(self, images: Images) -> Images:
        return replace(images, memory={"steps": images.codes[1:]})


class HalfLogProbs(TinyBackbone):
    def image_log_probs(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args, **kwargs)
        return log_probs.to(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else log_probs), mask


class ReversedRows(ChangedImages):
    def change(self, images: Images) -> Images:
        return images[torch.arange(len(images)).flip(0)]


class TorchGlobalRng(TinyBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return super().sample_images(prompts, sampling, None)


class PythonGlobalRng(ChangedImages):
    def change(self, images: Images) -> Images:
        random.random()
        return images


class FixedSeed(TinyBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return super().sample_images(prompts, sampling, torch.Generator().manual_seed(3))


class OneGeneratorForAllImages(TinyBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return super().sample_images(prompts, sampling, torch.Generator().set_state(generator.get_state()))


class OneGeneratorForAllAnswers(TinyBackbone):
    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        only = torch.Generator().set_state(generator.get_state())
        return super().sample_answers(images, questions, sampling, only)


class OneImagePerPrompt(TinyBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        sample = super().sample_images
        images = {prompt: sample([prompt], sampling, generator) for prompt in dict.fromkeys(prompts)}
        index = torch.tensor([list(images).index(prompt) for prompt in prompts])
        fields = ("codes", "actions", "log_probs")
        return Images(**{name: torch.cat([getattr(one, name) for one in images.values()])[index] for name in fields})


class IgnoredTemperature(TinyBackbone):
    def image_log_probs(self, prompts: Any, images: Any, sampling: Any, *rest: Any) -> tuple[Tensor, Tensor]:
        return super().image_log_probs(prompts, images, replace(sampling, temperature=1.0), *rest)


class IgnoredGuidance(TinyBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        return super().code_logits(prompts, codes, 0.0)


class IgnoredPrompt(TinyBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        return super().code_logits(["a"] * len(prompts), codes, guidance)


class BatchNormalized(TinyBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        logits = super().code_logits(prompts, codes, guidance)
        return logits - logits.mean(0, keepdim=True) / 2


class FirstPosition(TinyBackbone):
    """Treats the first row of a batch differently."""

    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args)
        return log_probs * (1 + (torch.arange(len(log_probs)) == 0))[:, None], mask


class WrongMask(TinyBackbone):
    """Claims to have scored every decision, but scored some."""

    def image_log_probs(
        self, prompts: Any, images: Any, sampling: Any, scored_steps: Any = None, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(prompts, images, sampling)
        return (log_probs * (torch.arange(4) < scored_steps) if scored_steps else log_probs), mask


class FloatMask(TinyBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args)
        return log_probs, mask.float()


class IncompleteMask(TinyBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args)
        return log_probs, mask & (torch.arange(4) > 0)


class OwnMasks(TinyBackbone):
    def image_log_likelihood(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, weights = super().image_log_likelihood(*args)
        masked = torch.rand(log_probs.shape, generator=args[-1]) < 0.5
        return log_probs, 2 * weights * masked


class RandomScores(TinyBackbone):
    def image_log_likelihood(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, weights = super().image_log_likelihood(*args)
        return log_probs * torch.rand(()), weights


class UnnormalizedWeights(TinyBackbone):
    def image_log_likelihood(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, _ = super().image_log_likelihood(*args)
        return log_probs, torch.ones_like(log_probs)


class PixelsUpTo255(TinyBackbone):
    def decode(self, images: Images) -> Tensor:
        return 255 * super().decode(images)


class ChannelsLast(TinyBackbone):
    def decode(self, images: Images) -> Tensor:
        return super().decode(images).permute(0, 2, 3, 1)


class IgnoredSoftCodes(TinyBackbone):
    def decode(self, images: Images) -> Tensor:
        return super().decode(replace(images, soft=None))


class OneEncodedImage(TinyBackbone):
    def encode(self, pixels: Tensor) -> Images:
        return super().encode(pixels[:1])


class ChangedAnswers(TinyBackbone):
    """Correct; subclasses change the sampled answers."""

    def change(self, answers: Answers) -> Answers:
        return answers

    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return self.change(super().sample_answers(images, questions, sampling, generator))


class MissingText(ChangedAnswers):
    def change(self, answers: Answers) -> Answers:
        return replace(answers, text=answers.text[1:])


class LeftPadded(TinyBackbone):
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        answers = super().tokenize_answers(texts)
        mask = answers.mask.flip(1) | (torch.arange(answers.ids.shape[1]) == 0)
        return replace(answers, ids=answers.ids.flip(1), mask=mask)


class NoEndOfText(TinyBackbone):
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        answers = super().tokenize_answers(texts)
        return replace(answers, mask=answers.mask & (answers.ids != 0))


class EndNotCounted(TinyBackbone):
    def answer_lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


class LimitWithoutLengths(TinyBackbone):
    max_prompt_length = 8


class CutsNothing(TinyBackbone):
    truncates_prompts, max_prompt_length = True, 8

    def prompt_lengths(self, prompts: Sequence[str]) -> list[int]:
        return [len(prompt.split()) for prompt in prompts]


class WrongEnd(TinyBackbone):
    eos_token_ids = (5,)


class IgnoredMaxTokens(TinyBackbone):
    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return super().sample_answers(images, questions, replace(sampling, max_tokens=40), generator)


class ScoredPadding(TinyBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        unmasked = replace(answers, mask=torch.ones_like(answers.mask))
        return super().answer_log_probs(images, questions, unmasked)


class PaddingInContext(TinyBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(images, questions, answers) - answers.ids.sum(1, keepdim=True) * answers.mask


class InterleavedQuestions(TinyBackbone):
    """Repeats the batch of images instead of each image."""

    def _context(self, images: Images, questions: Sequence[str]) -> Tensor:
        rows = torch.arange(len(questions)) % len(images)
        return super()._context(images[rows], questions)


class IgnoredImage(TinyBackbone):
    def _context(self, images: Images, questions: Sequence[str]) -> Tensor:
        return super()._context(replace(images, codes=images.codes * 0), questions)


class BatchMean(TinyBackbone):
    def _context(self, images: Images, questions: Sequence[str]) -> Tensor:
        context = super()._context(images, questions)
        return context + 3 * context.mean(0)


class IgnoredGenerator(TinyBackbone):
    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return super().sample_answers(images, questions, sampling)


class ScaledAnswerLogProbs(TinyBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(images, questions, answers) / 0.7
