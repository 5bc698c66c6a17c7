"""An update rule that breaks the contract is told so, in words that name the fault."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unirl.backbones import Backbone
from unirl.errors import UserError
from unirl.functional.advantages import group_advantages, group_mean
from unirl.functional.reductions import zero_loss
from unirl.testing import UpdateConformance
from unirl.types import ImageSampling, Rollout
from unirl.updates import UpdateRule

Faults = Callable[[object], str]


class Reinforce(UpdateRule):
    """The group's mean as baseline: a right one, from which the broken ones differ in a line."""

    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if group_size < 2:
            raise UserError(f"group_size is {group_size}; take 2 or more")

    def gains(self, rollout: Rollout) -> Tensor:
        return rollout.kept * group_advantages(rollout.scores, rollout.group_size, weights=rollout.kept)

    def log_probs(self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: Any) -> Tensor:
        log_probs, mask = backbone.image_log_probs(rollout.prompts, rollout.images, sampling, 2, generator)
        return (log_probs * mask).sum(1)

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.log_probs(backbone, rollout, sampling, generator)
        return -(self.gains(rollout) * found).mean() + zero_loss(backbone), {"likelihood": found.detach().mean()}


class Flipped(Reinforce):
    def gains(self, rollout: Rollout) -> Tensor:
        return -super().gains(rollout)


class WrongSlope(Reinforce):
    def loss(self, *given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*given)
        return 2 * loss.detach() - loss, logs


class GlobalChance(Reinforce):
    def log_probs(self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: Any) -> Tensor:
        return super().log_probs(backbone, rollout, sampling, None)


class FlatNaN(Reinforce):
    def gains(self, rollout: Rollout) -> Tensor:
        groups = rollout.scores.view(-1, rollout.group_size)
        return rollout.kept * ((groups - groups.mean(1, keepdim=True)) / groups.std(1, keepdim=True)).flatten()


class NoneAcceptedNaN(Reinforce):
    def gains(self, rollout: Rollout) -> Tensor:
        return super().gains(rollout) / rollout.accepted.sum() * 8


class Weightless(Reinforce):
    def gains(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.scores, rollout.group_size)


class WeightlessBaseline(Reinforce):
    def gains(self, rollout: Rollout) -> Tensor:
        return rollout.kept * (rollout.scores - group_mean(rollout.scores, rollout.group_size))


class LeakyReference(Reinforce):
    def attach(self, backbone: Backbone) -> None:
        self.reference = copy.deepcopy(backbone)

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(backbone, rollout, sampling, generator)
        held, _ = self.reference.image_log_probs(rollout.prompts, rollout.images, sampling)
        return loss + 0.01 * held.mean(), logs


class SameReference(Reinforce):
    def attach(self, backbone: Backbone) -> None:
        self.reference = [backbone]


class FollowingReference(LeakyReference):
    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.reference.load_state_dict(backbone.state_dict())
        return Reinforce.loss(self, backbone, rollout, sampling, generator)


class FreezingAttach(Reinforce):
    def attach(self, backbone: Backbone) -> None:
        backbone.seeing.requires_grad_(False)  # type: ignore[union-attr]


class SomeParameters(Reinforce):
    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return -(self.gains(rollout) * self.log_probs(backbone, rollout, sampling, generator)).mean(), {}


class Vector(Reinforce):
    def loss(self, *given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*given)
        return loss.expand(3), logs


class Detached(Reinforce):
    def loss(self, *given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*given)
        return loss.detach(), logs


class Alone(Reinforce):
    def loss(self, *given: Any) -> Any:
        return super().loss(*given)[0]


class LogsWithGradient(Reinforce):
    def loss(self, *given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*given)
        return loss, {**logs, "mine": loss}


class LogsVectors(Reinforce):
    def loss(self, *given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*given)
        return loss, {**logs, "mine": torch.ones(4)}


class LogsByContent(Reinforce):
    def loss(self, *given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*given)
        return loss, {**logs, "mine": torch.ones(())} if given[1].accepted.any() else logs


class InPlace(Reinforce):
    def gains(self, rollout: Rollout) -> Tensor:
        rollout.scores.sub_(rollout.scores.mean())
        return super().gains(rollout)


class Rescoring(Reinforce):
    def prepare(self, backbone: Backbone, rollout: Rollout, *given: Any) -> Rollout:
        return replace(rollout, scores=rollout.scores + 1)


class OldOnce(Reinforce):
    def prepare(self, backbone: Backbone, rollout: Rollout, *given: Any) -> Rollout:
        return replace(rollout, old_log_probs=[{"image": rollout.scores}])


class NoCheckpoint(Reinforce):
    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        return replace(rollout, old_log_probs=[{"image": Reinforce()} for _ in generators])  # type: ignore[dict-item]


class Unchecked(FlatNaN):
    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        pass


class UncheckedRelaxing(Reinforce):
    def log_probs(self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: Any) -> Tensor:
        backbone.straight_through(rollout.prompts, rollout.images, sampling, generator=generator)
        return super().log_probs(backbone, rollout, sampling, generator)


def judged(faults: Faults, kind: type[UpdateRule]) -> str:
    class Kit(UpdateConformance):
        steps, lr = 60, 0.1

        def make(self) -> UpdateRule:
            return kind()

    return faults(Kit())


def test_a_right_one_passes(faults: Faults) -> None:
    assert judged(faults, Reinforce) == ""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Flipped, "Flipped.loss does not teach what is rewarded: the share of rewarded drawings went from 0.3"),
        (WrongSlope, "WrongSlope.loss does not fall when it is minimised"),
        (GlobalChance, "GlobalChance.loss or prepare draws from a global generator"),
        (FlatNaN, "(the rollout has: equal scores, nothing accepted)"),
        (NoneAcceptedNaN, "(the rollout has: mixed scores, nothing accepted)"),
        (Weightless, "Weightless.loss learns from samples of weight 0"),
        (WeightlessBaseline, "WeightlessBaseline.loss learns from samples of weight 0"),
        (LeakyReference, "LeakyReference.loss: a gradient reaches ['drawing'] of a model that attach kept"),
        (SameReference, "SameReference.attach keeps the model itself"),
        (FollowingReference, "FollowingReference.attach keeps a model whose ['drawing'] changed in training"),
        (FreezingAttach, "FreezingAttach.attach changes the model that it looks at"),
        (SomeParameters, "SomeParameters.loss: no gradient reaches the trainable parameter 'seeing'"),
        (Vector, "Vector.loss returned a loss of shape (3,), expected a scalar"),
        (Detached, "Detached.loss returned a loss without gradient"),
        (Alone, "Alone.loss returned a Tensor, expected the loss and a dict"),
        (LogsWithGradient, "LogsWithGradient.loss logs 'mine' with gradient"),
        (LogsVectors, "LogsVectors.loss logs 'mine' with shape (4,), expected a scalar"),
        (LogsByContent, "processes that log different names wait for each other forever"),
        (InPlace, "InPlace.loss changes the rollout in place"),
        (Rescoring, "Rescoring.prepare changes what was drawn or earned"),
        (OldOnce, "OldOnce.prepare gave old_log_probs for 1 updates, expected 2"),
        (NoCheckpoint, "NoCheckpoint.prepare adds to the rollout what no checkpoint can hold"),
        (Unchecked, "Unchecked.check allows group_size 1, but training fails"),
        (UncheckedRelaxing, "UncheckedRelaxing.check allows a backbone that cannot relax, but training fails"),
    ],
)
def test_a_broken_one_is_told_what_is_wrong(faults: Faults, kind: type[UpdateRule], message: str) -> None:
    assert message in judged(faults, kind)
