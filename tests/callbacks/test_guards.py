"""Each guard speaks when it should, and is silent when it should; and a whole run that is made to be gamed."""

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
from unirl.callbacks.guards import LogprobGap, NonFinite, NothingAccepted, Validation, ZeroVariance
from unirl.rewards import Reward
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, Rollout
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts


def test_flat_groups_speak_once_after_some_steps_in_a_row() -> None:
    guard = ZeroVariance(3)
    said = [list(guard.seen(share, 0.0)) for share in (1, 1, 0.9, 1, 1, 1, 1)]
    assert [bool(s) for s in said] == [False] * 5 + [True, False]
    assert "easier prompts" in said[5][0]
    assert "harder prompts" in next(iter(ZeroVariance(1).seen(1.0, 0.9)))
    assert not list(ZeroVariance(0).seen(1.0, 0.9))


def test_nothing_accepted_is_told_of_once_until_something_is() -> None:
    guard = NothingAccepted(2)
    said = [list(guard.seen(share, 0.3)) for share in (0, 0.1, 0, 0, 0, 0.1, 0, 0)]
    assert [bool(s) for s in said] == [False, False, False, True, False, False, False, True]
    assert "no drawing was accepted" in said[3][0]
    assert "model.rollout.accept_threshold" in said[3][0]
    assert not list(NothingAccepted(0).seen(0, 0.3))


@pytest.mark.parametrize(("gap", "speaks"), [(0.0, False), (0.009, False), (0.02, True), (float("nan"), True)])
def test_scoring_gap(gap: float, speaks: bool) -> None:
    assert bool(list(LogprobGap(0.01).seen(gap))) == speaks
    assert not list(LogprobGap(0).seen(gap))
    assert bool(list(LogprobGap(0.01).seen(100 * gap, "answers", precise=False))) == speaks  # rounding alone is passed


def test_skipped_steps_are_all_counted_and_told_of_at_powers_of_two() -> None:
    guard = NonFinite()
    told = [i for i in range(1, 9) if list(guard.seen("w", i))]
    assert told == [1, 2, 4, 8]
    assert guard.skipped == 8


def test_validation_compares_with_the_first_one() -> None:
    guard = Validation(diversity=0.5, reward=0.02, max_accuracy_drop=0.1)
    start = {"generation/overall": 0.5, "generation/counting": 0.4, "understanding/position": 0.8, "diversity/codes": 0.6}
    assert not list(guard.seen(start, []))
    assert not list(guard.seen(start | {"generation/overall": 0.45, "diversity/codes": 0.35}, [0.3] * 20))
    (counting,) = guard.seen(start | {"generation/counting": 0.25}, [0.3])
    assert counting.startswith("drawing fell below its first validation: counting from 0.40 to 0.25")
    (seeing,) = guard.seen(start | {"understanding/position": 0.6}, [0.3])
    assert "answer_weight" in seeing
    (same,) = guard.seen(start | {"diversity/codes": 0.2}, [0.3])
    assert "fell from 0.60 to 0.20" in same
    assert not list(guard.seen(start | {"diversity/codes": 0.1}, [0.3]))  # told already
    assert not list(guard.seen(start, [0.3]))
    assert list(guard.seen(start | {"diversity/codes": 0.1}, [0.3]))  # it had got better in between
    worse = start | {"generation/overall": 0.35}
    assert not any("gamed" in sentence for sentence in guard.seen(worse, [0.31] * 10))  # the reward did not rise
    guard.told.clear()
    assert any("being gamed" in sentence for sentence in guard.seen(worse, [0.3] * 90 + [0.4] * 10))
    assert not list(Validation(0, 0, 0).seen(worse, [0.9]))


class Colorful(Reward):
    """Pays for color: the model can please it without drawing what was asked for."""

    needs_pixels = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return images.pixels.std(1).mean((1, 2))


class Falling(Callback):
    """Breaks the gradient of one step."""

    def __init__(self, step: int) -> None:
        self.step, self.weights = step, []

    def on_after_backward(self, trainer: Trainer, pl_module: SelfImprovement) -> None:
        weight = next(p for p in pl_module.backbone.parameters() if p.grad is not None)
        self.weights.append(weight.detach().clone())
        if trainer.global_step == self.step:
            weight.grad[0] = float("nan")


def fit(checkpoint: Path, folder: Path, callbacks: list[Callback], **options: object) -> SelfImprovement:
    settings: dict = {"group_size": 2, "sampling": ImageSampling(steps=4), "answering": AnswerSampling(4), "lr": 1e-3}
    settings |= {"update": GRPO(answer_weight=0.0), "rewards": [Colorful()]}
    model = SelfImprovement(Showo(str(checkpoint)), **(settings | options))
    data = PromptsDataModule(ShapesPrompts(), 2, steps_per_epoch=4, num_val_prompts=6, val_batch_size=6)
    Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        inference_mode=False,
        callbacks=callbacks,
    ).fit(model, data)
    return model


