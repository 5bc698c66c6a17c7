"""Evaluation without a trainer, and the parts that training shares with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unirl import EvaluationConfig, Example, ImageSampling, Question, validate
from unirl.backbones.given_images import answer_given
from unirl.backbones.showo import Showo
from unirl.callbacks.grids import to_pil
from unirl.rewards.keyword import Keyword
from unirl.rewards.likelihood import Likelihood
from unirl.training.rollout import Rollouts
from unirl.training.sampler import PromptSampler
from unirl.types import AnswerSampling
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

CONFIG = EvaluationConfig(num_understanding=12, num_diversity_prompts=2)


def test_evaluate_gives_the_numbers_of_a_validation(runs, shapes_checkpoint: Path, tmp_path: Path) -> None:
    options = {"judge": ShapesJudge(), "num_understanding": 12, "num_diversity_prompts": 2}
    model = runs.module(Showo(str(shapes_checkpoint)), SFT(), [Keyword()], **options)
    (validated,) = runs.trainer(tmp_path).validate(model, runs.data(), verbose=False)
    counts = model.evaluator.counts
    assert sum(n for name, n in counts.items() if name.startswith("generation/")) == 12
    assert sum(n for name, n in counts.items() if name.startswith("understanding/")) == 12
    assert {f"val/{name}" for name in counts} < validated.keys()
    backbone = Showo.from_pretrained(str(shapes_checkpoint)).train()
    sampling = {"image_sampling": ImageSampling(4), "answer_sampling": AnswerSampling(4)}
    prompts = ShapesPrompts()
    metrics = validate(backbone, prompts, [Keyword()], ShapesJudge(), CONFIG, **sampling, num_prompts=12, batch_size=6)
    assert {f"val/{name}": value for name, value in metrics.items()} == pytest.approx(validated)
    assert backbone.training
    examples = prompts.held_out(12)
    same = validate(backbone, examples, [Keyword()], ShapesJudge(), CONFIG, **sampling, batch_size=6)
    assert same == metrics


def test_evaluate_builds_a_model_that_is_not(shapes_checkpoint: Path) -> None:
    assert validate(Showo(str(shapes_checkpoint)), ShapesPrompts(), [Keyword()], config=CONFIG, num_prompts=2)


def test_without_a_judge_only_diversity_and_cut_off_answers_are_measured(shapes_checkpoint: Path) -> None:
    backbone = Showo.from_pretrained(str(shapes_checkpoint))
    metrics = validate(backbone, ShapesPrompts(), [Keyword()], config=CONFIG, num_prompts=2)
    assert list(metrics) == ["completions/clipped_ratio", "diversity/codes"]


def test_rewards_are_attached_to_the_measured_backbone(shapes_checkpoint: Path) -> None:
    backbone = Showo.from_pretrained(str(shapes_checkpoint))
    config = EvaluationConfig(num_understanding=4, num_diversity_prompts=0)
    metrics = validate(backbone, ShapesPrompts(), [Likelihood()], ShapesJudge(), config, num_prompts=2)
    assert 0 <= metrics["generation/overall"] <= 1


class OnDisk(ShapesJudge):
    """The shapes judge, whose images are files; those of some prompts are missing."""

    def __init__(self, folder: Path, missing: Sequence[str] = ()) -> None:
        super().__init__()
        self.folder, self.missing = folder, missing

    def _saved(self, pixels: Tensor, name: str) -> list[str]:
        paths = [str(self.folder / f"{name}{i}.png") for i in range(len(pixels))]
        for path, image in zip(paths, pixels, strict=True):
            to_pil(image).save(path)
        return paths

    def understanding_set(self, count: int, seed: int = 0) -> Any:
        examples, pixels = super().understanding_set(count, seed)
        return examples, self._saved(pixels, "given")

    def references(self, examples: Sequence[Example]) -> Any:
        paths = self._saved(super().references(examples), "reference")
        return [None if e.prompt in self.missing else path for e, path in zip(examples, paths, strict=True)]


def test_given_images_may_be_files(tmp_path: Path) -> None:
    """As the backbone reads them they are the same images, so the numbers are the same, too."""
    backbone, held_out = Showo.from_pretrained("unirl_shapes:checkpoints/showo"), ShapesPrompts().held_out(12)

    def measure(judge: ShapesJudge, examples: Sequence[Example] = held_out) -> dict[str, float]:
        config = EvaluationConfig(num_understanding=24, num_diversity_prompts=0)
        return validate(backbone, examples, [Keyword()], judge, config)

    expected = measure(ShapesJudge())
    assert expected["consistency/imbalance"] > 0
    assert measure(OnDisk(tmp_path)) == expected
    missing = [example.prompt for example in held_out[::2]]
    with pytest.warns(UserWarning, match=rf"no reference image of 6 of 12 held-out prompts, such as '{missing[0]}'"):
        partly = measure(OnDisk(tmp_path, missing))
    assert {name: value for name, value in partly.items() if "consistency" not in name} == {
        name: value for name, value in expected.items() if "consistency" not in name
    }
    assert partly["consistency/t2i_given_mmu"] != expected["consistency/t2i_given_mmu"]
    with pytest.warns(UserWarning, match="no reference image of 12 of 12"):
        none = measure(OnDisk(tmp_path, [example.prompt for example in held_out]))
    assert not [name for name in none if name.startswith("consistency")]


def test_a_question_with_choices_is_answered_by_one_of_them(shapes_checkpoint: Path) -> None:
    backbone = Showo.from_pretrained(str(shapes_checkpoint))
    asked = [Example("", questions=(Question("what ?", "no", choices),)) for choices in ((), ("no", "yes"), ())]
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    chosen = answer_given(backbone, asked, pixels, AnswerSampling(2))
    sampled = answer_given(backbone, asked, pixels, AnswerSampling(2), choose=False)
    assert chosen.text[1] in ("no", "yes")
    assert chosen.text[::2] == sampled.text[::2]
    assert (len(chosen.sampled), len(sampled.sampled)) == (2, 3)
    closed = answer_given(backbone, asked[1:2], pixels[1:2], AnswerSampling(2))
    assert (closed.text, closed.sampled) == (chosen.text[1:2], None)


def test_a_rollout_is_prompt_major_and_without_gradient(shapes_checkpoint: Path) -> None:
    backbone, examples = Showo.from_pretrained(str(shapes_checkpoint)), ShapesPrompts().held_out(2)
    rollouts = Rollouts(backbone, [Keyword()])
    rollout = rollouts.sample(
        examples, ImageSampling(2), AnswerSampling(2), torch.Generator(), group_size=3, decode=True
    )
    assert list(rollout.examples) == [examples[0]] * 3 + [examples[1]] * 3
    assert rollout.group_size == 3
    assert rollout.images.pixels is not None
    assert rollout.images.pixels.shape == (6, 3, 64, 64)
    assert not rollout.images.pixels.requires_grad
    assert rollouts.sample(examples, ImageSampling(2), AnswerSampling(2)).images.pixels is None


def test_ranks_share_the_prompts_of_a_step_and_a_resumed_epoch_continues() -> None:
    for world_size in (1, 2, 4):
        ranks = [list(PromptSampler(8, 3, rank, world_size, lambda: 5)) for rank in range(world_size)]
        steps = [[i for rank in ranks for i in rank[step]] for step in range(3)]
        assert steps == [list(range(8 * step, 8 * step + 8)) for step in (5, 6, 7)]
