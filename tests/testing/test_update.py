"""UpdateConformance detects errors in an update rule and describes them."""

import copy
import re
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
from unirl.testing.pretend import is_supported
from unirl.types import ImageSampling, Rollout
from unirl.updates import UpdateRule, scoring_batch

Failures = Callable[[object], str]


class Reinforce(UpdateRule):
    """Correct: REINFORCE with group advantages."""

    loss_unit = "sample"

    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if group_size < 2:
            raise UserError(f"group_size is {group_size}; take 2 or more")

    def advantages(self, rollout: Rollout) -> Tensor:
        return rollout.sample_weights * group_advantages(
            rollout.advantage_rewards, rollout.group_size, weights=rollout.sample_weights
        )

    def log_probs(self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: Any) -> Tensor:
        batch = scoring_batch(backbone, rollout)
        generator = generator and batch.generator(generator)
        log_probs, mask = backbone.image_log_probs(batch.prompts, batch.images, sampling, 2, generator)
        return (log_probs * mask).sum(1)

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        log_probs = self.log_probs(backbone, rollout, sampling, generator)
        loss = -(self.advantages(rollout)[rollout.rows] * log_probs).sum() / len(rollout)
        return loss + zero_loss(backbone), {"likelihood": log_probs.detach().sum() / len(rollout)}


