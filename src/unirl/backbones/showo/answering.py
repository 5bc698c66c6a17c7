"""Show-o's half that understands: questions about pictures, answered over cached prefixes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unirl.backbones.base import Backbone
from unirl.backbones.showo.sequences import QUESTION
from unirl.backbones.showo.transformer import Transformer
from unirl.decoding.answers import answer_log_probs, sample_answers
from unirl.decoding.packing import packed
from unirl.decoding.prefix import Prefix, pad_right
from unirl.types import Answers, AnswerSampling, Images


class Answering(Backbone):
    """The answering methods of `Showo`, which draws with the same transformer."""

    transformer: Transformer
    tokenizer: PreTrainedTokenizerBase

    @torch.no_grad()
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        end = self.tokenizer.eos_token_id
        with packed(self.transformer):
            prefix, rows = self._picture_prefix(images, len(questions), grow=True), self._question_rows(questions)
            ids, mask, log_probs = sample_answers(self.transformer, prefix, rows, sampling, end, generator)
        texts = [self._text(row[keep]) for row, keep in zip(ids, mask, strict=True)]
        return Answers(ids, mask, texts, log_probs)

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        end = self.tokenizer.eos_token_id
        rows = [[*self.tokenizer(f" {t.strip()}", add_special_tokens=False)["input_ids"], end] for t in texts]
        ids, mask = (part.to(self.transformer.device) for part in pad_right(rows, end))
        return Answers(ids, mask, list(texts))

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        prefix, rows = self._picture_prefix(images, len(questions)), self._question_rows(questions)
        return answer_log_probs(self.transformer, prefix, rows, answers.ids, answers.mask)

    def _question_rows(self, questions: Sequence[str]) -> list[list[int]]:
        texts = [QUESTION.format(question=question) for question in questions]
        return [
            [self.tokenizer.eos_token_id, *ids] for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]

    def _picture_prefix(self, images: Images, count: int, grow: bool = False) -> Prefix:
        """Each picture once, then as many rows as there are questions about it."""
        prefix = self.transformer.picture_prefix(images.codes if images.soft is None else images.soft)
        return prefix.shared(count, grow)

    def _text(self, ids: Tensor) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
