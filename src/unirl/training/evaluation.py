"""Measuring a model: generation, understanding, its own reward, consistency of both tasks, diversity."""

import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from unirl.backbones import Backbone
from unirl.backbones.given_images import GivenImages, answer_given, check_reads, select_given
from unirl.errors import UserError, check_plugin
from unirl.functional.seeding import generator_for
from unirl.judges import Judge, Verdict
from unirl.judges.verdict_checks import checked_explanations, checked_references, checked_understanding_set
from unirl.metrics.accuracy import AccuracyByCategory
from unirl.metrics.completions import ClippedRatio
from unirl.metrics.consistency import Consistency, is_correct_answer
from unirl.metrics.diversity import GroupDiversity, TimmFeatures
from unirl.metrics.self_reward import SelfRewardAccuracy
from unirl.prompts import Prompts
from unirl.rewards import Reward
from unirl.rewards.scoring import distribution_of
from unirl.training.config import EvaluationConfig
from unirl.training.lengths import clipped_answers
from unirl.training.rollout import Rollouts
from unirl.training.scorable import find_refused, raise_errors
from unirl.types import Answers, AnswerSampling, Example, ImageSampling, Rollout

Metrics = dict[str, dict[str, Tensor]]
"""Values by metric and category, such as `{"generation": {"counting": ..., "overall": ...}}`."""


