"""The training loop: draw, answer, score, learn."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor
from transformers import get_scheduler

from unirl.backbones import Backbone
from unirl.errors import UserError
from unirl.functional.seeding import generator_for
from unirl.judges import Judge
from unirl.metrics.accuracy import AccuracyByCategory
from unirl.metrics.fairness import CriticFairness
from unirl.rewards import Reward
from unirl.rewards.scoring import score
from unirl.types import AnswerSampling, Example, ImageSampling, Rollout
from unirl.updates import UpdateRule

DECAYING = ("linear", "cosine")


class SelfImprovement(LightningModule):
    """A unified model that learns from what it says about what it drew (UniRL, arXiv 2505.23380).

    Args:
        backbone: The model.
        update: How samples and scores become a loss.
        rewards: How good a sample was; several are added up by their weights.
        judge: Measures drawing and seeing in validation; training never asks it.
        group_size: Drawings of each prompt.
        sampling: How to draw.
        answering: How to answer in training; validation answers greedily.
        validation_sampling: How to draw in validation: where the untrained model draws best, lest training win by
            undoing a bad setting. As in training by default.
        accept: Least score of an answer that counts as "my drawing is right" when the critic is measured.
        exam_size: Given pictures that validation asks about.
        lr: Learning rate of AdamW.
        betas: Of AdamW.
        weight_decay: Of AdamW.
        eps: Of AdamW. A larger one moves weights less that have next to no gradient, instead of all alike.
        warmup_steps: Steps in which the learning rate rises to `lr`.
        lr_schedule: What it does afterwards, by transformers' names: stay, or fall to 0 by the last step.
        seed: Of everything that is drawn, together with step, rank and purpose.

    Raises:
        UserError: settings that cannot train.
    """

    def __init__(
        self,
        backbone: Backbone,
        update: UpdateRule,
        rewards: list[Reward],
        judge: Judge | None = None,
        group_size: int = 4,
        sampling: ImageSampling = ImageSampling(),
        answering: AnswerSampling = AnswerSampling(),
        validation_sampling: ImageSampling | None = None,
        accept: float = 1.0,
        exam_size: int = 240,
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        eps: float = 1e-8,
        warmup_steps: int = 0,
        lr_schedule: Literal["constant_with_warmup", "linear", "cosine"] = "constant_with_warmup",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if group_size < 1:
            raise UserError(f"group_size {group_size}: each prompt needs at least one drawing")
        if not rewards:
            raise UserError("rewards is empty: nothing would say which drawings are right; name at least one")
        update.check(backbone)
        self.backbone, self.update, self.rewards, self.judge = backbone, update, rewards, judge
        self.group_size, self.sampling, self.answering, self.accept = group_size, sampling, answering, accept
        self.exam_size, self.lr, self.betas, self.weight_decay, self.eps = exam_size, lr, betas, weight_decay, eps
        self.warmup_steps, self.lr_schedule, self.seed = warmup_steps, lr_schedule, seed
        self.validation_sampling = validation_sampling or sampling
        self.greedy = replace(answering, temperature=0.0)

    def configure_model(self) -> None:
        self.backbone.build()

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        rollout = self.rollout(batch)
        loss, logs = self.update.loss(self.backbone, rollout, self.sampling, self.counted("update"))
        means = {f"train/reward_{name}": part.mean() for name, part in rollout.score_parts.items()}
        self._log({"loss": loss, "reward": rollout.scores.mean()}, rollout, prog_bar=True)
        self._log(means | {f"train/{name}": value for name, value in logs.items()}, rollout)
        return loss

    @torch.no_grad()
    def rollout(self, batch: Sequence[Example]) -> Rollout:
        """Draw a group for each prompt, answer the question about each drawing, and score the answers."""
        examples = [example for example in batch for _ in range(self.group_size)]
        prompts, questions = [e.prompt for e in examples], [e.question for e in examples]
        images = self.backbone.sample_images(prompts, self.sampling, self.counted("images"))
        answers = self.backbone.sample_answers(images, questions, self.answering, self.counted("answers"))
        if any(reward.needs_pixels for reward in self.rewards):
            images = replace(images, pixels=self.backbone.decode(images))
        scores, parts = score(self.rewards, examples, images, answers)
        return Rollout(examples, images, answers, scores, parts, self.group_size)

    def _log(self, values: Mapping[str, Tensor], rollout: Rollout, prog_bar: bool = False) -> None:
        self.log_dict(values, prog_bar=prog_bar, sync_dist=True, batch_size=len(rollout.examples))

    def counted(self, purpose: str) -> torch.Generator:
        """The generator of this step, this process and this purpose; a resumed run gets the same ones."""
        step = self.trainer.fit_loop.total_batch_idx
        return generator_for(self.device, self.seed, step, self.global_rank, purpose)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, self.lr, self.betas, self.eps, self.weight_decay)
        total = int(self.trainer.estimated_stepping_batches) if self.lr_schedule in DECAYING else None
        schedule = get_scheduler(self.lr_schedule, optimizer, self.warmup_steps, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # --- measuring ---

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
