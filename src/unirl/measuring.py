"""Validation: how a model draws, sees, and judges its own drawings."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from lightning import LightningModule

from unirl.backbones import Backbone
from unirl.functional.seeding import generator_for
from unirl.judges import Judge
from unirl.metrics.accuracy import AccuracyByCategory
from unirl.metrics.fairness import CriticFairness
from unirl.rewards import Reward
from unirl.rewards.scoring import score
from unirl.types import AnswerSampling, Example, ImageSampling, Rollout


class Measuring(LightningModule):
    """The half of `SelfImprovement` that measures; the judge is asked here and nowhere else."""

    backbone: Backbone
    rewards: list[Reward]
    judge: Judge | None
    validation_sampling: ImageSampling
    greedy: AnswerSampling
    accept: float
    exam_size: int

    def on_validation_start(self) -> None:
        self._exam = self.judge.exam(self.exam_size) if self.judge is not None else None
        asked = [*self.trainer.datamodule.examples, *(self._exam[0] if self._exam else [])]  # type: ignore[attr-defined]
        categories = list(dict.fromkeys(example.category for example in asked))
        kinds = {"drawing": AccuracyByCategory, "seeing": AccuracyByCategory, "critic": CriticFairness}
        metrics = kinds if self.judge is not None else {}
        self._metrics = {name: metric(categories).to(self.device) for name, metric in metrics.items()}

    def validation_step(self, batch: Sequence[Example], batch_idx: int) -> dict[str, Rollout]:
        """Draw held-out prompts, ask the judge, and ask the model itself."""
        generator = generator_for(self.device, "validation", batch_idx, self.global_rank)
        prompts, questions = [e.prompt for e in batch], [e.question for e in batch]
        images = self.backbone.sample_images(prompts, self.validation_sampling, generator)
        answers = self.backbone.sample_answers(images, questions, self.greedy)
        images = replace(images, pixels=self.backbone.decode(images))
        scores, parts = score(self.rewards, batch, images, answers)
        if self.judge is not None and images.pixels is not None:
            right = self.judge.verdicts(batch, images.pixels)
            categories = [example.category for example in batch]
            self._metrics["drawing"].update(right, categories)
            self._metrics["critic"].update(scores >= self.accept - 1e-6, right, categories)
            parts["judge"] = right.float()
        return {"rollout": Rollout(batch, images, answers, scores, parts, 1)}

    def on_validation_epoch_end(self) -> None:
        self._examine()
        # Every process computes the same ones, even where its own share was empty: computing waits for the others.
        self.measured = {name: metric.compute() for name, metric in self._metrics.items()}
        figures = {f"val/{kind}/{name}": v for kind, values in self.measured.items() for name, v in values.items()}
        self.log_dict(figures)

    def test_step(self, batch: Sequence[Example], batch_idx: int) -> dict[str, Rollout]:
        return self.validation_step(batch, batch_idx)

    def on_test_start(self) -> None:
        self.on_validation_start()

    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end()

    @torch.no_grad()
    def _examine(self, chunk: int = 60) -> None:
        """Ask about given pictures, each process its share of them."""
        if self._exam is None:
            return
        examples, pixels = self._exam
        mine = range(self.global_rank, len(examples), self.trainer.world_size)
        for start in range(0, len(mine), chunk):
            rows = list(mine[start : start + chunk])
            part = [examples[i] for i in rows]
            images = self.backbone.encode(pixels[rows].to(self.device))
            said = self.backbone.sample_answers(images, [e.question for e in part], self.greedy)
            right = [a.casefold() == e.answer.casefold() for a, e in zip(said.text, part, strict=True)]
            self._metrics["seeing"].update(torch.tensor(right, device=self.device), [e.category for e in part])