def test_a_step_without_finite_gradient_is_skipped_and_training_goes_on(
    shapes_checkpoint: Path, tmp_path: Path
) -> None:
    guards, falling = Guards(), Falling(1)
    model = fit(shapes_checkpoint, tmp_path, [falling, guards])
    first, second, third, _ = falling.weights
    assert not torch.equal(first, second)
    assert torch.equal(second, third)  # step 1 was skipped
    assert all(torch.isfinite(p).all() for p in model.backbone.parameters())
    assert [s for s in guards.said if "step 1 was skipped" in s] == guards.said
    assert guards.finite.skipped == 1


def test_a_backbone_that_scores_other_decisions_than_it_drew_is_noticed(
    shapes_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Guards()
    fit(shapes_checkpoint, tmp_path, [honest])
    assert honest.said == []
    honest_scores = Showo.image_log_probs

    def other(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = honest_scores(*args, **kwargs)
        return log_probs * 1.1, mask

    monkeypatch.setattr(Showo, "image_log_probs", other)
    guards = Guards()
    fit(shapes_checkpoint, tmp_path, [guards])
    assert len(guards.said) == 1
    assert "from sampling and from scoring differ by" in guards.said[0]


def test_answers_that_are_scored_at_another_temperature_are_noticed(shapes_checkpoint: Path, tmp_path: Path) -> None:
    for temperature, notices in ((0.0, False), (1.0, False), (0.5, True)):
        guards = Guards()
        fit(shapes_checkpoint, tmp_path, [guards], answering=AnswerSampling(4, temperature))
        assert [sentence[:32] for sentence in guards.said] == ["log-probabilities of answers from"[:32]] * notices
    assert "Try model.answering.temperature: 0 or 1" in guards.said[0]


class Alike(Colorful):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.ones(len(examples))


@pytest.mark.parametrize(("updates", "rollouts"), [(1, 4), (2, 2), (4, 1)])
def test_groups_that_always_score_alike_are_noticed(
    updates: int, rollouts: int, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """Four steps are as many rollouts as they draw, however often each is learnt from."""
    guards = Guards(zero_variance_patience=rollouts)
    fit(shapes_checkpoint, tmp_path, [guards], rewards=[Alike()], num_iterations=updates)
    assert guards.flat.row == len(guards._rewards) == rollouts
    (said,) = guards.said
    assert "harder prompts" in said


def test_a_sample_without_a_group_is_not_called_flat(shapes_checkpoint: Path, tmp_path: Path) -> None:
    guards = Guards(zero_variance_patience=2)
    rule = SFT(end_to_end=True, straight_through_steps=1)
    fit(shapes_checkpoint, tmp_path, [guards], rewards=[Alike()], update=rule, group_size=1)
    assert guards.flat.row == 0
    assert not any("nothing to compare" in sentence for sentence in guards.said)


class FirstOfTwo(Callback):
    """Quality control that keeps one of each group."""

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> Tensor:
        return torch.tensor([1.0, 0.0]).repeat(len(rollout.examples) // 2)


def test_groups_of_which_too_little_was_kept_are_noticed(shapes_checkpoint: Path, tmp_path: Path) -> None:
    guards = Guards(zero_variance_patience=4)
    fit(shapes_checkpoint, tmp_path, [guards, FirstOfTwo()])
    (said,) = guards.said
    assert "nothing to compare" in said


class Second(Alike):
    """Accepts the second of each group."""

    accept_threshold = 1.0

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.tensor([0.0, 1.0]).repeat(len(examples) // 2)


@pytest.mark.parametrize(
    ("update", "reward", "callbacks", "speaks"),
    [
        (SFT(end_to_end=False), Colorful(), [], True),  # soft, and never 1
        (SFT(end_to_end=False), Second(), [], False),
        (SFT(end_to_end=False), Second(), [FirstOfTwo()], True),  # what was accepted was dropped
        (SFT(end_to_end=True, answers="all"), Colorful(), [], False),  # learns from all
        (GRPO(answer_weight=0.0), Colorful(), [], False),
    ],
)
def test_a_rule_that_learns_from_accepted_drawings_and_gets_none_is_noticed(
    update: UpdateRule, reward: Reward, callbacks: list[Callback], speaks: bool, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    guards = Guards(zero_accepted_patience=4)
    fit(shapes_checkpoint, tmp_path, [guards, *callbacks], update=update, rewards=[reward])
    assert [sentence[:55] for sentence in guards.said] == (
        ["in each of the last 4 rollouts, no drawing was accepted"] if speaks else []
    )


def test_what_was_noticed_survives_a_resume() -> None:
    guards = Guards()
    guards.finite.skipped, guards.validation.first, guards.said = 3, {"generation/overall": 0.4}, ["told"]
    guards.validation.first_reward, guards._rewards = 0.2, [0.3]
    guards.flat.row, guards.refused.row = 2, 4
    again = Guards()
    again.load_state_dict(guards.state_dict())
    assert again.state_dict() == guards.state_dict()
    older = guards.state_dict()
    del older["refused"]  # a checkpoint of before there was this guard
    again.load_state_dict(older)
    assert again.refused.row == 0
