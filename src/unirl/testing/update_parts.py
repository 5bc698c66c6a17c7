"""What `UpdateConformance` needs beside its checks."""

import copy
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from unirl.testing.bandit import KINDS, Bandit, bandit_rollout
from unirl.testing.checks import held_modules, who
from unirl.types import ImageSampling, Rollout
from unirl.updates.base import UpdateRule

Gradients = dict[str, Tensor]


def seeded(seed: int = 1) -> torch.Generator:
    """A generator in a known state."""
    return torch.Generator().manual_seed(seed)


class Learning:
    """A rule attached to a bandit, with a rollout to learn from.

    Args:
        rule: Fresh.
        group_size: Drawings of each prompt.
        sampling: How to draw.
        backbone: The policy; a fresh bandit by default.
    """

    def __init__(
        self, rule: UpdateRule, group_size: int, sampling: ImageSampling, backbone: Bandit | None = None
    ) -> None:
        self.rule, self.sampling, self.backbone = rule, sampling, backbone or Bandit()
        self.rollout = bandit_rollout(self.backbone, group_size, sampling, seed=0)
        rule.attach(self.backbone)

    def loss(self, rollout: Rollout | None = None, seed: int = 1) -> tuple[Tensor, Mapping[str, object]]:
        """The rule's loss and logs, refused where they could not be trained with."""
        given: Any = self.rule.loss(self.backbone, rollout or self.rollout, self.sampling, seeded(seed))
        where = who(self.rule, "loss")
        pair = isinstance(given, tuple) and len(given) == 2
        assert pair, f"{where} returned a {type(given).__name__}, expected the loss and a dict of what to log"
        loss, logs = given
        assert isinstance(loss, Tensor), f"{where} returned a {type(loss).__name__} for a loss, expected a tensor"
        assert loss.shape == (), f"{where} returned a loss of shape {tuple(loss.shape)}, expected a scalar"
        assert torch.isfinite(loss), f"{where} returned a loss of {loss.item()}, expected a finite number"
        assert loss.requires_grad, f"{where} returned a loss without gradient: nothing would be learnt"
        _check_logs(where, logs)
        return loss, logs

    def gradients(self, rollout: Rollout | None = None, seed: int = 1) -> tuple[Tensor, Gradients]:
        """The loss and the gradient of every trainable parameter, finite."""
        self.backbone.zero_grad()
        loss, _ = self.loss(rollout, seed)
        loss.backward()
        trained = {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}
        missing = [name for name, p in trained.items() if p.grad is None]
        assert not missing, (
            f"{who(self.rule, 'loss')}: no gradient reaches the trainable parameter {missing[0]!r}, and training on "
            "several devices stops there: add unirl.functional.losses.nothing(backbone)"
        )
        slopes = {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}
        bad = [name for name, slope in slopes.items() if not torch.isfinite(slope).all()]
        assert not bad, f"{who(self.rule, 'loss')}: the gradient of {bad} is not finite"
        return loss.detach(), slopes

    def steps(self, count: int, lr: float, fresh: bool) -> list[float]:
        """Train, and return the loss of each step.

        Args:
            count: How many steps.
            lr: Of Adam.
            fresh: Whether each step learns from a rollout of its own, or all from the first, as later updates do.
        """
        optimizer = torch.optim.Adam([p for p in self.backbone.parameters() if p.requires_grad], lr)
        size, updates = self.rollout.group_size, 1 if fresh else 2
        rollout, losses = self.prepared(self.rollout, updates), []
        for step in range(count):
            if fresh:
                rollout = self.prepared(bandit_rollout(self.backbone, size, self.sampling, seed=step), updates)
            loss, _ = self.loss(rollout, seed=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def prepared(self, rollout: Rollout, updates: int) -> Rollout:
        """The rollout as the rule prepares it for so many updates."""
        generators = [seeded(i + 1) for i in range(updates)]
        given: object = self.rule.prepare(self.backbone, rollout, self.sampling, generators)
        where = who(self.rule, "prepare")
        assert isinstance(given, Rollout), f"{where} returned a {type(given).__name__}, expected a Rollout"
        return given

    def kept(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the models that the rule holds, other than those in training."""
        own = {id(parameter) for parameter in self.backbone.parameters()}
        for module in held_modules(self.rule):
            yield from ((name, p) for name, p in module.named_parameters() if id(p) not in own)


def cases(rollout: Rollout) -> dict[str, Rollout]:
    """What may happen to a rollout in training, by what it is."""
    ones, none = torch.ones_like(rollout.scores), torch.zeros_like(rollout.accepted)
    return {
        "mixed scores": rollout,
        "mixed scores, nothing accepted": replace(rollout, accepted=none),
        "equal scores, nothing accepted": replace(rollout, scores=0.3 * ones, accepted=none),
        "equal scores, everything accepted": replace(rollout, scores=ones, accepted=~none),
        "every sample of weight 0": replace(rollout, weights=0 * ones),
    }


def dropped(rollout: Rollout) -> tuple[Rollout, Rollout]:
    """Two rollouts that differ only in what was drawn, said and earned in samples of weight 0."""
    weights = torch.ones_like(rollout.scores)
    weights[:: rollout.group_size] = 0
    out = weights == 0
    codes, ids = rollout.images.codes.clone(), rollout.answers.ids.clone()
    codes[out] = (codes[out] + 1) % KINDS
    ids[out, 0] = (ids[out, 0] + 1) % KINDS
    images = replace(rollout.images, codes=codes, actions=codes)
    answers = replace(rollout.answers, ids=ids, text=[str(row[0]) for row in ids.tolist()])
    scores = torch.where(out, 1 - rollout.scores, rollout.scores)
    first = replace(rollout, weights=weights)
    return first, replace(first, images=images, answers=answers, scores=scores)


def assert_checkpointed(rollout: Rollout, where: str) -> None:
    """Assert that a stopped run could keep the rollout that it learns from."""
    file = io.BytesIO()
    try:
        torch.save(copy.deepcopy(rollout), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise AssertionError(f"{where} adds to the rollout what no checkpoint can hold: {error}") from error


def _check_logs(where: str, logs: object) -> None:
    assert isinstance(logs, Mapping), f"{where} returned logs as a {type(logs).__name__}, expected a dict"
    for name, value in logs.items():
        assert isinstance(name, str), f"{where} logs under {name!r}; names are strings"
        if isinstance(value, Tensor):
            assert value.numel() == 1, f"{where} logs {name!r} with shape {tuple(value.shape)}, expected a scalar"
            assert not value.requires_grad, f"{where} logs {name!r} with gradient, which keeps activations: detach it"
        else:
            assert isinstance(value, Number), f"{where} logs {name!r} as a {type(value).__name__}, expected a scalar"
        assert torch.isfinite(torch.as_tensor(value)), f"{where} logs {name!r} as {value}; it must be finite"
