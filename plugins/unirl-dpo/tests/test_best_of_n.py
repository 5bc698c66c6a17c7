"""Best-of-n against sums done by hand, on a policy that is a table of logits."""

import pytest
import torch

from unirl.errors import UserError
from unirl.types import ImageSampling
from unirl_dpo.best_of_n import BestOfN

from .tables import CODES, Masked, Table, learn, rollout, slope

SCORES = torch.tensor([1.0, 0.0, 2.0, 0.2, 0.7, 0.5])


def test_the_best_accepted_drawing_of_each_group_is_learnt() -> None:
    policy = Table()
    accepted = torch.tensor([True, False, False, True, False, True])  # the best of all are not
    loss, logs = learn(BestOfN(), policy, rollout(SCORES, accepted=accepted))
    assert policy.calls == [(["0", "1"], [CODES[0].tolist(), CODES[5].tolist()])]
    chances = policy.drawing.softmax(-1).detach()
    expected = torch.zeros(2, 3)
    for prompt, codes in ((0, CODES[0]), (1, CODES[5])):
        for code in codes:
            expected[prompt] -= (torch.eye(3)[code] - chances[prompt]) / 2 / 2
    torch.testing.assert_close(slope(loss, policy), expected)
    torch.testing.assert_close(logs["image_loss"], loss.detach())
    assert logs["learnt_groups"] == 1


def test_the_best_is_learnt_where_nothing_is_accepted_if_asked() -> None:
    policy, scores = Table(), torch.tensor([0.1, 0.0, 0.3, 0.2, 0.2, 0.2])
    _, logs = learn(BestOfN(learn="best"), policy, rollout(scores))
    assert policy.calls == [(["0"], [CODES[2].tolist()])]  # the second group scored alike
    assert logs["learnt_groups"] == 0.5


@pytest.mark.parametrize("mode", ["accepted", "best"])
def test_where_nothing_is_chosen_nothing_is_computed(mode: str) -> None:
    policy = Table()
    loss, logs = learn(BestOfN(learn=mode), policy, rollout(torch.zeros(6)))  # type: ignore[arg-type]
    assert policy.calls == []
    assert loss == logs["learnt_groups"] == 0
    assert slope(loss, policy).abs().max() == 0  # a loss that reaches every parameter
    assert list(logs) == list(learn(BestOfN(), policy, rollout())[1])


@pytest.mark.parametrize("mode", ["accepted", "best"])
def test_what_was_dropped_is_never_the_best(mode: str) -> None:
    policy, weights = Table(), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    batch = rollout(SCORES, accepted=torch.ones(6).bool(), weights=weights)
    learn(BestOfN(learn=mode), policy, batch)  # type: ignore[arg-type]
    assert policy.calls == [(["0"], [CODES[0].tolist()])]


def test_weights_tell_groups_apart() -> None:
    policy, accepted = Table(), torch.tensor([True, False, False, True, False, False])
    loss, _ = learn(BestOfN(), policy, rollout(accepted=accepted, weights=torch.tensor([0.5, 1, 1, 1, 1, 1])))
    log_probs = policy.drawing.log_softmax(-1)[[0, 1]].gather(1, CODES[[0, 3]]).mean(1)
    torch.testing.assert_close(loss, -(0.5 * log_probs[0] + log_probs[1]) / 1.5)


def test_prompts_that_always_succeed_teach_nothing_if_asked() -> None:
    accepted = torch.tensor([True, True, True, True, False, False])
    for weight_by_failure_rate, learnt in ((True, ["1"]), (False, ["0", "1"])):
        policy = Table()
        learn(BestOfN(weight_by_failure_rate=weight_by_failure_rate), policy, rollout(SCORES, accepted=accepted))
        assert policy.calls[0][0] == learnt


def test_a_masked_model_learns_under_the_masks_of_the_generator() -> None:
    policy = Masked()
    accepted = torch.tensor([True, False, False, True, False, False])
    loss, _ = learn(BestOfN(), policy, rollout(accepted=accepted))
    log_probs = policy.drawing.log_softmax(-1)[[0, 1]].gather(1, CODES[[0, 3]])
    torch.testing.assert_close(loss, -(log_probs * torch.tensor(policy.masks[0])).sum(1).mean())


def test_it_says_whether_it_needs_accepted_samples() -> None:
    assert BestOfN().learns_from_accepted
    assert not BestOfN(learn="best").learns_from_accepted


def test_what_cannot_train_is_refused() -> None:
    with pytest.raises(UserError, match="best_of_n takes the best drawing of a group, and group_size is 1; take 2"):
        BestOfN().check(Table(), 1, ImageSampling())
    with pytest.raises(UserError, match="best_of_n: views 0"):
        BestOfN(num_masks=0)
