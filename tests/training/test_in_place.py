"""Plugins that change in place what they are given: nobody else notices."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from unirl import AnswerSampling, EvaluationConfig, ImageSampling, PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.hooks import hookimpl
from unirl.judges import Judge
from unirl.rewards.base import Reward
from unirl.testing import TinyBackbone
from unirl.updates import GRPO
from unirl_shapes.prompts import ShapesPrompts


class Codes(Reward):
    """Scores an image by its codes, and accepts high scores."""

    needs_pixels = True

    def score(self, examples: Any, images: Any, answers: Any) -> Tensor:
        return images.codes.float().mean(1) + answers.ids.float().mean(1) + images.pixels.mean((1, 2, 3))

    def accepts(self, examples: Any, scores: Tensor) -> Tensor:
        return scores > scores.median()


class Bright(Judge):
    """Compares an image's first and second half, and has understanding set and references."""

    def verdicts(self, examples: Any, pixels: Tensor) -> Tensor:
        return pixels[..., :4].mean((1, 2, 3)) > pixels[..., 4:].mean((1, 2, 3))

    def references(self, examples: Any) -> Tensor:
        return torch.rand(len(examples), 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Hook(Callback):
    @hookimpl
    def unirl_rollout_scored(self, rollout: Any) -> Tensor:
        return torch.ones_like(rollout.scores)


def spoil(*values: Any) -> None:
    for value in values:
        if isinstance(value, Tensor):
            value.numpy()[...] = 0  # unseen by PyTorch
        else:
            value.clear()


class SpoilingCodes(Codes):
    def score(self, examples: Any, images: Any, answers: Any) -> Tensor:
        scores = super().score(examples, images, answers)
        spoil(images.codes, images.pixels, images.log_probs, *images.memory.values(), answers.ids, answers.mask)
        spoil(answers.text, examples)
        return scores

    def accepts(self, examples: Any, scores: Tensor) -> Tensor:
        accepted = super().accepts(examples, scores)
        spoil(scores, examples)
        return accepted


SpoilingCodes.__name__ = "Codes"  # metrics have the name of the class


class SpoilingBright(Bright):
    def verdicts(self, examples: Any, pixels: Tensor) -> Tensor:
        verdicts = super().verdicts(examples, pixels)
        spoil(pixels, examples)
        return verdicts

    def references(self, examples: Any) -> Tensor:
        references = super().references(examples)
        spoil(examples)
        return references


class SpoilingHook(Hook):
    @hookimpl
    def unirl_rollout_scored(self, rollout: Any) -> Tensor:
        weights = super().unirl_rollout_scored(rollout)
        spoil(
            rollout.scores, rollout.accepted, rollout.images.codes, rollout.answers.ids, *rollout.score_parts.values()
        )
        spoil(rollout.examples)
        return weights

    @hookimpl
    def unirl_validated(self, metrics: Any) -> None:
        spoil(metrics)


def fit(folder: Path, reward: Reward, judge: Judge, hook: Hook) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model = SelfImprovement(
        TinyBackbone(),
        GRPO(),
        [reward, Codes()],
        judge,
        RolloutConfig(4, 1, ImageSampling(), AnswerSampling(3)),
        EvaluationConfig(num_diversity_prompts=2),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=1,
        callbacks=[hook],
    )
    trainer.fit(model, PromptsDataModule(ShapesPrompts(), 2, 2, num_val_prompts=6))
    return model.state_dict(), trainer.callback_metrics


def test_in_place_changes_reach_nobody_else(tmp_path: Path) -> None:
    """Rewards, the judge and hooks overwrite all that they are given; weights and metrics stay the same to the bit."""
    weights, metrics = fit(tmp_path, Codes(), Bright(), Hook())
    spoiled_weights, spoiled_metrics = fit(tmp_path, SpoilingCodes(), SpoilingBright(), SpoilingHook())
    assert metrics["val/generation/overall"] not in (0, 1)
    assert {"val/consistency/mmu_given_t2i", "rewards/codes/mean", "rewards/codes_1/mean"} <= metrics.keys()
    assert metrics.keys() == spoiled_metrics.keys()
    assert all(torch.equal(value, spoiled_metrics[name]) for name, value in metrics.items())
    assert all(torch.equal(value, spoiled_weights[name]) for name, value in weights.items())
