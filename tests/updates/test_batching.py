"""Which samples a loss scores, in micro-batches and on sharded ranks."""

from dataclasses import replace

import pytest
import torch

from unirl.testing import BanditBackbone, make_bandit_rollout
from unirl.testing.bandit_trainer import repeat_questions
from unirl.types import ImageSampling, Rollout, question_rows
from unirl.updates import batching, scoring_batch

WEIGHTS = torch.tensor([0.0, 2.0, 1.0, 0.0, 0.0, 0.5])


@pytest.fixture
def rollout() -> Rollout:
    return make_bandit_rollout(BanditBackbone(), 3, ImageSampling(), seed=0, num_prompts=2)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [(WEIGHTS, [[1], [2], [5]]), (WEIGHTS > 0, [[1], [2], [5]]), (None, [[0, 1], [2, 3], [4, 5]])],
)
def test_micro_batches_have_the_samples_with_a_weight(
    weights: torch.Tensor | None, expected: list[list[int]], rollout: Rollout
) -> None:
    parts = replace(rollout, loss_batch_size=2).micro_batches()
    batches = [scoring_batch(BanditBackbone(), part, weights) for part in parts]
    assert [batch.rows.tolist() for batch in batches] == expected
    for batch in batches:
        assert torch.equal(batch.all_rows[batch.positions], batch.rows)
        assert batch.all_rows.tolist() == [row for rows in expected for row in rows]
        assert batch.prompts == [rollout.prompts[i] for i in batch.rows]
        assert batch.questions == [rollout.questions[i] for i in batch.rows]
        assert torch.equal(batch.images.codes, rollout.images.codes[batch.rows])
        assert batch.answers.text == [rollout.answers.text[i] for i in batch.rows]


@pytest.mark.parametrize("weights", [WEIGHTS, None])
def test_answers_are_those_about_the_images(weights: torch.Tensor | None, rollout: Rollout) -> None:
    several = replace(repeat_questions(rollout), loss_batch_size=2)
    several = replace(several, answers=replace(several.answers, text=[str(row) for row in range(18)]))
    assert several.questions == [question.text for question in question_rows(several.examples)]
    positions = []
    for part in several.micro_batches():
        batch = scoring_batch(BanditBackbone(), part, weights)
        expected = [3 * row + i for row in batch.rows.tolist() for i in range(3)]
        assert batch.answers.text == [str(row) for row in expected]
        assert batch.questions == [several.questions[row] for row in expected]
        assert torch.equal(batch.all_answer_rows[batch.answer_positions], batch.answer_rows)
        positions += batch.answer_positions.tolist()
    assert positions == list(range(len(batch.all_answer_rows)))


@pytest.mark.parametrize("others", [False, True])
def test_a_sharded_rank_without_samples_scores_one_where_others_have_some(
    others: bool, rollout: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = torch.zeros(6)
    assert len(scoring_batch(BanditBackbone(), rollout, none)) == 0
    monkeypatch.setattr(batching, "is_sharded", lambda backbone: True)
    monkeypatch.setattr(batching, "any_rank", lambda value, device: value or others)
    for part in replace(rollout, loss_batch_size=4).micro_batches():
        batch = scoring_batch(BanditBackbone(), part, none)
        assert (len(batch), batch.is_dummy) == (int(others), others)
        assert not none[batch.rows].any()
        assert len(batch.prompts) == len(batch.images) == int(others)
    assert scoring_batch(BanditBackbone(), rollout, WEIGHTS).rows.tolist() == [1, 2, 5]