class Evaluator:
    """Measures a backbone over one evaluation. The judge is used here and nowhere else.

    Call `start`, then `step` for each batch of held-out examples, then `finish`. With several processes, `finish` is
    collective: call it on every rank, also where a rank had no batch.

    Args:
        rollouts: Generates, answers and scores.
        judge: Decides whether an image is correct. Without one, only diversity and cut-off answers are measured.
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
        self._said_missing = False

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
        if judge is not None and self._examples:
            _ask(judge, type(judge).load)
        self._understanding_set = None if judge is None else _ask(judge, checked_understanding_set, count)
        if self._understanding_set is not None:
            check_reads(self.backbone, self._understanding_set[1])
            given, max_tokens = self._understanding_set[0], self.answer_sampling.max_tokens
            self.rollouts.lengths.warn(given, max_tokens, "questions about given images", generates=False)
        all_examples = [*self._examples, *(self._understanding_set[0] if self._understanding_set else [])]
        categories = list(dict.fromkeys(example.category for example in all_examples))
        metrics = self._new_metrics(categories, all_examples[:1])
        if "diversity/features" in metrics and self.config.diversity_model:
            self._features = TimmFeatures(self.config.diversity_model, self._device)
        self._metrics = {name: metric.to(self._device) for name, metric in metrics.items()}
        self._find_missing_references()

    def _new_metrics(self, categories: Sequence[str], examples: Sequence[Example]) -> dict[str, Metric]:
        """What is measured, by kind; an example tells whether the judge has references."""
        metrics: dict[str, Metric] = {"completions": ClippedRatio()}
        if self.config.num_diversity_prompts:
            metrics["diversity/codes"] = GroupDiversity("hamming")
            if self.config.diversity_model:
                metrics["diversity/features"] = GroupDiversity("cosine")
        if self.judge is not None:
            metrics["generation"] = AccuracyByCategory(categories)
            metrics["understanding"] = AccuracyByCategory(categories)
            metrics["self_reward"] = SelfRewardAccuracy(categories)
            if _ask(self.judge, checked_references, examples) is not None:
                metrics["consistency"] = Consistency()
        return metrics

    def _find_missing_references(self) -> None:
        """Say once of how many held-out prompts a judge that reads files has no image."""
        if self._said_missing or "consistency" not in self._metrics or not self._examples:
            return
        self._said_missing = True
        assert self.judge is not None
        if isinstance(_ask(self.judge, checked_references, self._examples[:1]), Tensor):
            return
        found = _ask(self.judge, checked_references, self._examples)
        check_reads(self.backbone, found)
        if missing := [one for one, path in zip(self._examples, found, strict=True) if path is None]:
            rank_zero_warn(
                f"judge {type(self.judge).__name__} has no reference image of {len(missing)} of {len(found)} held-out "
                f"prompts, such as {missing[0].prompt!r}; consistency is measured on the others"
            )

    def metric_names(self, examples: Sequence[Example]) -> list[str]:
        """Names of what an evaluation may measure, such as "generation/counting". Loads no model.

        Some are left out of an evaluation in which they have no value: the accuracy of the self-reward where every
        image is correct.

        Args:
            examples: All held-out examples.
        """
        count = self.config.num_understanding
        understanding = None if self.judge is None else _ask(self.judge, checked_understanding_set, count)
        check_reads(self.backbone, understanding[1] if understanding else None)
        asked = understanding[0] if understanding else []
        generated = [*dict.fromkeys(example.category for example in examples), "overall"]
        parts = {
            "generation": generated,
            "understanding": [*dict.fromkeys(example.category for example in asked), "overall"] if asked else [],
            "self_reward": generated,
            "consistency": Consistency.names,
            "completions": ClippedRatio.names,
        }
        metrics = self._new_metrics((), [*examples, *asked][:1])
        return [name if "/" in name else f"{name}/{part}" for name in metrics for part in parts.get(name, ("",))]

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
        self._count_clipped(rollout.answers)
        if self.judge is None or rollout.images.pixels is None:
            return rollout
        self.verdicts = _ask(self.judge, checked_explanations, examples, rollout.images.pixels)
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
        examples, images = self._understanding_set
        indices = range(self._rank, len(examples), self._world_size)
        for start in range(0, len(indices), batch_size):
            rows = list(indices[start : start + batch_size])
            part = [examples[i] for i in rows]
            answers = self._answer(select_given(images, rows), part)
            correct = [judge.accepts_answer(example, text) for example, text in zip(part, answers, strict=True)]
            self._metrics["understanding"].update(
                torch.tensor(correct, device=self._device), [example.category for example in part]
            )

    def _consistency(self, judge: Judge, examples: Sequence[Example], generated: Tensor, answers: Answers) -> None:
        """Compare answers about generated images with answers about correct reference images, where there are some."""
        references = _ask(judge, checked_references, examples)
        if not isinstance(references, Tensor):
            rows = [row for row, path in enumerate(references) if path is not None]
            if not rows:  # an update tells the metric that it was used
                self._metrics["consistency"].update(generated[:0], generated[:0], generated[:0])
                return
            references, examples = select_given(references, rows), [examples[row] for row in rows]
            generated, answers = generated[rows], answers[torch.tensor(rows)]
        texts = (answers.text, self._answer(references, examples, choose=False))
        correct = [[is_correct_answer(e, t) for e, t in zip(examples, text, strict=True)] for text in texts]
        own, reference = torch.tensor(correct, device=self._device)
        self._metrics["consistency"].update(generated, own, reference)

    def _answer(self, images: GivenImages, examples: Sequence[Example], choose: bool = True) -> list[str]:
        answers = answer_given(self.backbone, examples, images, self.answer_sampling, choose)
        if answers.sampled is not None:
            self._count_clipped(answers.sampled)
        return answers.text

    def _count_clipped(self, answers: Answers) -> None:
        """Count sampled answers, and those that were cut off at `max_tokens`."""
        max_tokens, ends = self.answer_sampling.max_tokens, self.backbone.eos_token_ids
        self._metrics["completions"].update(clipped_answers(answers, max_tokens, ends))

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


METHODS: Mapping[Callable[..., Any], str] = {
    checked_explanations: "explain",
    checked_references: "references",
    checked_understanding_set: "understanding_set",
}
"""What each function calls."""


def _ask(judge: Judge, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the judge. What it raises ends the run in one line that names the judge."""
    try:
        return function(judge, *args)
    except Exception as error:
        name = f"judge {type(judge).__name__} ({distribution_of(judge)})"
        if isinstance(error, UserError):
            message = str(error).removeprefix(f"judge {type(judge).__name__}: ")
            raise UserError(f"{name}: {message}") from error
        method = METHODS.get(function, function.__name__)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        failure = f"{method} failed with {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        advice = "take prompts that it can judge, or --model.judge null; its check_example may refuse the others"
        raise UserError(f"{name}: {failure}; {advice}") from error


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
        UserError: a setting is out of range, a reward cannot score a prompt or the judge not judge it, or one failed.
    """
    check_plugin("backbone", backbone, Backbone)
    check_plugin("rewards", rewards, Reward, is_list=True)
    if judge is not None:
        check_plugin("judge", judge, Judge)
    held_out = examples.held_out(num_prompts) if isinstance(examples, Prompts) else list(examples)
    source = examples if isinstance(examples, Prompts) else None
    raise_errors(find_refused(held_out, rewards, judge, "{} held-out prompts", source))
    if not held_out:
        warnings.warn("evaluate: there are no held-out prompts, so no image is generated and judged", stacklevel=2)
    backbone.build()
    own = backbone.sampling_config
    settings = (image_sampling or own.image_sampling, answer_sampling or own.answer_sampling)
    evaluator = Evaluator(Rollouts(backbone, rewards), judge, config, *settings)
    for reward in rewards:
        reward.attach(backbone)
    was_training = backbone.training
    backbone.eval()
    evaluator.rollouts.lengths.warn(held_out, evaluator.answer_sampling.max_tokens, "prompts", "max_tokens")
    evaluator.start(held_out, next(backbone.parameters()).device)
    for batch_idx, start in enumerate(range(0, len(held_out), batch_size)):
        evaluator.step(held_out[start : start + batch_size], batch_idx)
    measured = flatten(evaluator.finish())
    backbone.train(was_training)
    return measured
