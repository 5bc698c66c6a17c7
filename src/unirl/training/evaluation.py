"""Validation: how a model draws, sees, and judges its own drawings."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from lightning import LightningModule
from torch import Tensor
from torchmetrics import Metric

from unirl.backbones import Backbone
from unirl.distributed.fsdp2 import hold, release
from unirl.functional.seeding import generator_for
from unirl.hooks.lifecycle import Lifecycle
from unirl.judges import Judge
from unirl.metrics.accuracy import AccuracyByCategory
from unirl.metrics.consistency import Consistency, answered_rightly
from unirl.metrics.diversity import GroupDiversity, TimmFeatures
from unirl.metrics.self_reward import CriticFairness
from unirl.rewards import Reward
from unirl.rewards.scoring import score
from unirl.types import Answers, AnswerSampling, Example, ImageSampling, Rollout


class Measuring(LightningModule):
    """The half of `SelfImprovement` that measures; the judge is asked here and nowhere else."""

    backbone: Backbone
    rewards: list[Reward]
    judge: Judge | None
    validation_sampling: ImageSampling
    greedy: AnswerSampling
    accept: float | None
    reward_timeout: float | None
    exam_size: int
    diversity_prompts: int
    features: str | None
    _lifecycle: Lifecycle

    def on_validation_start(self) -> None:
        hold(self.backbone)  # processes may have unequally much to draw
        self._exam = self.judge.exam(self.exam_size) if self.judge is not None else None
        asked = [*self.trainer.datamodule.examples, *(self._exam[0] if self._exam else [])]  # type: ignore[attr-defined]
        categories = list(dict.fromkeys(example.category for example in asked))
        metrics: dict[str, Metric] = {"diversity/codes": GroupDiversity("hamming")} if self.diversity_prompts else {}
        if self.diversity_prompts and self.features:
            self._features = TimmFeatures(self.features, self.device)
            metrics["diversity/features"] = GroupDiversity("cosine")
        if self.judge is not None:
            kinds = {"drawing": AccuracyByCategory, "seeing": AccuracyByCategory, "critic": CriticFairness}
            metrics |= {name: kind(categories) for name, kind in kinds.items()}
            if self.judge.references(asked[:1]) is not None:
                metrics["consistency"] = Consistency()
        self._metrics = {name: metric.to(self.device) for name, metric in metrics.items()}

    def validation_step(self, batch: Sequence[Example], batch_idx: int) -> dict[str, Rollout]:
        """Draw held-out prompts, ask the judge, and ask the model itself."""
        generator = generator_for(self.device, "validation", batch_idx, self.global_rank)
        prompts, questions = [e.prompt for e in batch], [e.question for e in batch]
        images = self.backbone.sample_images(prompts, self.validation_sampling, generator)
        images = replace(images, pixels=self.backbone.decode(images))
        answers = self.backbone.sample_answers(images, questions, self.greedy)
        scores, parts, accepted = score(self.rewards, batch, images, answers, self.accept, self.reward_timeout)
        if self.judge is not None and images.pixels is not None:
            right = self.judge.verdicts(batch, images.pixels)
            categories = [example.category for example in batch]
            self._metrics["drawing"].update(right, categories)
            self._metrics["critic"].update(accepted, right, categories)
            parts["judge"] = right.float()
            if "consistency" in self._metrics:
                self._compare(batch, right, answers)
        return {"rollout": Rollout(batch, images, answers, scores, parts, accepted, 1)}

    def on_validation_epoch_end(self) -> None:
        self._examine()
        self._vary()
        self.measured: dict[str, dict[str, Tensor]] = {}
        for name, metric in self._metrics.items():
            # Every process computes the same ones, even where its own share was empty: computing waits for the others.
            values, (kind, _, part) = metric.compute(), name.partition("/")
            self.measured.setdefault(kind, {}).update({part: values} if part else values)
        figures = {f"{kind}/{name}": v for kind, values in self.measured.items() for name, v in values.items()}
        self.log_dict({f"val/{name}": value for name, value in figures.items()})
        self._lifecycle.validated({name: float(value) for name, value in figures.items()})
        release(self.backbone)

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

    def _compare(self, batch: Sequence[Example], drawn: Tensor, answers: Answers) -> None:
        """Does the model see in a right picture what it was asked to draw, and in its own?"""
        assert self.judge is not None
        pixels = self.judge.references(batch)
        assert pixels is not None
        given = self.backbone.encode(pixels.to(self.device))
        seen = self.backbone.sample_answers(given, [e.question for e in batch], self.greedy)
        right = [[answered_rightly(e, t) for e, t in zip(batch, a.text, strict=True)] for a in (answers, seen)]
        said, saw = torch.tensor(right, device=self.device)
        self._metrics["consistency"].update(drawn, said, saw)

    @torch.no_grad()
    def _vary(self, group: int = 4) -> None:
        """Draw some held-out prompts several times, each process its share of them."""
        examples = self.trainer.datamodule.examples[: self.diversity_prompts]  # type: ignore[attr-defined]
        prompts = [e.prompt for e in examples[self.global_rank :: self.trainer.world_size] for _ in range(group)]
        if not prompts:
            return
        generator = generator_for(self.device, "diversity", self.global_rank)
        images = self.backbone.sample_images(prompts, self.validation_sampling, generator)
        self._metrics["diversity/codes"].update(images.codes, group)
        if "diversity/features" in self._metrics:
            self._metrics["diversity/features"].update(self._features(self.backbone.decode(images)), group)
