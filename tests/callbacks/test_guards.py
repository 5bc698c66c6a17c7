"""Each guard warns when it should and only then; and the callback in short runs."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor

from unirl import hookimpl
from unirl.backbones.showo import Showo
from unirl.callbacks import Guards
from unirl.callbacks.guards import LogprobGap, NonFiniteGradients, ValidationTrend, ZeroAccepted, ZeroVariance
from unirl.doctor.settings import check_verdicts
from unirl.rewards import Keyword, Reward
from unirl.training import PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, Rollout
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts


def test_zero_variance_is_reported_once_for_each_streak() -> None:
    guard = ZeroVariance(3)
    warnings = [list(guard.check(fraction, 0.0)) for fraction in (1, 1, 0.9, 1, 1, 1, 1)]
    assert [bool(w) for w in warnings] == [False] * 5 + [True, False]
    assert "easier prompts" in warnings[5][0]
    assert "harder prompts" in next(iter(ZeroVariance(1).check(1.0, 0.9)))
    assert not list(ZeroVariance(0).check(1.0, 0.9))


def test_zero_accepted_is_reported_again_after_a_sample_was_accepted() -> None:
    guard = ZeroAccepted(2)
    warnings = [list(guard.check(fraction, 0.3)) for fraction in (0, 0.1, 0, 0, 0, 0.1, 0, 0)]
    assert [bool(w) for w in warnings] == [False, False, False, True, False, False, False, True]
    assert "no sample was accepted" in warnings[3][0]
    assert "model.rollout.accept_threshold" in warnings[3][0]
    assert not list(ZeroAccepted(0).check(0, 0.3))


def test_logprob_gap() -> None:
    for gap, warns in ((0.0, False), (0.009, False), (0.02, True), (float("nan"), True)):
        assert bool(list(LogprobGap(0.01).check(gap))) == warns, gap
        assert not list(LogprobGap(0).check(gap)), gap
        low_precision = LogprobGap(0.01).check(100 * gap, "answers", full_precision=False)
        assert bool(list(low_precision)) == warns, gap


def test_all_skipped_steps_are_counted_and_powers_of_two_reported() -> None:
    guard = NonFiniteGradients()
    assert [i for i in range(1, 9) if list(guard.check("weight", i))] == [1, 2, 4, 8]
    assert guard.skipped == 8


def test_validations_are_compared_with_the_first_one() -> None:
    guard = ValidationTrend(min_diversity=0.5, max_reward_rise=0.02, max_accuracy_drop=0.1)
    first = {
        "generation/overall": 0.5,
        "generation/counting": 0.4,
        "understanding/position": 0.8,
        "diversity/codes": 0.6,
    }
    assert not list(guard.check(first, []))
    assert not list(guard.check(first | {"generation/overall": 0.45, "diversity/codes": 0.35}, [0.3] * 20))
    (counting,) = guard.check(first | {"generation/counting": 0.25}, [0.3])
    assert counting.startswith("generation fell below its first validation: counting from 0.40 to 0.25")
    (understanding,) = guard.check(first | {"understanding/position": 0.6}, [0.3])
    assert "answer_weight" in understanding
    (diversity,) = guard.check(first | {"diversity/codes": 0.2}, [0.3])
    assert "fell from 0.60 to 0.20" in diversity
    assert not list(guard.check(first | {"diversity/codes": 0.1}, [0.3]))  # reported before
    assert not list(guard.check(first, [0.3]))
    assert list(guard.check(first | {"diversity/codes": 0.1}, [0.3]))  # it had recovered in between
    worse = first | {"generation/overall": 0.35}
    assert not any("hacked" in warning for warning in guard.check(worse, [0.31] * 10))  # the reward did not rise
    guard.active.clear()
    assert any("being hacked" in warning for warning in guard.check(worse, [0.3] * 90 + [0.4] * 10))
    assert not list(ValidationTrend(0, 0, 0).check(worse, [0.9]))


def test_a_drop_within_two_standard_errors_is_no_warning() -> None:
    first = {f"{task}/{name}": 0.75 for task in ("generation", "understanding") for name in ("colors", "overall")}

    def found(value: float, images: int) -> list[str]:
        guard = ValidationTrend(min_diversity=0.5, max_reward_rise=0.02, max_accuracy_drop=0.1)
        counts = {"generation/colors": images, "understanding/colors": images}
        assert not list(guard.check(first, [0.3], counts))
        return list(guard.check(dict.fromkeys(first, value), [0.9], counts))

    assert not found(0.5, 8)  # one image is 12 points
    assert not found(0.75 - 0.0999, 10**6)  # no chance, but a small drop
    assert len(found(0.5, 100)) == 5  # both tasks in a category and overall, and the reward that rose meanwhile
    assert len(found(0.0, 8)) == 5


class Colorfulness(Reward):
    """Can be raised without generating what was asked for."""

    needs_pixels = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return images.pixels.std(1).mean((1, 2))


class Constant(Colorfulness):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.ones(len(examples))


class Zero(Constant):
    """Accepts nothing."""

    accept_threshold = 1.0

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.zeros(len(examples))


class AcceptSecond(Constant):
    """Accepts the second sample of each group."""

    accept_threshold = 1.0

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.tensor([0.0, 1.0]).repeat(len(examples) // 2)


class DropSecond(Callback):
    """Quality control that keeps the first sample of each group."""

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> Tensor:
        return torch.tensor([1.0, 0.0]).repeat(len(rollout.examples) // 2)


class BreakGradient(Callback):
    """Sets a gradient to NaN in one step, and records the weight before each step."""

    def __init__(self, step: int) -> None:
        self.step, self.weights = step, []

    def on_after_backward(self, trainer: Trainer, pl_module: SelfImprovement) -> None:
        weight = next(p for p in pl_module.backbone.parameters() if p.grad is not None)
        self.weights.append(weight.detach().clone())
        if trainer.global_step == self.step:
            weight.grad[0] = float("nan")


def fit(
    checkpoint: Path,
    *callbacks: Callback,
    update: UpdateRule | None = None,
    reward: Reward | None = None,
    temperature: float = 0.0,
    **rollout: Any,
) -> SelfImprovement:
    """Four steps."""
    answers = AnswerSampling(4, temperature)
    settings: dict[str, Any] = {"group_size": 2, "image_sampling": ImageSampling(steps=4), "answer_sampling": answers}
    model = SelfImprovement(
        Showo(str(checkpoint)),
        update or GRPO(answer_weight=0.0),
        [reward or Colorfulness()],
        rollout=RolloutConfig(**settings | rollout),
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3),
    )
    data = PromptsDataModule(ShapesPrompts(), 2, steps_per_epoch=4, num_val_prompts=6, val_batch_size=6)
    Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        inference_mode=False,
        callbacks=list(callbacks),
    ).fit(model, data)
    return model


def test_a_step_with_a_non_finite_gradient_is_skipped(shapes_checkpoint: Path) -> None:
    guards, broken = Guards(), BreakGradient(1)
    model = fit(shapes_checkpoint, broken, guards)
    first, second, third, _ = broken.weights
    assert not torch.equal(first, second)
    assert torch.equal(second, third)  # step 1 was skipped
    assert all(torch.isfinite(p).all() for p in model.backbone.parameters())
    assert len(guards.warnings) == 1
    assert "step 1 was skipped" in guards.warnings[0]
    assert guards.non_finite.skipped == 1
    logged = model.trainer.callback_metrics
    assert (logged["guards/warnings"], logged["guards/skipped_steps"]) == (1, 1)


def test_a_backbone_that_scores_other_decisions_than_it_sampled(
    shapes_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct = Showo.image_log_probs

    def wrong(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = correct(*args, **kwargs)
        return log_probs * 1.1, mask

    monkeypatch.setattr(Showo, "image_log_probs", wrong)
    guards = Guards()
    fit(shapes_checkpoint, guards)
    assert len(guards.warnings) == 1
    assert "log-probabilities of images from sampling and from scoring differ by" in guards.warnings[0]


def test_answers_that_are_scored_at_another_temperature(shapes_checkpoint: Path) -> None:
    for temperature, warns in ((0.0, False), (1.0, False), (0.5, True)):
        guards = Guards()
        fit(shapes_checkpoint, guards, temperature=temperature)
        assert len(guards.warnings) == warns, guards.warnings
    assert guards.warnings[0].startswith("log-probabilities of answers from")
    assert "Try model.rollout.answer_sampling.temperature: 0 or 1" in guards.warnings[0]


@pytest.mark.parametrize(("num_iterations", "rollouts"), [(1, 4), (4, 1)])
def test_zero_variance_counts_rollouts_rather_than_steps(
    num_iterations: int, rollouts: int, shapes_checkpoint: Path
) -> None:
    guards = Guards(zero_variance_patience=rollouts)
    fit(shapes_checkpoint, guards, reward=Constant(), num_iterations=num_iterations)
    assert guards.zero_variance.streak == len(guards._rewards) == rollouts
    (warning,) = guards.warnings
    assert "harder prompts" in warning
    assert "max_tokens" not in warning  # the answers are cut off, and accepted


def test_answers_that_are_cut_off_are_named_as_the_cause(shapes_checkpoint: Path) -> None:
    guards = Guards(zero_variance_patience=4, zero_accepted_patience=4)
    sampling = AnswerSampling(1)
    model = fit(shapes_checkpoint, guards, update=SFT(end_to_end=False), reward=Zero(), answer_sampling=sampling)
    cause = "First raise model.rollout.answer_sampling.max_tokens: 100% of the answers of the last one were cut off"
    assert [cause in warning for warning in guards.warnings] == [True, True]
    assert float(model.trainer.callback_metrics["completions/clipped_ratio"]) == 1


def test_a_group_of_one_has_no_variance_to_miss(shapes_checkpoint: Path) -> None:
    guards = Guards(zero_variance_patience=2)
    rule = SFT(end_to_end=True, straight_through_steps=1)
    fit(shapes_checkpoint, guards, reward=Constant(), update=rule, group_size=1)
    assert guards.zero_variance.streak == 0
    assert not any("no advantage" in warning for warning in guards.warnings)


def test_dropped_samples_do_not_count_as_variance(shapes_checkpoint: Path) -> None:
    guards = Guards(zero_variance_patience=4)
    fit(shapes_checkpoint, guards, DropSecond())
    (warning,) = guards.warnings
    assert "no advantage to train on" in warning


@pytest.mark.parametrize(
    ("update", "reward", "callbacks", "warns"),
    [
        (SFT(end_to_end=False), Colorfulness(), [], True),  # never reaches 1
        (SFT(end_to_end=False), AcceptSecond(), [], False),
        (SFT(end_to_end=False), AcceptSecond(), [DropSecond()], True),
        (SFT(end_to_end=True, answer_labels="prompt"), Colorfulness(), [], False),  # trains on all samples
        (GRPO(answer_weight=0.0), Colorfulness(), [], False),
    ],
)
def test_a_rule_that_trains_on_accepted_samples_and_gets_none(
    update: UpdateRule, reward: Reward, callbacks: list[Callback], warns: bool, shapes_checkpoint: Path
) -> None:
    guards = Guards(zero_accepted_patience=4)
    fit(shapes_checkpoint, guards, *callbacks, update=update, reward=reward)
    assert len(guards.warnings) == warns, guards.warnings
    if warns:
        assert guards.warnings[0].startswith("in each of the last 4 rollouts, no sample was accepted")


@pytest.mark.parametrize(
    ("update", "rewards", "threshold", "warns"),
    [
        (SFT(end_to_end=False), [Colorfulness()], None, "no reward gives a verdict (colorfulness)"),
        (SFT(answer_labels="posterior"), [Colorfulness()], None, "no reward gives a verdict"),
        (GRPO(), [Colorfulness()], None, "no reward gives a verdict"),
        (SFT(), [Colorfulness(weight=-1.0)], None, "no reward has a positive weight"),
        (SFT(), [Colorfulness(), AcceptSecond(weight=0.0)], None, "no reward gives a verdict"),
        (SFT(), [Colorfulness()], 0.5, ""),
        (SFT(), [Colorfulness(), AcceptSecond()], None, ""),
        (SFT(), [Keyword()], None, ""),  # its method decides
        (GRPO(answer_weight=0.0), [Colorfulness()], None, ""),
        (SFT(end_to_end=True, answer_labels="prompt"), [Colorfulness()], None, ""),
    ],
)
def test_missing_verdicts_are_reported_before_the_first_rollout(
    update: UpdateRule, rewards: list[Reward], threshold: float | None, warns: str, shapes_checkpoint: Path
) -> None:
    rollout = RolloutConfig(accept_threshold=threshold)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = SelfImprovement(Showo(str(shapes_checkpoint)), update, rewards, rollout=rollout)
    found = [str(one.message) for one in caught if "learns from what the rewards accept" in str(one.message)]
    assert len(found) == bool(warns), found
    assert all(warns in text and "model.rollout.accept_threshold" in text for text in found)
    assert [str(finding) for finding in check_verdicts(model)] == [f"rewards: {text}" for text in found]


def test_the_state_is_in_checkpoints() -> None:
    guards = Guards()
    guards.zero_variance.streak, guards.zero_accepted.streak, guards.non_finite.skipped = 2, 4, 3
    guards.validation.baseline, guards.validation.baseline_reward = {"generation/overall": 0.4}, 0.2
    guards.validation.active, guards.warnings, guards._rewards = ["diversity/codes"], ["a warning"], [0.3]
    resumed = Guards()
    resumed.load_state_dict(guards.state_dict())
    assert resumed.state_dict() == guards.state_dict()
