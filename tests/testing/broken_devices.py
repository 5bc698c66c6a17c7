"""Backbones with one error each that only another device than the CPU shows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unirl.testing import TinyBackbone
from unirl.types import Answers


class ForgottenConstant(TinyBackbone):
    """Holds a constant that is not a buffer, and so stays on the CPU."""

    def build(self, meta: bool = False) -> None:
        super().build(meta)
        self.scales = torch.ones(self.codebook_size)

    def _code_logits(self, texts: Tensor, codes: Tensor, guidance: float) -> Tensor:
        return super()._code_logits(texts, codes, guidance) * self.scales


class TokenizesOnCPU(TinyBackbone):
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        answers = super().tokenize_answers(texts)
        return Answers(answers.ids.cpu(), answers.mask.cpu(), answers.text)


class WrongOnAnotherDevice(TinyBackbone):
    def image_log_probs(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args, **options)
        return (log_probs if log_probs.is_cpu else log_probs - 1), mask


class ReadsEachCode(TinyBackbone):
    def _code_logits(self, texts: Tensor, codes: Tensor, guidance: float) -> Tensor:
        assert codes.max().item() < self.codebook_size
        return super()._code_logits(texts, codes, guidance)


class CopiesForEachCode(TinyBackbone):
    def _code_logits(self, texts: Tensor, codes: Tensor, guidance: float) -> Tensor:
        return super()._code_logits(texts, codes, guidance) + torch.zeros(self.codebook_size).to(texts.device)


class ReadsEachTokenTwice(TinyBackbone):
    def _token_logits(self, context: Tensor, tokens: Tensor) -> Tensor:
        assert tokens.min().item() >= 0
        return super()._token_logits(context, tokens)


class ReadsEachAnswer(TinyBackbone):
    def sample_answers(self, *args: Any, **options: Any) -> Answers:
        answers = super().sample_answers(*args, **options)
        assert all(min(ids.tolist()) >= 0 for ids in answers.ids)
        return answers
