"""Runs on several questions about an image: what is asked, who gets the answers, what is logged and learned."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning import Callback
from torch import Tensor

from unirl import (
    Answers,
    EvaluationConfig,
    Example,
    Guards,
    Images,
    ImageSampling,
    QualityControl,
    Rollout,
    SelfImprovement,
    hookimpl,
    question_rows,
)
from unirl.callbacks.quality import answer_confidence
from unirl.rewards import Reward
from unirl.testing import TinyBackbone
from unirl.training.evaluation import Evaluator
from unirl.training.rollout import Rollouts
from unirl.types import AnswerSampling
from unirl.updates import GRPO, SFT, KLPenalty, PolicyLoss, PosteriorLabels, UpdateRule

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))  # tests are not a package


class First(Reward):
    """Scores the images, and checks that it gets one answer for each."""

    accept_threshold = 0.4

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert len(answers) == len(examples) == len(images)
        return (images.codes.sum(1) % 3) / 2


class Every(First):
    """The mean number of tokens of the answers to all questions."""

    all_questions: ClassVar[bool] = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        k = max(len(example.questions) for example in examples)
        assert len(answers) == k * len(images)
        assert answers.mask.any(1).view(-1, k).sum(1).tolist() == [len(example.questions) for example in examples]
        return answers.mask.sum(1).view(-1, k).sum(1).float()


class Recorder(Callback):
    """Records rollouts."""

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> None:
        self.rollout = rollout


@pytest.fixture
def fit(runs):
    def run(folder: Path, update: UpdateRule, callbacks: Sequence[Callback] = (), **options: Any) -> SelfImprovement:
        module = runs.data(runs.question_sets(), prompts_per_step=3)
        model = runs.module(
            TinyBackbone(), update, options.pop("rewards", [First()]), group_size=3, image_sampling=ImageSampling(3),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.01), **options,
        )  # fmt: skip
        trainer = {"limit_val_batches": 0, "max_steps": 2, "enable_checkpointing": False}
        runs.trainer(folder, callbacks=list(callbacks), **trainer).fit(model, module)
        return model

    return run


def test_all_questions_are_asked_and_rewards_get_what_they_ask_for(runs) -> None:
    examples, backbone = [runs.question_sets().sample(0, i) for i in range(3)], TinyBackbone()
    backbone.build()
    rollouts = Rollouts(backbone, [First(), Every(weight=0.5)])
    rollout = rollouts.sample(examples, ImageSampling(3), AnswerSampling(4), torch.Generator(), group_size=2)
    assert rollout.num_questions == 3
    assert rollout.questions == [question.text for question in question_rows(rollout.examples)]
    asked = rollout.answer_weights > 0
    assert torch.equal(rollout.answers.mask.any(1), asked)
    assert [text == "" for text, real in zip(rollout.answers.text, asked, strict=True) if not real] == [True] * 6
    parts = rollout.score_parts
    torch.testing.assert_close(rollout.scores, parts["first"] + 0.5 * parts["every"])
    alone = backbone.sample_answers(rollout.images, rollout.questions, AnswerSampling(4))
    assert torch.equal(rollout.answers.ids, alone.ids)


@pytest.mark.parametrize(("rewards", "expected"), [([First()], 1), ([First(), Every()], 3)])
def test_evaluation_asks_only_what_a_reward_reads(rewards: list[Reward], expected: int, runs) -> None:
    examples, backbone = [runs.question_sets().sample(0, i) for i in range(3)], TinyBackbone()
    backbone.build()
    config, answering = EvaluationConfig(num_diversity_prompts=0), AnswerSampling(4)
    evaluator = Evaluator(Rollouts(backbone, rewards), None, config, ImageSampling(3), answering)
    evaluator.start(examples)
    assert evaluator.step(examples, 0).num_questions == expected


def test_logs_and_callbacks_count_real_answers(fit, tmp_path: Path) -> None:
    recorder, quality = Recorder(), QualityControl(min_confidence=0.01)
    guards = Guards(max_logprob_gap=1e-4)
    options = {"rewards": [First(), Every()], "answer_sampling": AnswerSampling(4, 1.0)}
    model = fit(tmp_path, GRPO(answer_labels="self"), [recorder, quality, guards], **options)
    rollout, logs = recorder.rollout, model.trainer.callback_metrics
    lengths = rollout.answers.mask.sum(1)
    assert (lengths == 0).sum() == 9
    torch.testing.assert_close(logs["completions/mean_length"], lengths[lengths > 0].float().mean())
    confidence = answer_confidence(rollout)
    assert confidence is not None
    assert rollout.answers.log_probs is not None
    assert confidence.shape == (9,)
    torch.testing.assert_close(confidence[0], rollout.answers.log_probs[0, : lengths[0]].mean().exp())
    assert not guards.warnings


RULES: dict[str, Any] = {
    "grpo": lambda: GRPO(answer_labels="self", loss=PolicyLoss(reduction="token"), kl=KLPenalty(answer_beta=0.5)),
    "grpo, accepted": GRPO,
    "sft": lambda: SFT(num_masks=2),
    "sft, posterior": lambda: SFT(answer_labels="posterior", posterior=PosteriorLabels(2, min_posterior=0.0)),
    "sft, images of the reference": lambda: SFT(answer_labels="prompt", answer_images="reference"),
    "sft, end to end": lambda: SFT(end_to_end=True, answer_labels="prompt", straight_through_steps=2),
}


def results(model: SelfImprovement) -> dict[str, Any]:
    weights = {name: p.detach() for name, p in model.backbone.named_parameters() if p.requires_grad}
    return {"logs": dict(model.trainer.callback_metrics), "weights": weights}


@pytest.mark.parametrize("rule", RULES)
def test_micro_batches_train_as_the_whole_step(rule: str, fit, tmp_path: Path) -> None:
    options = {"num_iterations": 2, "answer_sampling": AnswerSampling(4, 1.0)}
    whole, parts = (results(fit(tmp_path, RULES[rule](), loss_batch_size=size, **options)) for size in (None, 4))
    assert whole["logs"]["loss"] != 0
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_all_answers_are_learned(runs) -> None:
    """The answer loss is that of each question alone, each with its share of the weight of an image."""
    examples, backbone = [runs.question_sets().sample(0, i) for i in (1, 2)], TinyBackbone()
    backbone.build()
    sampler = Rollouts(backbone, [First()])
    rollout = sampler.sample(examples, ImageSampling(3), AnswerSampling(4), torch.Generator(), group_size=2)
    rollout = replace(rollout, accepted=torch.tensor([True, False, True, True]))
    loss, _ = SFT(image_weight=0).loss(backbone, rollout, ImageSampling(3), torch.Generator())
    numerator, denominator = torch.zeros(()), 0.0
    for image, example in zip((0, 2, 3), (examples[0], examples[1], examples[1]), strict=True):
        for question in example.questions:
            target = backbone.tokenize_answers([question.answer])
            log_probs = backbone.answer_log_probs(rollout.images[image : image + 1], [question.text], target)
            numerator = numerator - log_probs.sum() / len(example.questions)
            denominator += float(target.mask.sum()) / len(example.questions)
    torch.testing.assert_close(loss, numerator / denominator)
