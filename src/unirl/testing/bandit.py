"""The smallest problem that an update rule can solve: a contextual bandit over image codes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.functional.gumbel import straight_through
from unirl.functional.seeding import draw_rows, multinomial
from unirl.testing.comparison import make_generator
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, Rollout

NUM_CODES, CODEBOOK_SIZE, END_TOKEN = 4, 3, 3
"""Codes of an image, size of the codebook, and the token that ends an answer. Answer token k means code k."""
BANDIT_EXAMPLES = tuple(Example(f"code {k}", "which code is first ?", f"{k}", "bandit") for k in range(CODEBOOK_SIZE))
"""An example for each code. An image is correct if its first code is the one in the prompt."""
BANDIT_ANSWER_SAMPLING = AnswerSampling(max_tokens=2, temperature=1.0)


class BanditBackbone(Backbone):
    """Samples image codes from a table of logits, and answers with the first code, mostly correctly.

    The palette is frozen, as the image tokenizer of a real model is. There are no checkpoints.

    Args:
        differentiable_codes: Whether `straight_through` is supported. Update rules that need it must refuse a backbone
            without it.

    Example:
        >>> BanditBackbone().sample_images(["code 0"], ImageSampling(), torch.Generator().manual_seed(0)).codes.shape
        torch.Size([1, 4])
    """

    blocks = ()

    def __init__(self, differentiable_codes: bool = True) -> None:
        super().__init__()
        self.differentiable_codes = differentiable_codes
        rows = len(BANDIT_EXAMPLES)
        self.prompt_logits = nn.Parameter(
            torch.linspace(-0.2, 0.2, rows * CODEBOOK_SIZE, dtype=torch.float32).view(rows, 1, CODEBOOK_SIZE)
        )
        self.position_logits = nn.Parameter(torch.zeros(NUM_CODES, CODEBOOK_SIZE, dtype=torch.float32))
        self.answer_logits = nn.Parameter(F.pad(2.0 * torch.eye(CODEBOOK_SIZE, dtype=torch.float32), (0, 1)))
        self.end_logits = nn.Parameter(torch.tensor([0.0, 0.0, 0.0, 4.0], dtype=torch.float32))
        self.palette = nn.Parameter(torch.eye(CODEBOOK_SIZE, dtype=torch.float32), requires_grad=False)

    @override
    def build(self, meta: bool = False) -> None:
        """Does nothing: the constructor creates all parameters."""

    @property
    @override
    def supports_straight_through(self) -> bool:
        return self.differentiable_codes

    def code_logits(self, prompts: Sequence[str], sampling: ImageSampling) -> Tensor:
        """Guided logits (B, N, K) of each code, divided by the temperature."""
        rows = [int(prompt.split()[-1]) for prompt in prompts]
        logits = self.prompt_logits + self.position_logits
        guided = (1 + sampling.guidance) * logits[rows] - sampling.guidance * logits.mean(0)
        return guided / (sampling.temperature or 1.0)

    @torch.no_grad()
    @override
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        probabilities = self.code_logits(prompts, sampling).softmax(-1)
        codes = multinomial(probabilities, generator)
        return Images(codes, actions=codes, log_probs=_gather(probabilities.log(), codes))

    @override
    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored_steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        log_probs = _gather(self.code_logits(prompts, sampling).log_softmax(-1), images.codes)
        order = _uniforms(log_probs, generator).argsort(1)
        return log_probs, order < (NUM_CODES if scored_steps is None else scored_steps)

    @override
    def image_log_likelihood(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        num_masks: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        log_probs = _gather(self.code_logits(prompts, sampling).log_softmax(-1), images.codes).repeat(1, num_masks)
        masked = _uniforms(log_probs, generator) < 0.5
        return log_probs, 2 * masked / (NUM_CODES * num_masks)

    @override
    def straight_through(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        if not self.differentiable_codes:
            return super().straight_through(prompts, images, sampling, temperature, steps, generator)
        soft = straight_through(self.code_logits(prompts, sampling), images.codes, temperature, generator)
        return dataclasses.replace(images, soft=soft)

    @override
    def decode(self, images: Images) -> Tensor:
        return (_one_hot(images) @ self.palette).mT.unflatten(2, (2, 2))

    @torch.no_grad()
    @override
    def encode(self, pixels: Tensor) -> Images:
        return Images(pixels.flatten(2).argmax(1), pixels)

    @torch.no_grad()
    @override
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        logits = self._token_logits(images, len(questions))[:, 0, :CODEBOOK_SIZE]
        if sampling.temperature:
            probabilities = (logits / sampling.temperature).softmax(-1)
        else:
            probabilities = F.one_hot(logits.argmax(-1), CODEBOOK_SIZE).float()
        tokens = multinomial(probabilities, generator).tolist()
        answers = self.tokenize_answers([str(token) for token in tokens])
        log_probs = self.answer_log_probs(images, questions, answers)
        return dataclasses.replace(answers, log_probs=log_probs)

    @override
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        ids = torch.tensor([[int(text), END_TOKEN] for text in texts], device=self.palette.device)
        return Answers(ids, torch.ones_like(ids, dtype=torch.bool), list(texts))

    @override
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return _gather(self._token_logits(images, len(questions)).log_softmax(-1), answers.ids)

    def _token_logits(self, images: Images, num_questions: int) -> Tensor:
        """Logits (B, 2, K + 1) of the two tokens of each answer."""
        first = (_one_hot(images)[:, 0] @ self.answer_logits).repeat_interleave(num_questions // len(images), 0)
        return torch.stack((first, self.end_logits.expand_as(first)), 1)

    @classmethod
    @override
    def from_pretrained(cls, path_or_id: str) -> "BanditBackbone":
        raise UserError(f"BanditBackbone has no checkpoints, got {path_or_id!r}; call its constructor")

    @override
    def save_pretrained(self, path: str | Path) -> None:
        raise UserError(f"BanditBackbone has no checkpoint format and cannot be saved to {path}")


def make_bandit_rollout(
    backbone: BanditBackbone, group_size: int, sampling: ImageSampling, seed: int, num_prompts: int = 6
) -> Rollout:
    """A rollout of a bandit. The reward is 1 where the first code is the one in the prompt, else 0.

    Args:
        backbone: The policy.
        group_size: Samples of each prompt.
        sampling: How images are sampled.
        seed: Seed of images and answers.
        num_prompts: Number of groups.

    Example:
        >>> rollout = make_bandit_rollout(BanditBackbone(), 4, ImageSampling(), seed=0)
        >>> len(rollout), rollout.prompts[0], set(rollout.scores.tolist()) <= {0.0, 1.0}
        (24, 'code 0', True)
    """
    generator = make_generator(seed)
    examples = [BANDIT_EXAMPLES[i % len(BANDIT_EXAMPLES)] for i in range(num_prompts) for _ in range(group_size)]
    images = backbone.sample_images([e.prompt for e in examples], sampling, generator)
    answers = backbone.sample_answers(images, [e.question for e in examples], BANDIT_ANSWER_SAMPLING, generator)
    scores = (images.codes[:, 0] == torch.tensor([int(e.answer) for e in examples])).float()
    return Rollout(examples, images, answers, scores, {"bandit": scores}, scores == 1, group_size)


def make_answer_rollout(backbone: BanditBackbone, group_size: int, sampling: ImageSampling, seed: int) -> Rollout:
    """A rollout in which all images are correct, and the scores are those of the answers about them.

    Args:
        backbone: The policy.
        group_size: Samples of each prompt.
        sampling: How images are sampled.
        seed: Of the sampled codes and answers.

    Shapes:
        B = 6 group_size; scores in {0, 1}, accepted where 1.
    """
    rollout = make_bandit_rollout(backbone, group_size, sampling, seed)
    codes, correct = rollout.images.codes.clone(), torch.tensor([int(e.answer) for e in rollout.examples])
    codes[:, 0] = correct
    with torch.no_grad():
        log_probs, _ = backbone.image_log_probs(rollout.prompts, Images(codes), sampling)
    images, generator = Images(codes, actions=codes, log_probs=log_probs), make_generator(seed)
    answers = backbone.sample_answers(images, rollout.questions, BANDIT_ANSWER_SAMPLING, generator)
    scores = (answers.ids[:, 0] == correct).float()
    parts, accepted = {"bandit": scores}, scores == 1
    return dataclasses.replace(
        rollout, images=images, answers=answers, scores=scores, score_parts=parts, accepted=accepted
    )


def expected_accuracy(backbone: BanditBackbone) -> float:
    """Exact probability of a correct answer about an image, over all codes, in [0, 1]."""
    with torch.no_grad():
        return backbone.answer_logits.softmax(-1).diagonal().mean().item()


def expected_reward(backbone: BanditBackbone, sampling: ImageSampling) -> float:
    """Exact expected reward of the bandit over all prompts, in [0, 1]."""
    with torch.no_grad():
        probabilities = backbone.code_logits([e.prompt for e in BANDIT_EXAMPLES], sampling)[:, 0].softmax(-1)
    return probabilities.diagonal().mean().item()


def _one_hot(images: Images) -> Tensor:
    return F.one_hot(images.codes, CODEBOOK_SIZE).float() if images.soft is None else images.soft


def _uniforms(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform random numbers (B, A) for the decisions of B images."""

    def draw(rows: int, source: torch.Generator | None) -> Tensor:
        return torch.rand(rows, like.shape[1], generator=source, dtype=torch.float32, device=like.device)

    return draw_rows(draw, len(like), generator)


def _gather(log_probs: Tensor, ids: Tensor) -> Tensor:
    return log_probs.gather(-1, ids[..., None]).squeeze(-1)
