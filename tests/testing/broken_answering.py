"""Backbones that answer in a wrong way, one fault each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unirl.testing import TableBackbone
from unirl.types import Answers, Images


class Said(TableBackbone):
    """Answers as it should; derived ones change what comes out."""

    def altered(self, answers: Answers) -> Answers:
        return answers

    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return self.altered(super().sample_answers(images, questions, sampling, generator))


class LeftPadded(Said):
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        given = super().tokenize_answers(texts)
        return replace(given, ids=given.ids.flip(1), mask=given.mask.flip(1) | (torch.arange(given.ids.shape[1]) == 0))


class Endless(TableBackbone):
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        given = super().tokenize_answers(texts)
        return replace(given, mask=given.mask & (given.ids != 0))


class OneTextShort(Said):
    def altered(self, answers: Answers) -> Answers:
        return replace(answers, text=answers.text[1:])


class Rambling(TableBackbone):
    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return super().sample_answers(images, questions, replace(sampling, max_tokens=40), generator)


class UnmaskedAnswers(TableBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        every = replace(answers, mask=torch.ones_like(answers.mask))
        return super().answer_log_probs(images, questions, every)


class OtherQuestions(TableBackbone):
    """Repeats the pictures where it should repeat each."""

    def _asked(self, images: Images, questions: Sequence[str]) -> Tensor:
        rows = torch.arange(len(questions)) % len(images)
        return super()._asked(images[rows], questions)


class Blind(TableBackbone):
    def _asked(self, images: Images, questions: Sequence[str]) -> Tensor:
        return super()._asked(replace(images, codes=images.codes * 0), questions)


class Gossip(TableBackbone):
    def _asked(self, images: Images, questions: Sequence[str]) -> Tensor:
        asked = super()._asked(images, questions)
        return asked + 3 * asked.mean(0)


class UngeneratedAnswers(TableBackbone):
    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return super().sample_answers(images, questions, sampling)


class WarmAnswers(TableBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(images, questions, answers) / 0.7
