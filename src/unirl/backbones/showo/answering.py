"""Show-o's half that understands: questions about pictures, answered over cached prefixes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unirl.backbones.base import Backbone
from unirl.backbones.showo.sequences import QUESTION, pad_right
from unirl.backbones.showo.transformer import Prefix, Transformer
from unirl.decoding.text import sample_text
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
        rows = self._question_rows(questions)
        prefix = self._picture_prefix(images, len(questions), grow=True)
        hidden, keys = self.transformer.text_hidden(prefix, rows)
        length = keys.sum(1)
        first = hidden[torch.arange(len(rows), device=hidden.device), length - 1]
        step = self._answer_step(prefix, torch.cat((prefix.keys, keys), dim=1), prefix.end + length)
        end = self.tokenizer.eos_token_id
        ids, mask, log_probs = sample_text(step, self.transformer.text_logits(first), sampling, end, generator)
        texts = [self._text(row[keep]) for row, keep in zip(ids, mask, strict=True)]
        return Answers(ids, mask, texts, log_probs)

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        end = self.tokenizer.eos_token_id
        rows = [[*self.tokenizer(f" {t.strip()}", add_special_tokens=False)["input_ids"], end] for t in texts]
        mask = pad_right([[1] * len(row) for row in rows], 0).bool()
        device = self.transformer.device
        return Answers(pad_right(rows, end).to(device), mask.to(device), list(texts))

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        rows = self._question_rows(questions)
        lengths = torch.tensor([len(row) for row in rows], device=self.transformer.device)
        whole = [row + a[m].tolist() for row, a, m in zip(rows, answers.ids, answers.mask, strict=True)]
        hidden, _ = self.transformer.text_hidden(self._picture_prefix(images, len(questions)), whole)
        asked = lengths[:, None] - 1 + torch.arange(answers.ids.shape[1], device=lengths.device)
        asked = asked.clamp(max=hidden.shape[1] - 1).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        log_probs = self.transformer.text_logits(hidden.gather(1, asked)).float().log_softmax(-1)
        return log_probs.gather(-1, answers.ids.unsqueeze(-1)).squeeze(-1) * answers.mask

    def _question_rows(self, questions: Sequence[str]) -> list[list[int]]:
        texts = [QUESTION.format(question=question) for question in questions]
        return [
            [self.tokenizer.eos_token_id, *ids] for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]

    def _picture_prefix(self, images: Images, count: int, grow: bool = False) -> Prefix:
        """Each picture once, then as many rows as there are questions about it."""
        if count % len(images):
            raise ValueError(f"{count} questions about {len(images)} pictures: expected a multiple")
        prefix = self.transformer.picture_prefix(images.codes if images.soft is None else images.soft)
        index = torch.arange(len(images), device=self.transformer.device).repeat_interleave(count // len(images))
        return prefix.rows(index, grow)

    def _answer_step(self, prefix: Prefix, seen: Tensor, position: Tensor) -> Callable[[Tensor], Tensor]:
        """The next token's logits, given the token just drawn; remembers what went before."""
        state = {"seen": seen, "position": position}

        def step(token: Tensor) -> Tensor:
            itself = torch.ones(len(token), 1, dtype=torch.bool, device=token.device)
            state["seen"] = torch.cat((state["seen"], itself), dim=1)
            mask, positions = state["seen"][:, None, None, :], state["position"][:, None]
            hidden = self.transformer(self.transformer.embed(token[:, None]), mask, positions, prefix.cache)
            state["position"] = state["position"] + 1
            return self.transformer.text_logits(hidden[:, 0])

        return step

    def _text(self, ids: Tensor) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
