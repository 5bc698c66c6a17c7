"""Backbones whose gradients are wrong, one fault each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unirl.testing import TableBackbone
from unirl.types import Answers, Images


class TrainedTokenizer(TableBackbone):
    def build(self, meta: bool = False) -> None:
        super().build(meta)
        self.image_tokenizer.requires_grad_(True)


class SlopingSample(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        images = super().sample_images(prompts, sampling, generator)
        return replace(images, log_probs=self.image_log_probs(prompts, images, sampling)[0])


class SlopelessScore(TableBackbone):
    @torch.no_grad()
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        return super().image_log_probs(*args)


class SlopelessAnswers(TableBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(images, questions, answers).detach()


class DeafToSoft(TableBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(replace(images, soft=None), questions, answers) + 0 * self.embed_images.weight.sum()


class CutRelax(TableBackbone):
    def straight_through(self, *args: Any) -> Images:
        images = super().straight_through(*args)
        assert images.soft is not None
        return replace(images, soft=images.soft.detach())


class LeafRelax(TableBackbone):
    def straight_through(self, *args: Any) -> Images:
        images = super().straight_through(*args)
        assert images.soft is not None
        return replace(images, soft=images.soft.detach().requires_grad_())


class SoftRelax(TableBackbone):
    def straight_through(self, *args: Any) -> Images:
        images = super().straight_through(*args)
        assert images.soft is not None
        return replace(images, soft=(images.soft * 0.9))


class VagueRefusal(TableBackbone):
    supports_straight_through = False

    def straight_through(self, *args: Any) -> Images:
        raise TypeError("no")


class WrongCan(TableBackbone):
    supports_straight_through = False
