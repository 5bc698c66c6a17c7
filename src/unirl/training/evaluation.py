"""Measuring a model: generation, understanding, its own reward, consistency of both tasks, diversity."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchmetrics import Metric

from unirl.backbones import Backbone
from unirl.errors import check_plugin
from unirl.functional.seeding import generator_for
from unirl.judges import Judge, Verdict
from unirl.judges.verdict_checks import checked_explanations, checked_references, checked_understanding_set
from unirl.metrics.accuracy import AccuracyByCategory
from unirl.metrics.consistency import Consistency, is_correct_answer
from unirl.metrics.diversity import GroupDiversity, TimmFeatures
from unirl.metrics.self_reward import SelfRewardAccuracy
from unirl.prompts import Prompts
from unirl.rewards import Reward
from unirl.training.config import EvaluationConfig
from unirl.training.rollout import Rollouts
from unirl.types import Answers, AnswerSampling, Example, ImageSampling, Rollout

Metrics = dict[str, dict[str, Tensor]]
"""Values by metric and category, such as `{"generation": {"counting": ..., "overall": ...}}`."""


class Evaluator:
    """Measures a backbone over one evaluation. The judge is used here and nowhere else.

    Call `start`, then `step` for each batch of held-out examples, then `finish`. With several processes, `finish` is
    collective: call it on every rank, also where a rank had no batch.

    Args:
        rollouts: Generates, answers and scores.
        judge: Decides whether an image is correct. Without one, only diversity is measured.
        config: What is measured.
        image_sampling: How images are generated where `config` does not say.
        answer_sampling: How questions are answered; its temperature is set to 0.

    Attributes:
        verdicts: What the judge said about each image of the last `step`; empty without a judge.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        judge: Judge | None,
        config: EvaluationConfig,
        image_sampling: ImageSampling,
        answer_sampling: AnswerSampling,
    ) -> None:
        self.rollouts, self.judge, self.config = rollouts, judge, config
        self.image_sampling = config.image_sampling or image_sampling
        self.answer_sampling = replace(answer_sampling, temperature=0.0)
        self.verdicts: list[Verdict] = []
        self._metrics: dict[str, Metric] = {}

    @property
    def backbone(self) -> Backbone:
        """The model that is measured."""
        return self.rollouts.backbone

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each category in the last evaluation, over all processes, such as `{"generation/colors": 60}`."""
        metrics = {name: metric for name, metric in self._metrics.items() if isinstance(metric, AccuracyByCategory)}
        return {f"{name}/{category}": n for name, metric in metrics.items() for category, n in metric.counts.items()}

    def start(
        self, examples: Sequence[Example], device: torch.device | str = "cpu", rank: int = 0, world_size: int = 1
    ) -> None:
        """Begin an evaluation.

        Args:
            examples: All held-out examples, over all ranks.
            device: Where the backbone is.
            rank: Of this process.
            world_size: Number of processes.
        """
        self._examples, self._device = list(examples), torch.device(device)
        self._rank, self._world_size = rank, world_size
        judge, count = self.judge, self.config.num_understanding
        self._understanding_set = None if judge is None else checked_understanding_set(judge, count)
        all_examples = [*self._examples, *(self._understanding_set[0] if self._understanding_set else [])]
        categories = list(dict.fromkeys(example.category for example in all_examples))
        metrics: dict[str, Metric] = {}
        if self.config.num_diversity_prompts:
            metrics["diversity/codes"] = GroupDiversity("hamming")
            if self.config.diversity_model:
                self._features = TimmFeatures(self.config.diversity_model, self._device)
                metrics["diversity/features"] = GroupDiversity("cosine")
        if self.judge is not None:
            metrics["generation"] = AccuracyByCategory(categories)
            metrics["understanding"] = AccuracyByCategory(categories)
            metrics["self_reward"] = SelfRewardAccuracy(categories)
            if checked_references(self.judge, all_examples[:1]) is not None:
                metrics["consistency"] = Consistency()
        self._metrics = {name: metric.to(self._device) for name, metric in metrics.items()}

    def step(self, examples: Sequence[Example], batch_idx: int) -> Rollout:
        """Generate one image for each example and measure it.

        Args:
            examples: A batch of this rank's held-out examples.
            batch_idx: Its number; decides the random numbers, together with the rank.

        Returns:
            The samples; `score_parts["judge"]` holds the judge's verdicts where there is a judge.
        """
        generator = generator_for(self._device, "validation", batch_idx, self._rank)
        rollout = self.rollouts.sample(
            examples, self.image_sampling, self.answer_sampling, generator, decode=True, all_questions=False
        )
        if self.judge is None or rollout.images.pixels is None:
            return rollout
        self.verdicts = checked_explanations(self.judge, examples, rollout.images.pixels)
        correct = torch.tensor([one.correct for one in self.verdicts], device=rollout.images.pixels.device)
        categories = [example.category for example in examples]
        self._metrics["generation"].update(correct, categories)
        self._metrics["self_reward"].update(rollout.accepted, correct, categories)
        if "consistency" in self._metrics:
            self._consistency(self.judge, examples, correct, rollout.first_answers)
        return replace(rollout, score_parts={**rollout.score_parts, "judge": correct.float()})

    def finish(self) -> Metrics:
        """Measure understanding and diversity, and compute all metrics. Collective: call it on every rank."""
        self._understanding()
        self._diversity()
        measured: Metrics = {}
        for name, metric in self._metrics.items():
            values, (kind, _, part) = metric.compute(), name.partition("/")
            measured.setdefault(kind, {}).update({part: values} if part else values)
        return measured

    @torch.no_grad()
    def _understanding(self, batch_size: int = 60) -> None:
        """Ask about given images, each rank its share of them."""
        judge = self.judge
        if judge is None or self._understanding_set is None:
            return
        examples, pixels = self._understanding_set
        indices = range(self._rank, len(examples), self._world_size)
        for start in range(0, len(indices), batch_size):
            rows = list(indices[start : start + batch_size])
            part = [examples[i] for i in rows]
            answers = self._answer(pixels[rows], part)
            correct = [judge.accepts_answer(example, text) for example, text in zip(part, answers.text, strict=True)]
            self._metrics["understanding"].update(
                torch.tensor(correct, device=self._device), [example.category for example in part]
            )

    def _consistency(self, judge: Judge, examples: Sequence[Example], generated: Tensor, answers: Answers) -> None:
        """Compare answers about generated images with answers about correct reference images."""
        pixels = checked_references(judge, examples)
        assert pixels is not None
        batches = (answers, self._answer(pixels, examples))
        correct = [[is_correct_answer(e, t) for e, t in zip(examples, a.text, strict=True)] for a in batches]
        own, reference = torch.tensor(correct, device=self._device)
        self._metrics["consistency"].update(generated, own, reference)

    def _answer(self, pixels: Tensor, examples: Sequence[Example]) -> Answers:
        images = self.backbone.encode(pixels.to(self._device))
        return self.backbone.sample_answers(images, [e.question for e in examples], self.answer_sampling)

    @torch.no_grad()
    def _diversity(self, group_size: int = 4) -> None:
        """Generate groups of images for some held-out prompts, each rank its share of them."""
        examples = self._examples[: self.config.num_diversity_prompts][self._rank :: self._world_size]
        prompts = [example.prompt for example in examples for _ in range(group_size)]
        if not prompts:
            return
        generator = generator_for(self._device, "diversity", self._rank)
        images = self.backbone.sample_images(prompts, self.image_sampling, generator)
        self._metrics["diversity/codes"].update(images.codes, group_size)
        if "diversity/features" in self._metrics:
            self._metrics["diversity/features"].update(self._features(self.backbone.decode(images)), group_size)


def flatten(measured: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
    """Metrics as plain numbers by one name each.

    Example:
        >>> flatten({"generation": {"overall": torch.tensor(0.5)}})
        {'generation/overall': 0.5}
    """
    return {f"{kind}/{name}": float(value) for kind, values in measured.items() for name, value in values.items()}


def validate(
    backbone: Backbone,
    examples: Sequence[Example] | Prompts,
    rewards: Sequence[Reward],
    judge: Judge | None = None,
    config: EvaluationConfig = EvaluationConfig(),
    image_sampling: ImageSampling | None = None,
    answer_sampling: AnswerSampling | None = None,
    num_prompts: int = 240,
    batch_size: int = 60,
) -> dict[str, float]:
    """Measure a backbone in this process, without a trainer.

    Args:
        backbone: The model. It is built if it is not yet.
        examples: Held-out examples, or a source of prompts that has some.
        rewards: The rewards whose verdicts are compared with the judge's. They are attached to the backbone.
        judge: Decides whether an image is correct.
        config: What is measured.
        image_sampling: How images are generated where `config` does not say. Defaults to `backbone.sampling_config`.
        answer_sampling: How questions are answered; its temperature is set to 0. The same default.
        num_prompts: Held-out examples to take where `examples` is a source of prompts.
        batch_size: Images generated at a time.

    Returns:
        Values by name, such as "generation/overall"; accuracies in [0, 1].

    Raises:
        UserError: a setting is out of range, or a reward failed.
    """
    check_plugin("backbone", backbone, Backbone)
    check_plugin("rewards", rewards, Reward, is_list=True)
    if judge is not None:
        check_plugin("judge", judge, Judge)
    backbone.build()
    held_out = examples.held_out(num_prompts) if isinstance(examples, Prompts) else list(examples)
    own = backbone.sampling_config
    settings = (image_sampling or own.image_sampling, answer_sampling or own.answer_sampling)
    evaluator = Evaluator(Rollouts(backbone, rewards), judge, config, *settings)
    for reward in rewards:
        reward.attach(backbone)
    was_training = backbone.training
    backbone.eval()
    evaluator.start(held_out, next(backbone.parameters()).device)
    for batch_idx, start in enumerate(range(0, len(held_out), batch_size)):
        evaluator.step(held_out[start : start + batch_size], batch_idx)
    measured = flatten(evaluator.finish())
    backbone.train(was_training)
    return measured
