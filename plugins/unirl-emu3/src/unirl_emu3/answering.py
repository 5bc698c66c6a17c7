"""Emu3's half that understands: the codes of a picture, then text over cached prefixes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unirl.backbones import Backbone
from unirl.decoding.answers import answer_log_probs, sample_answers
from unirl.decoding.prefix import Prefix, pad_right, prefill
from unirl.types import Answers, AnswerSampling, Images
from unirl_emu3.chat import Chat
from unirl_emu3.transformer import Transformer


class Answering(Backbone):
    """The answering methods of `Emu3`. A drawing is seen through its own codes: nothing is decoded for it."""

    transformer: Transformer
    chat: Chat

    @torch.no_grad()
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        prefix, rows = self._picture_prefix(images, questions, grow=True)
        ids, mask, log_probs = sample_answers(self.transformer, prefix, rows, sampling, self.chat.end, generator)
        texts = [self.chat.text(row[keep]) for row, keep in zip(ids, mask, strict=True)]
        return Answers(ids, mask, texts, log_probs)

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        ids, mask = (part.to(self.transformer.device) for part in pad_right(self.chat.answers(texts), self.chat.end))
        return Answers(ids, mask, list(texts))

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        prefix, rows = self._picture_prefix(images, questions)
        return answer_log_probs(self.transformer, prefix, rows, answers.ids, answers.mask)

    def _picture_prefix(
        self, images: Images, questions: Sequence[str], grow: bool = False
    ) -> tuple[Prefix, list[list[int]]]:
        """Each picture once, then as many rows as there are questions about it; and the questions' own tokens."""
        before, rows = self.chat.questions(questions)
        lines = self.transformer.lines(images.codes if images.soft is None else images.soft)
        opening = self.transformer.embed(torch.tensor([before], device=lines.device)).expand(len(images), -1, -1)
        embeds = torch.cat((opening, lines.to(opening.dtype)), 1)
        keys = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        return prefill(self.transformer, embeds, keys).shared(len(questions), grow), rows
