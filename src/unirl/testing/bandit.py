"""The smallest problem that an update rule can learn: a table of codes for each prompt, one of them rewarded."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.functional.gumbel import straight_through
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, Rollout

CODES, KINDS, END = 4, 3, 3
"""Codes of a drawing, how many kinds there are, and the token that ends an answer: token k says "the code is k"."""
EXAMPLES = tuple(Example(f"draw {k}", "which is it ?", f"{k}", "bandit") for k in range(KINDS))
"""What can be asked for; a drawing is right if its first code is the one asked for."""
ANSWERING = AnswerSampling(max_tokens=2, temperature=1.0)


class Bandit(Backbone):
    """Draws from a table of logits for each prompt, and answers which code comes first, mostly right.

    Its palette is frozen, as a real model's image tokenizer is. It has no checkpoints.

    Args:
        relaxes: Whether codes can carry gradient; without, rules that learn through the drawing must refuse it.

    Example:
        >>> Bandit().sample_images(["draw 0"], ImageSampling(), torch.Generator().manual_seed(0)).codes.shape
        torch.Size([1, 4])
    """

    blocks = ()

    def __init__(self, relaxes: bool = True) -> None:
        super().__init__()
        self.relaxes = relaxes
        self.drawing = nn.Parameter(torch.linspace(-0.2, 0.2, len(EXAMPLES) * KINDS).view(len(EXAMPLES), 1, KINDS))
        self.place = nn.Parameter(torch.zeros(CODES, KINDS))
        self.seeing = nn.Parameter(F.pad(2.0 * torch.eye(KINDS), (0, 1)))
        self.ending = nn.Parameter(torch.tensor([0.0, 0.0, 0.0, 4.0]))
        self.palette = nn.Parameter(torch.eye(KINDS), requires_grad=False)

    def build(self, meta: bool = False) -> None:
        """Nothing is left to build."""

    @property
    def supports_straight_through(self) -> bool:
        return self.relaxes

    def logits(self, prompts: Sequence[str], sampling: ImageSampling) -> Tensor:
        """Of each code, (B, CODES, KINDS)."""
        rows = [int(prompt.split()[-1]) for prompt in prompts]
        tables = self.drawing + self.place
        guided = (1 + sampling.guidance) * tables[rows] - sampling.guidance * tables.mean(0)
        return guided / (sampling.temperature or 1.0)

    @torch.no_grad()
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        chances = self.logits(prompts, sampling).softmax(-1)
        codes = torch.multinomial(chances.flatten(0, 1), 1, generator=generator).view(len(prompts), CODES)
        return Images(codes, actions=codes, log_probs=_taken(chances.log(), codes))

    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        found = _taken(self.logits(prompts, sampling).log_softmax(-1), images.codes)
        order = torch.rand(found.shape, generator=generator).argsort(1)
        return found, order < (CODES if scored is None else scored)

    def image_log_likelihood(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        num_masks: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        found = _taken(self.logits(prompts, sampling).log_softmax(-1), images.codes).repeat(1, num_masks)
        hidden = torch.rand(found.shape, generator=generator) < 0.5
        return found, 2 * hidden / (CODES * num_masks)

    def straight_through(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        if not self.relaxes:
            return super().straight_through(prompts, images, sampling, temperature, steps, generator)
        soft = straight_through(self.logits(prompts, sampling), images.codes, temperature, generator)
        return dataclasses.replace(images, soft=soft)

    def decode(self, images: Images) -> Tensor:
        codes = F.one_hot(images.codes, KINDS).float() if images.soft is None else images.soft
        return (codes @ self.palette).mT.unflatten(2, (2, 2))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Images:
        return Images(pixels.flatten(2).argmax(1), pixels)

    @torch.no_grad()
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        logits = self._says(images, len(questions))[:, 0, :KINDS]
        greedy = not sampling.temperature
        chances = F.one_hot(logits.argmax(-1), KINDS).float() if greedy else (logits / sampling.temperature).softmax(-1)
        said = torch.multinomial(chances, 1, generator=generator).flatten().tolist()
        answers = self.tokenize_answers([str(token) for token in said])
        log_probs = self.answer_log_probs(images, questions, answers)
        return dataclasses.replace(answers, log_probs=log_probs)

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        ids = torch.tensor([[int(text), END] for text in texts])
        return Answers(ids, torch.ones_like(ids, dtype=torch.bool), list(texts))

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return _taken(self._says(images, len(questions)).log_softmax(-1), answers.ids)

    def _says(self, images: Images, questions: int) -> Tensor:
        codes = F.one_hot(images.codes, KINDS).float() if images.soft is None else images.soft
        first = (codes[:, 0] @ self.seeing).repeat_interleave(questions // len(images), 0)
        return torch.stack((first, self.ending.expand_as(first)), 1)

    @classmethod
    def from_pretrained(cls, path_or_id: str) -> "Bandit":
        raise UserError("a Bandit has no checkpoint; make one")

    def save_pretrained(self, path: str | Path) -> None:
        raise UserError("a Bandit has no checkpoint format")


def bandit_rollout(backbone: Bandit, group_size: int, sampling: ImageSampling, seed: int, prompts: int = 6) -> Rollout:
    """What a bandit draws, says and earns: 1 where the first code is the one asked for, else 0.

    Args:
        backbone: The policy.
        group_size: Drawings of each prompt.
        sampling: How to draw.
        seed: Of drawing and answering.
        prompts: How many groups.
    """
    generator = torch.Generator().manual_seed(seed)
    examples = [EXAMPLES[i % len(EXAMPLES)] for i in range(prompts) for _ in range(group_size)]
    images = backbone.sample_images([e.prompt for e in examples], sampling, generator)
    answers = backbone.sample_answers(images, [e.question for e in examples], ANSWERING, generator)
    scores = (images.codes[:, 0] == torch.tensor([int(e.answer) for e in examples])).float()
    return Rollout(examples, images, answers, scores, {"bandit": scores}, scores == 1, group_size)


def rewarded(backbone: Bandit, sampling: ImageSampling) -> float:
    """Chance, in [0, 1], that a drawing is rewarded, over all prompts."""
    with torch.no_grad():
        chances = backbone.logits([e.prompt for e in EXAMPLES], sampling)[:, 0].softmax(-1)
    return chances.diagonal().mean().item()


def _taken(log_probs: Tensor, ids: Tensor) -> Tensor:
    return log_probs.gather(-1, ids[..., None]).squeeze(-1)
