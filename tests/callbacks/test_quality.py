"""Quality control: which samples are dropped, how weights of several callbacks combine, and what a run logs."""

import json
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor

from unirl import hookimpl
from unirl.backbones.showo import Showo
from unirl.callbacks import QualityControl
from unirl.callbacks.quality import is_duplicate, saturation
from unirl.errors import UserError
from unirl.hooks.lifecycle import Lifecycle
from unirl.rewards.likelihood import Likelihood
from unirl.training import PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, Rollout
from unirl.updates.grpo import GRPO
from unirl_shapes.prompts import ShapesPrompts

CODES = torch.tensor([[1, 2], [1, 2], [3, 4], [1, 2], [5, 6], [5, 6]])
LOG_PROBS = torch.tensor([[0.9, 0.9], [0.9, 0.9], [0.1, 0.4], [0.9, 0.9], [0.8, 0.8], [0.9, 0.1]]).log()


def make_rollout(pixels: Tensor | None = None) -> Rollout:
    """Two groups of three."""
    mask = torch.tensor([[True, True]] * 5 + [[True, False]])
    answers = Answers(CODES, mask, list("abcdef"), LOG_PROBS * mask)
    examples = [Example(f"prompt {i // 3}", "q", "a", "c") for i in range(6)]
    return Rollout(examples, Images(CODES, pixels), answers, torch.zeros(6), {}, torch.zeros(6, dtype=torch.bool), 3)


def weights_of(control: QualityControl, rollout: Rollout | None = None) -> list[float]:
    weights: list[float] = control.unirl_rollout_scored(rollout or make_rollout()).tolist()
    return weights


def test_duplicates_within_a_group() -> None:
    assert is_duplicate(CODES, 3).tolist() == [False, True, False, False, False, True]
    for weight in (0.0, 0.5, 1.0):
        control = QualityControl(duplicate_weight=weight, min_confidence=0)
        assert weights_of(control) == [1, weight, 1, 1, 1, weight]


def test_a_dropped_image_does_not_count_as_the_first_of_its_duplicates() -> None:
    rollout = make_rollout()
    rollout.answers.log_probs[0] = -5.0
    assert weights_of(QualityControl(), rollout) == [0, 1, 0, 1, 1, 0]


def test_answers_with_low_confidence_are_dropped_or_weighted_down() -> None:
    """The tokens of the third have 0.1 and 0.4, geometric mean 0.2; the second token of the last one is padding."""
    assert weights_of(QualityControl(1)) == [1, 1, 0, 1, 1, 1]
    assert weights_of(QualityControl(1, down_weight=True)) == pytest.approx([1, 1, 0.2, 1, 1, 1])


def test_saturated_images_are_dropped() -> None:
    pixels = torch.full((6, 3, 4, 4), 0.5)
    pixels[1, 0] = 1.0  # a chroma of 0.5 is not above the threshold
    pixels[2, :, :3] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    assert saturation(pixels).tolist() == [0, 0, 0.75, 0, 0, 0]
    control = QualityControl(1, max_saturation=0.5, min_confidence=0)
    assert weights_of(control, make_rollout(pixels)) == [1, 1, 0, 1, 1, 1]


class HalfWeights(Callback):
    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> Tensor:
        return torch.full_like(rollout.scores, 0.5)


class GivenWeights(Callback):
    def __init__(self, weights: object) -> None:
        self.weights = weights

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> object:
        return self.weights


def test_weights_of_several_callbacks_are_multiplied() -> None:
    assert Lifecycle().weights(make_rollout()) is None
    weights = Lifecycle([HalfWeights(), QualityControl(min_confidence=0), Callback()]).weights(make_rollout())
    assert weights is not None
    assert weights.tolist() == [0.5, 0, 0.5, 0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(5), r"\(5,\)"),
        ([1.0] * 6, "list"),
        (-torch.ones(6), "-1.0"),
        (torch.full((6,), torch.nan), "nan"),
    ],
)
def test_invalid_weights_are_refused(weights: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Lifecycle([GivenWeights(weights)]).weights(make_rollout())


def test_a_misspelled_hook_is_refused() -> None:
    class Misspelled(Callback):
        @hookimpl
        def unirl_rollout_score(self, rollout: Rollout) -> None:
            pass

    with pytest.raises(UserError, match=r"Misspelled: .*unirl_rollout_score.*unirl_rollout_scored"):
        Lifecycle([Misspelled()])


@pytest.mark.parametrize("logger", [True, False])
def test_a_run_logs_what_was_dropped(shapes_checkpoint: Path, tmp_path: Path, logger: bool) -> None:
    """No answer of an untrained model is confident, so every sample is dropped and nothing is trained."""
    model = SelfImprovement(
        Showo(str(shapes_checkpoint)),
        GRPO(answer_weight=0.0),
        [Likelihood()],
        rollout=RolloutConfig(2, image_sampling=ImageSampling(steps=2), answer_sampling=AnswerSampling(3)),
    )
    data = PromptsDataModule(ShapesPrompts(), 2, steps_per_epoch=2, num_val_prompts=6)
    trainer = Trainer(
        default_root_dir=tmp_path / "new",
        logger=logger,
        enable_checkpointing=False,
        accelerator="cpu",
        enable_progress_bar=False,
        max_epochs=1,
        limit_val_batches=0,
        callbacks=[QualityControl(max_saturation=1.0, min_confidence=0.999)],
    )
    trainer.fit(model, data)
    files = list(tmp_path.rglob("quality.jsonl"))
    assert len(files) == logger
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(rows) == 8 * logger
    assert all("low_confidence" in row["problems"] and row["weight"] == 0 for row in rows)
    metrics = trainer.logged_metrics
    assert metrics["quality/mean_weight"] == 0
    assert metrics["quality/frac_low_confidence"] == 1
    assert metrics["loss"] == 0
    assert metrics["frac_reward_zero_std"] == 1
    assert 0 < metrics["reward"] < 1
