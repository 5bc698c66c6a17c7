"""A policy that is a table of logits, with and without random masks, and a rollout of it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unirl import Answers, Example, Images, ImageSampling, Rollout
from unirl.backbones import Backbone
from unirl.updates import UpdateRule
from unirl_dpo.dpo import DPO

EXAMPLES = [Example(prompt, "q", "a", "c") for prompt in ("0", "0", "0", "1", "1", "1")]
CODES = torch.tensor([[0, 1], [1, 1], [2, 0], [0, 0], [1, 2], [2, 2]])
SCORES = torch.tensor([1.0, 0.0, 0.5, 0.2, 0.2, 0.2])
"""The first group has a best and a worst sample; the second one has equal scores."""
SAMPLING = ImageSampling(steps=2)


class TablePolicy(Backbone):
    """Two codes of three values for each of two prompts."""

    blocks = ()

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(2, 3, generator=torch.Generator().manual_seed(0)))
        self.calls: list[tuple[list[str], list[list[int]]]] = []

    def image_log_probs(
        self, prompts: Sequence[str], images: Images, sampling: ImageSampling, scored: Any = None, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        self.calls.append((list(prompts), images.codes.tolist()))
        log_probs = self.logits.log_softmax(-1)[[int(p) for p in prompts]]
        return log_probs.gather(1, images.codes), torch.ones_like(images.codes, dtype=torch.bool)


TablePolicy.__abstractmethods__ = frozenset()


class MaskedTablePolicy(TablePolicy):
    """Scores one random code of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[list[float]]] = []

    def image_log_likelihood(
        self, prompts: Sequence[str], images: Images, sampling: ImageSampling, num_masks: int = 1, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        log_probs, _ = self.image_log_probs(prompts, images, sampling)
        order = torch.rand(len(prompts), 2, generator=generator)
        weights = (order == order.amax(1, keepdim=True)).float()
        self.masks.append(weights.tolist())
        return log_probs, weights


def rollout(scores: Tensor = SCORES, **options: Any) -> Rollout:
    answers = Answers(torch.zeros(6, 1, dtype=torch.long), torch.ones(6, 1, dtype=torch.bool), "a" * 6)
    return Rollout(EXAMPLES, Images(CODES), answers, scores, {}, options.pop("accepted", scores == 1), 3, **options)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def compute_loss(
    rule: UpdateRule, policy: TablePolicy, batch: Rollout, iteration: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and metrics of an iteration on a prepared rollout."""
    return rule.loss(policy, batch, SAMPLING, seeded(iteration))


def prepared(rule: UpdateRule, policy: TablePolicy, batch: Rollout, iterations: int = 1) -> Rollout:
    with torch.no_grad():
        return rule.prepare(policy, batch, SAMPLING, [seeded(i) for i in range(iterations)])


def gradient(loss: Tensor, policy: TablePolicy) -> Tensor:
    return torch.autograd.grad(loss, policy.logits, retain_graph=True)[0]


def change(policy: TablePolicy) -> None:
    """Change the policy as training would."""
    with torch.no_grad():
        policy.logits += torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.5, 0.0]])


def attached(policy: TablePolicy, **options: Any) -> DPO:
    rule = DPO(**options)
    rule.attach(policy)
    return rule


def log_likelihoods(policy: TablePolicy) -> Tensor:
    """Log-likelihood of each image, the sum over its codes. (6,)"""
    return policy.logits.log_softmax(-1)[[0, 0, 0, 1, 1, 1]].gather(1, CODES).sum(1)
