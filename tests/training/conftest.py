"""A module, its data and a trainer for short runs on the CPU."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from unirl import (
    EvaluationConfig,
    Example,
    ImageSampling,
    PromptsDataModule,
    Question,
    RolloutConfig,
    SelfImprovement,
)
from unirl.backbones import Backbone
from unirl.prompts import Prompts
from unirl.rewards import Reward
from unirl.types import AnswerSampling
from unirl.updates import UpdateRule
from unirl_shapes.prompts import ShapesPrompts


class QuestionSets(Prompts):
    """See `Runs.question_sets`."""

    def sample(self, seed: int, index: int) -> Example:
        example = ShapesPrompts().sample(seed, index)
        questions = (
            Question(example.question, example.answer),
            Question("how many ?", "one"),
            Question("what ?", "red"),
        )
        return replace(example, questions=questions[: index % 3 + 1])

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return [self.sample(99, i) for i in range(count)]


class Runs:
    """Makes the parts of a run."""

    def module(
        self,
        backbone: Backbone,
        update: UpdateRule,
        rewards: list[Reward],
        kind: type[SelfImprovement] = SelfImprovement,
        **options: Any,
    ) -> SelfImprovement:
        """A module; fields of `RolloutConfig` and of `EvaluationConfig` but `image_sampling` are given flat."""
        options = {"group_size": 2, "image_sampling": ImageSampling(4), "answer_sampling": AnswerSampling(4), **options}
        rollout = {f.name: options.pop(f.name) for f in fields(RolloutConfig) if f.name in options}
        evaluation = {f.name: options.pop(f.name) for f in fields(EvaluationConfig) if f.name in options}
        options = {"optimizer": lambda p: torch.optim.AdamW(p, lr=1e-3), **options}
        configs = {"rollout": RolloutConfig(**rollout), "evaluation": EvaluationConfig(**evaluation)}
        return kind(backbone, update, rewards, **configs, **options)

    def data(self, prompts: Prompts | None = None, **options: Any) -> PromptsDataModule:
        settings: dict[str, Any] = {"prompts_per_step": 2, "steps_per_epoch": 3}
        settings |= {"num_val_prompts": 12, "val_batch_size": 6}
        return PromptsDataModule(prompts or ShapesPrompts(), **(settings | options))

    def question_sets(self) -> Prompts:
        """The shapes world, with one to three questions about an image in turn."""
        return QuestionSets()

    def trainer(self, folder: Path, **options: Any) -> Trainer:
        settings: dict[str, Any] = {"accelerator": "cpu", "logger": False, "max_epochs": 2}
        settings |= {"enable_progress_bar": False, "enable_model_summary": False}
        settings |= {"use_distributed_sampler": False, "inference_mode": False}
        return Trainer(default_root_dir=folder, **(settings | options))


@pytest.fixture(scope="session")
def runs() -> Runs:
    return Runs()
