"""What backbones that draw code after code and answer in text have in common, whatever their checkpoints hold."""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.functional.gumbel import straight_through
from unirl.sampling.kv_cache import Prefix, pad_right, prefill
from unirl.sampling.packing import packed
from unirl.sampling.text import answer_log_probs, sample_answers
from unirl.types import Answers, AnswerSampling, Images, ImageSampling


class AutoregressiveImages(Backbone):
    """Scores and relaxes drawings in one pass over their codes. N codes a picture, K kinds of them.

    `transformer` is a `LlamaRows`, `length` is N.
    """

    transformer: Any
    length: int

    @abstractmethod
    def prompt_prefix(self, prompts: Sequence[str], guidance: float) -> Prefix:
        """What stands before the codes of each picture; under guidance as many rows without the prompt follow."""

    @abstractmethod
    def code_hidden(self, prefix: Prefix, codes: Tensor) -> Tensor:
        """Hidden states from which each code is drawn, in one pass over given codes; with gradient.

        Shapes:
            codes (B, N); returns (R, N, D) for the R rows of the prefix: B, or 2 B under guidance.
        """

    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        hidden = self.code_hidden(self.prompt_prefix(prompts, sampling.guidance), images.codes)
        model, temperature = self.transformer, sampling.temperature
        log_probs = model.code_log_probs(hidden, images.codes, sampling.guidance, temperature)
        return log_probs, torch.ones_like(log_probs, dtype=torch.bool)

    def straight_through(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        first = max(0, self.length - (steps or self.length))
        hidden = self.code_hidden(self.prompt_prefix(prompts, sampling.guidance), images.codes)[:, first:]
        logits = self.transformer.code_logits(hidden, sampling.guidance).float() / (sampling.temperature or 1.0)
        relaxed = straight_through(logits, images.codes[:, first:], temperature, generator)
        hard = F.one_hot(images.codes[:, :first], relaxed.shape[-1]).to(relaxed.dtype)
        return dataclasses.replace(images, soft=torch.cat((hard, relaxed), 1), pixels=None)


class TextAnswers(Backbone):
    """Answers in text over cached prefixes: each picture once, however many questions there are about it.

    `transformer` is a `LlamaRows` that embeds tokens by `embed`. `chat` knows the tokens: `questions` gives those
    before a picture and each question's own, `answers` those of answers, `text` reads them, `end` ends an answer, and
    so do `ends`, where a checkpoint has others.
    """

    transformer: Any
    chat: Any

    @abstractmethod
    def embed_images(self, images: Images) -> Tensor:
        """What the language model is given for some pictures; with gradient where codes are soft. (B, n, D)"""

    @torch.no_grad()
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        with packed(self.transformer):
            prefix, rows = self._picture_prefix(images, questions, grow=True)
            end, others = self.chat.end, self.chat.ends
            ids, mask, log_probs = sample_answers(self.transformer, prefix, rows, sampling, end, generator, others)
        said = mask & ~torch.isin(ids, torch.tensor([end, *others], device=ids.device))
        texts = [self.chat.text(row[keep]) for row, keep in zip(ids, said, strict=True)]
        return Answers(ids, mask, texts, log_probs)

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        end, ends = self.chat.end, (self.chat.end, *self.chat.ends)
        rows = [[*row, end] for row in self.chat.answers(texts)]  # a template may have written an end of its own
        rows = [row[: 1 + next(at for at, one in enumerate(row) if one in ends)] for row in rows]
        ids, mask = (part.to(self.transformer.device) for part in pad_right(rows, end))
        return Answers(ids, mask, list(texts))

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        prefix, rows = self._picture_prefix(images, questions)
        return answer_log_probs(self.transformer, prefix, rows, answers.ids, answers.mask)

    def _picture_prefix(
        self, images: Images, questions: Sequence[str], grow: bool = False
    ) -> tuple[Prefix, list[list[int]]]:
        """Each picture once, then as many rows as there are questions about it; and the questions' own tokens."""
        before, rows = self.chat.questions(questions)
        seen = self.embed_images(images)
        opening = self.transformer.embed(torch.tensor([before], device=seen.device)).expand(len(images), -1, -1)
        embeds = torch.cat((opening, seen.to(opening.dtype)), 1)
        keys = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        return prefill(self.transformer, embeds, keys).shared(len(questions), grow), rows
