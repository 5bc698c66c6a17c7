import json
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor

from unirl import hookimpl
from unirl.backbones.showo import Showo
from unirl.callbacks import QualityControl
from unirl.callbacks.quality import colored_share, is_duplicate
from unirl.errors import UserError
from unirl.hooks.lifecycle import Lifecycle
from unirl.rewards.likelihood import Likelihood
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, Rollout
from unirl.updates.grpo import GRPO
from unirl_shapes.prompts import ShapesPrompts

CODES = torch.tensor([[1, 2], [1, 2], [3, 4], [1, 2], [5, 6], [5, 6]])
LOG_PROBS = torch.tensor([[0.9, 0.9], [0.9, 0.9], [0.1, 0.4], [0.9, 0.9], [0.8, 0.8], [0.9, 0.1]]).log()


def rollout(pixels: Tensor | None = None) -> Rollout:
    mask = torch.tensor([[True, True]] * 5 + [[True, False]])
    answers = Answers(CODES, mask, list("abcdef"), LOG_PROBS * mask)
    examples = [Example(f"prompt {i // 3}", "q", "a", "c") for i in range(6)]
    return Rollout(examples, Images(CODES, pixels), answers, torch.zeros(6), {}, torch.zeros(6, dtype=torch.bool), 3)


def test_the_first_of_equal_drawings_stays_and_groups_are_apart() -> None:
    assert is_duplicate(CODES, 3).tolist() == [False, True, False, False, False, True]
    assert QualityControl(confidence=0).unirl_rollout_scored(rollout()).tolist() == [1, 0, 1, 1, 1, 0]
    assert QualityControl(duplicates=1, confidence=0).unirl_rollout_scored(rollout()).tolist() == [1] * 6
    assert QualityControl(duplicates=0.5, confidence=0).unirl_rollout_scored(rollout()).tolist() == [
        1,
        0.5,
        1,
        1,
        1,
        0.5,
    ]


def test_of_equal_drawings_one_stays_that_is_not_dropped_for_something_else() -> None:
    given = rollout()
    given.answers.log_probs[0] = -5.0  # the first of the group's two equal ones
    assert QualityControl().unirl_rollout_scored(given).tolist() == [0, 1, 0, 1, 1, 0]


def test_answers_that_the_model_holds_unlikely_count_not_or_less() -> None:
    """The third one's tokens have 0.1 and 0.4, the geometric mean is 0.2; the last one's second token is padding."""
    assert QualityControl(1).unirl_rollout_scored(rollout()).tolist() == [1, 1, 0, 1, 1, 1]
    less = QualityControl(1, down_weight=True).unirl_rollout_scored(rollout())
    torch.testing.assert_close(less, torch.tensor([1, 1, 0.2, 1, 1, 1]))


def test_pictures_full_of_color_are_dropped() -> None:
    pixels = torch.full((6, 3, 4, 4), 0.5)
    pixels[1, 0] = 1.0  # chroma of a half is not above it
    pixels[2, :, :3] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    assert colored_share(pixels).tolist() == [0, 0, 0.75, 0, 0, 0]
    control = QualityControl(1, saturation=0.5, confidence=0)
    assert control.unirl_rollout_scored(rollout(pixels)).tolist() == [1, 1, 0, 1, 1, 1]


class Halves(Callback):
    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> Tensor:
        return torch.full_like(rollout.scores, 0.5)


class Wrong(Callback):
    def __init__(self, weights: object) -> None:
        self.weights = weights

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> object:
        return self.weights


def test_weights_of_several_multiply_and_nobody_leaves_none() -> None:
    assert Lifecycle().weights(rollout()) is None
    weights = Lifecycle([Halves(), QualityControl(confidence=0), Callback()]).weights(rollout())
    assert weights is not None
    assert weights.tolist() == [0.5, 0, 0.5, 0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (torch.ones(5), r"gave \(5,\)"),
        ([1.0] * 6, "gave list"),
        (-torch.ones(6), "from -1.0 on"),
        (torch.full((6,), torch.nan), "nan"),
    ],
)
def test_weights_that_are_none_are_refused(weights: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Lifecycle([Wrong(weights)]).weights(rollout())


def test_a_misspelt_hook_is_refused_by_name() -> None:
    class Misspelt(Callback):
        @hookimpl
        def unirl_rollout_score(self, rollout: Rollout) -> None:
            pass

    with pytest.raises(UserError, match=r"Misspelt: .*unirl_rollout_score.*unirl_rollout_scored"):
        Lifecycle([Misspelt()])


@pytest.mark.parametrize("logged", [True, False])
def test_a_run_drops_and_says_why(shapes_checkpoint: Path, tmp_path: Path, logged: bool) -> None:
    """No answer of an untrained model is certain, so nothing is kept and nothing is learnt."""
    model = SelfImprovement(
        Showo(str(shapes_checkpoint)),
        GRPO(answer_weight=0.0),
        [Likelihood()],
        group_size=2,
        sampling=ImageSampling(steps=2),
        answering=AnswerSampling(3),
        lr=1e-2,
    )
    data = PromptsDataModule(ShapesPrompts(), 2, steps_per_epoch=2, num_val_prompts=6)
    trainer = Trainer(
        default_root_dir=tmp_path / "new",
        logger=logged,
        enable_checkpointing=False,
        accelerator="cpu",
        enable_progress_bar=False,
        max_epochs=1,
        limit_val_batches=0,
        callbacks=[QualityControl(saturation=1.0, confidence=0.999)],
    )
    trainer.fit(model, data)
    files = list(tmp_path.rglob("quality.jsonl"))
    assert len(files) == logged
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(rows) == 8 * logged
    assert all("unlikely" in row["why"] and row["weight"] == 0 for row in rows)
    assert trainer.logged_metrics["quality/kept"] == 0
    assert trainer.logged_metrics["loss"] == 0
    assert trainer.logged_metrics["train/zero_variance_groups"] == 1
    assert 0 < trainer.logged_metrics["reward"] < 1