class WrongSign(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        return -super().advantages(rollout)


class WrongAnswerSign(Reinforce):
    """Trains both tasks, and answers in the wrong direction."""

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(backbone, rollout, sampling, generator)
        batch = scoring_batch(backbone, rollout)
        weights = rollout.answer_weights[batch.answer_rows]
        advantages = self.advantages(rollout)[batch.rows].repeat_interleave(rollout.num_questions)
        log_probs = backbone.answer_log_probs(batch.images, batch.questions, batch.answers).sum(1)
        return loss + (weights * advantages * log_probs).sum() / len(rollout), logs


class ScoresCompared(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        return super().advantages(replace(rollout, normalized_rewards=None))


class ScoresAdded(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        return super().advantages(rollout) * (1 + rollout.scores)


class WrongGradient(Reinforce):
    def loss(self, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*args)
        return 2 * loss.detach() - loss, logs


class GlobalRng(Reinforce):
    def log_probs(self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: Any) -> Tensor:
        return super().log_probs(backbone, rollout, sampling, None)


class NaNForEqualScores(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        groups = rollout.scores.view(-1, rollout.group_size)
        return (
            rollout.sample_weights * ((groups - groups.mean(1, keepdim=True)) / groups.std(1, keepdim=True)).flatten()
        )


class NaNWithoutAccepted(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        return super().advantages(rollout) / rollout.accepted.sum() * 8


class IgnoredWeights(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.scores, rollout.group_size)


class UnweightedBaseline(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        return rollout.sample_weights * (rollout.scores - group_mean(rollout.scores, rollout.group_size))


class TrainedReference(Reinforce):
    def attach(self, backbone: Backbone) -> None:
        self.reference = copy.deepcopy(backbone)

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(backbone, rollout, sampling, generator)
        reference_log_probs, _ = self.reference.image_log_probs(rollout.prompts, rollout.images, sampling)
        return loss + 0.01 * reference_log_probs.mean(), logs


class SharedReference(Reinforce):
    def attach(self, backbone: Backbone) -> None:
        self.reference = [backbone]


class UpdatedReference(TrainedReference):
    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.reference.load_state_dict(backbone.state_dict())
        return Reinforce.loss(self, backbone, rollout, sampling, generator)


class FreezingAttach(Reinforce):
    def attach(self, backbone: Backbone) -> None:
        backbone.answer_logits.requires_grad_(False)  # type: ignore[union-attr]


class SomeParameters(Reinforce):
    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return -(self.advantages(rollout) * self.log_probs(backbone, rollout, sampling, generator)).mean(), {}


class MeanOfMicroBatch(Reinforce):
    def loss(self, backbone: Backbone, rollout: Rollout, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(backbone, rollout, *args)
        return loss * len(rollout) / len(rollout.rows), logs


class OtherMasks(Reinforce):
    def log_probs(self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: Any) -> Tensor:
        batch = scoring_batch(backbone, rollout)
        log_probs, mask = backbone.image_log_probs(batch.prompts, batch.images, sampling, 2, generator)
        return (log_probs * mask).sum(1)


class SkippedScoring(Reinforce):
    def loss(self, backbone: Backbone, rollout: Rollout, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(backbone, rollout, *args)
        if rollout.accepted.any():
            answers = rollout.answers[rollout.rows]
            questions = [rollout.questions[i] for i in rollout.rows.tolist()]
            loss = loss - backbone.answer_log_probs(rollout.images[rollout.rows], questions, answers).sum() * 0
        return loss, logs


class SkippedBackward(Reinforce):
    def loss(self, backbone: Backbone, rollout: Rollout, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(backbone, rollout, *args)
        return loss if rollout.accepted.any() else zero_loss(backbone), logs


class CountedDummy(Reinforce):
    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        batch = scoring_batch(backbone, rollout, self.advantages(rollout) > 0)
        if not len(batch):
            return zero_loss(backbone), {}
        log_probs, _ = backbone.image_log_probs(batch.prompts, batch.images, sampling)
        return zero_loss(backbone) - log_probs.sum() / len(rollout), {}


class OneAnswer(Reinforce):
    def loss(self, backbone: Backbone, rollout: Rollout, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(backbone, rollout, *args)
        questions = [example.question for example in rollout.examples]
        log_probs = backbone.answer_log_probs(rollout.images, questions, rollout.answers[: len(rollout)])
        return loss - (log_probs.sum(1) * rollout.scores).mean(), logs


class VectorLoss(Reinforce):
    def loss(self, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*args)
        return loss.expand(3), logs


class DetachedLoss(Reinforce):
    def loss(self, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*args)
        return loss.detach(), logs


class LossOnly(Reinforce):
    def loss(self, *args: Any) -> Any:
        return super().loss(*args)[0]


class LogsWithGradient(Reinforce):
    def loss(self, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*args)
        return loss, {**logs, "metric": loss}


class LogsVectors(Reinforce):
    def loss(self, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*args)
        return loss, {**logs, "metric": torch.ones(4)}


class VariableLogs(Reinforce):
    def loss(self, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(*args)
        return loss, {**logs, "metric": torch.ones(())} if args[1].accepted.any() else logs


class InPlace(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        rollout.scores.sub_(rollout.scores.mean())
        return super().advantages(rollout)


class ChangedScores(Reinforce):
    def prepare(self, backbone: Backbone, rollout: Rollout, *args: Any) -> Rollout:
        return replace(rollout, scores=rollout.scores + 1)


class OneOldLogProb(Reinforce):
    def prepare(self, backbone: Backbone, rollout: Rollout, *args: Any) -> Rollout:
        return replace(rollout, old_log_probs=[{"image": rollout.scores}])


class UnsavableRollout(Reinforce):
    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        return replace(rollout, old_log_probs=[{"image": Reinforce()} for _ in generators])  # type: ignore[dict-item]


class UncheckedGroupSize(NaNForEqualScores):
    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        pass


class UncheckedStraightThrough(Reinforce):
    def log_probs(self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: Any) -> Tensor:
        backbone.straight_through(rollout.prompts, rollout.images, sampling, generator=generator)
        return super().log_probs(backbone, rollout, sampling, generator)


class MixedDevices(Reinforce):
    def advantages(self, rollout: Rollout) -> Tensor:
        return super().advantages(rollout) * torch.ones(len(rollout))


CASES: list[tuple[type[UpdateRule], str]] = [
    (MixedDevices, "MixedDevices.loss or prepare failed on another device than the CPU: Expected all tensors"),
    (WrongSign, "WrongSign.loss took the expected reward from 0.3"),
    (WrongAnswerSign, "WrongAnswerSign.loss took the probability of correct answers from 0.71 to 0."),
    (ScoresCompared, "ScoresCompared.loss has another gradient of 'prompt_logits' for other rollout.scores"),
    (ScoresAdded, "ScoresAdded.loss has another gradient of 'prompt_logits' for other rollout.scores"),
    (WrongGradient, "WrongGradient.loss went from"),
    (GlobalRng, "GlobalRng.loss or prepare uses global random numbers"),
    (NaNForEqualScores, "(rollout with equal scores and nothing accepted)"),
    (NaNWithoutAccepted, "(rollout with different scores and nothing accepted)"),
    (IgnoredWeights, "IgnoredWeights.loss depends on samples of weight 0"),
    (UnweightedBaseline, "UnweightedBaseline.loss depends on samples of weight 0"),
    (TrainedReference, "TrainedReference.loss passes gradient to 'prompt_logits' of a model that attach stored"),
    (SharedReference, "SharedReference.attach stored the model in training itself"),
    (UpdatedReference, "UpdatedReference.attach stored a model whose 'prompt_logits' changed in training"),
    (FreezingAttach, "FreezingAttach.attach modified the model"),
    (SomeParameters, "SomeParameters.loss passes no gradient to the trainable parameter 'answer_logits'"),
    (MeanOfMicroBatch, "MeanOfMicroBatch.loss: the losses of micro-batches of 5 samples add up to"),
    (OtherMasks, "OtherMasks.loss: the losses of micro-batches of 5 samples add up to"),
    (SkippedScoring, "SkippedScoring.loss makes the calls {'image_log_probs': 1, 'backward of image_log_probs': 1}"),
    (SkippedBackward, "SkippedBackward.loss makes the calls {'image_log_probs': 1}"),
    (CountedDummy, "CountedDummy.loss has another gradient of 'prompt_logits' under FSDP2"),
    (OneAnswer, "OneAnswer.loss has another gradient of 'answer_logits' where the same question is asked and answered"),
    (VectorLoss, "VectorLoss.loss returned a loss of shape (3,), expected a scalar"),
    (DetachedLoss, "DetachedLoss.loss returned a loss without gradient"),
    (LossOnly, "LossOnly.loss returned a Tensor, expected a tuple of the loss and a dict of logs"),
    (LogsWithGradient, "LogsWithGradient.loss logs 'metric' with gradient"),
    (LogsVectors, "LogsVectors.loss logs 'metric' of shape (4,), expected a scalar"),
    (VariableLogs, "processes that log different names deadlock"),
    (InPlace, "InPlace.loss modified the rollout in place"),
    (ChangedScores, "ChangedScores.prepare changed the rollout; it may only set old_log_probs"),
    (OneOldLogProb, "OneOldLogProb.prepare returned 1 old_log_probs, expected 2, one per generator"),
    (UnsavableRollout, "UnsavableRollout.prepare returned a rollout that no checkpoint can hold"),
    (UncheckedGroupSize, "UncheckedGroupSize.check accepts group_size 1, but"),
    (UncheckedStraightThrough, "UncheckedStraightThrough.check accepts a backbone without straight_through, but"),
]


def failures_of(failures: Failures, kind: type[UpdateRule]) -> str:
    class Conformance(UpdateConformance):
        num_steps, learning_rate = 60, 0.1

        def make(self) -> UpdateRule:
            return kind()

    return failures(Conformance())


def test_checks_pass_for_a_correct_implementation(failures: Failures) -> None:
    assert failures_of(failures, Reinforce) == ""


@pytest.mark.skipif(not is_supported(), reason="this PyTorch has no Python backend for PrivateUse1")
@pytest.mark.filterwarnings("ignore:std")
def test_each_check_detects_errors(failures: Failures) -> None:
    messages = {kind: failures_of(failures, kind) for kind, _ in CASES}
    missed = [f"{message!r} is not in:\n{messages[kind]}" for kind, message in CASES if message not in messages[kind]]
    assert not missed, "\n\n".join(missed)
    failed = set(re.findall(r"^(test_\w+):", "\n".join(messages.values()), re.MULTILINE))
    checks = {name for name in dir(UpdateConformance) if name.startswith("test_")}
    assert failed == checks, f"no case fails {checks - failed}"
