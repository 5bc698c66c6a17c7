"""A policy that is a table of logits, with and without random masks, and what it drew."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.types import Answers, Example, Images, ImageSampling, Rollout
from unirl.updates import UpdateRule
from unirl_dpo.dpo import DPO

EXAMPLES = [Example(prompt, "q", "a", "c") for prompt in ("0", "0", "0", "1", "1", "1")]
CODES = torch.tensor([[0, 1], [1, 1], [2, 0], [0, 0], [1, 2], [2, 2]])
SCORES = torch.tensor([1.0, 0.0, 0.5, 0.2, 0.2, 0.2])
"""The first group has a best and a worst; the second one is flat."""
SAMPLING = ImageSampling(steps=2)


class Table(Backbone):
    """Two codes of three kinds for each of two prompts."""

    blocks = ()

    def __init__(self) -> None:
        super().__init__()
        self.drawing = nn.Parameter(torch.randn(2, 3, generator=torch.Generator().manual_seed(0)))
        self.calls: list[tuple[list[str], list[list[int]]]] = []

    def image_log_probs(
        self, prompts: Sequence[str], images: Images, sampling: ImageSampling, scored: Any = None, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        self.calls.append((list(prompts), images.codes.tolist()))
        table = self.drawing.log_softmax(-1)[[int(p) for p in prompts]]
        return table.gather(1, images.codes), torch.ones_like(images.codes, dtype=torch.bool)


Table.__abstractmethods__ = frozenset()


class Masked(Table):
    """Scores one code of each picture, by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[list[float]]] = []

    def image_log_likelihood(
        self, prompts: Sequence[str], images: Images, sampling: ImageSampling, num_masks: int = 1, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        log_probs, _ = self.image_log_probs(prompts, images, sampling)
        shown = torch.rand(len(prompts), 2, generator=generator)
        weights = (shown == shown.amax(1, keepdim=True)).float()
        self.masks.append(weights.tolist())
        return log_probs, weights


def rollout(scores: Tensor = SCORES, **more: Any) -> Rollout:
    said = Answers(torch.zeros(6, 1, dtype=torch.long), torch.ones(6, 1, dtype=torch.bool), "a" * 6)
    return Rollout(EXAMPLES, Images(CODES), said, scores, {}, more.pop("accepted", scores == 1), 3, **more)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learn(rule: UpdateRule, policy: Table, batch: Rollout, update: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of an update, from a rollout that was prepared."""
    return rule.loss(policy, batch, SAMPLING, seeded(update))


def prepared(rule: UpdateRule, policy: Table, batch: Rollout, updates: int = 1) -> Rollout:
    with torch.no_grad():
        return rule.prepare(policy, batch, SAMPLING, [seeded(i) for i in range(updates)])


def slope(loss: Tensor, policy: Table) -> Tensor:
    return torch.autograd.grad(loss, policy.drawing, retain_graph=True)[0]


def push(policy: Table) -> None:
    """What learning may have done to it."""
    with torch.no_grad():
        policy.drawing += torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.5, 0.0]])


def attached(policy: Table, **options: Any) -> DPO:
    rule = DPO(**options)
    rule.attach(policy)
    return rule


def likelihoods(policy: Table) -> Tensor:
    """Log-likelihood of each drawing, the sum over its codes. (6,)"""
    return policy.drawing.log_softmax(-1)[[0, 0, 0, 1, 1, 1]].gather(1, CODES).sum(1)
