"""Candidates for the labels of answers: which texts, and what the rewards say of them."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from unirl import Answers, AnswerSampling, CandidateSampling, Example, Images, ImageSampling, Question
from unirl.rewards import Reward
from unirl.rewards.keyword import Keyword
from unirl.testing import TinyBackbone
from unirl.training.rollout import Rollouts

EXAMPLES = [
    Example("a circle left of a ring", "where is the circle ?", "left", "position"),
    Example("two rings", "how many ?", "two rings", "counting"),
]


class Scripted(TinyBackbone):
    """Says "left above" and "two rings", and samples other answers."""

    sampled: Sequence[Sequence[str]] = (("left", "above", "left"), ("two rings", "", "two rings"))

    @override
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        if len(questions) == len(images):
            return self.tokenize_answers(["left above", "two rings"])
        if len(questions) == 4:
            return self.tokenize_answers([""] * 4)
        assert questions == [e.question for e in EXAMPLES for _ in range(3)]
        assert (sampling.max_tokens, sampling.temperature) == (5, 0.7)
        return self.tokenize_answers([text for texts in self.sampled for text in texts])


class NoImage(Reward):
    """Accepts no image, whatever is said about it."""

    accept_threshold = 1.0

    @override
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert len(examples) == len(images) == len(answers)
        return torch.zeros(len(images))


@pytest.fixture
def rollouts() -> Rollouts:
    backbone = Scripted()
    backbone.build()
    return Rollouts(backbone, [Keyword()])


def candidates_of(rollouts: Rollouts, count: int = 3):
    rollout = rollouts.sample(EXAMPLES, ImageSampling(), AnswerSampling(5), torch.Generator().manual_seed(0))
    with_candidates = rollouts.add_candidates(rollout, CandidateSampling(count, 0.7), 5)
    assert dataclasses.replace(with_candidates, candidates=None) == rollout
    assert with_candidates.candidates is not None
    return with_candidates.candidates


def test_each_text_is_one_candidate_and_an_answer_without_text_is_none(rollouts: Rollouts) -> None:
    candidates = candidates_of(rollouts)
    assert candidates.answers.text == ["left", "left above", "above", "two rings", "two rings", "two rings"]
    assert candidates.mask.tolist() == [[True, True, True], [True, False, False]]


def test_rewards_judge_each_candidate(rollouts: Rollouts) -> None:
    """The keyword of "left" is in "left above", too."""
    assert candidates_of(rollouts).accepted[0].tolist() == [True, True, False]
    rollouts.rewards.append(NoImage())
    assert not candidates_of(rollouts).accepted.any()


def test_without_sampling_the_candidates_are_the_prompts_and_the_own_answer(rollouts: Rollouts) -> None:
    candidates = candidates_of(rollouts, count=0)
    assert candidates.answers.text == ["left", "left above", "two rings", "two rings"]


def test_each_question_of_an_image_has_candidates_of_its_own(rollouts: Rollouts) -> None:
    """A candidate is judged as the answer to its question alone."""
    both = Example(
        "a circle left of a ring",
        category="position",
        questions=(Question("where is the circle ?", "left", ("left", "right")), Question("how many rings ?", "one")),
    )
    rollout = rollouts.sample([both, EXAMPLES[1]], ImageSampling(), AnswerSampling(5), torch.Generator().manual_seed(0))
    rollout = dataclasses.replace(
        rollout, answers=dataclasses.replace(rollout.answers, text=["left", "two", "two rings", ""])
    )
    candidates = rollouts.add_candidates(rollout, CandidateSampling(0), 5).candidates
    assert candidates is not None
    assert candidates.answers.text == ["left", "left", "one", "two", "two rings", "two rings", "two rings", "two rings"]
    assert candidates.mask.tolist() == [[True, False], [True, True], [True, False], [True, False]]
    assert candidates.accepted[1].tolist() == [True, False]
