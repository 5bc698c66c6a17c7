"""Best-of-n against computations by hand, on a policy that is a table of logits."""

import pytest
import torch

from unirl import ImageSampling, UserError
from unirl_dpo.best_of_n import BestOfN

from .table_policy import CODES, MaskedTablePolicy, TablePolicy, compute_loss, gradient, rollout

SCORES = torch.tensor([1.0, 0.0, 2.0, 0.2, 0.7, 0.5])


def test_the_best_accepted_image_of_each_group_is_trained() -> None:
    policy = TablePolicy()
    accepted = torch.tensor([True, False, False, True, False, True])  # the best images are not accepted
    loss, metrics = compute_loss(BestOfN(), policy, rollout(SCORES, accepted=accepted))
    assert policy.calls == [(["0", "1"], [CODES[0].tolist(), CODES[5].tolist()])]
    probs = policy.logits.softmax(-1).detach()
    expected = torch.zeros(2, 3)
    for prompt, codes in ((0, CODES[0]), (1, CODES[5])):
        for code in codes:
            expected[prompt] -= (torch.eye(3)[code] - probs[prompt]) / 2 / 2
    torch.testing.assert_close(gradient(loss, policy), expected)
    torch.testing.assert_close(metrics["loss/image"], loss.detach())
    assert metrics["frac_trained_groups"] == 1


def test_the_best_image_is_trained_where_none_is_accepted_if_asked() -> None:
    policy, scores = TablePolicy(), torch.tensor([0.1, 0.0, 0.3, 0.2, 0.2, 0.2])
    _, metrics = compute_loss(BestOfN(select="best"), policy, rollout(scores))
    assert policy.calls == [(["0"], [CODES[2].tolist()])]  # the second group has equal scores
    assert metrics["frac_trained_groups"] == 0.5


@pytest.mark.parametrize("mode", ["accepted", "best"])
def test_without_selected_images_nothing_is_computed(mode: str) -> None:
    policy = TablePolicy()
    loss, metrics = compute_loss(BestOfN(select=mode), policy, rollout(torch.zeros(6)))  # type: ignore[arg-type]
    assert policy.calls == []
    assert loss == metrics["frac_trained_groups"] == 0
    assert gradient(loss, policy).abs().max() == 0  # a loss that reaches every parameter
    assert list(metrics) == list(compute_loss(BestOfN(), policy, rollout())[1])


@pytest.mark.parametrize("mode", ["accepted", "best"])
def test_dropped_samples_are_never_selected(mode: str) -> None:
    policy, weights = TablePolicy(), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    batch = rollout(SCORES, accepted=torch.ones(6).bool(), weights=weights)
    compute_loss(BestOfN(select=mode), policy, batch)  # type: ignore[arg-type]
    assert policy.calls == [(["0"], [CODES[0].tolist()])]


def test_groups_are_weighted_by_their_samples() -> None:
    policy, accepted = TablePolicy(), torch.tensor([True, False, False, True, False, False])
    loss, _ = compute_loss(BestOfN(), policy, rollout(accepted=accepted, weights=torch.tensor([0.5, 1, 1, 1, 1, 1])))
    log_probs = policy.logits.log_softmax(-1)[[0, 1]].gather(1, CODES[[0, 3]]).mean(1)
    torch.testing.assert_close(loss, -(0.5 * log_probs[0] + log_probs[1]) / 1.5)


def test_prompts_that_always_succeed_are_not_trained_if_asked() -> None:
    accepted = torch.tensor([True, True, True, True, False, False])
    for weight_by_failure_rate, trained in ((True, ["1"]), (False, ["0", "1"])):
        policy = TablePolicy()
        compute_loss(BestOfN(weight_by_failure_rate=weight_by_failure_rate), policy, rollout(SCORES, accepted=accepted))
        assert policy.calls[0][0] == trained


def test_a_masked_model_is_scored_under_the_masks_of_the_generator() -> None:
    policy = MaskedTablePolicy()
    accepted = torch.tensor([True, False, False, True, False, False])
    loss, _ = compute_loss(BestOfN(), policy, rollout(accepted=accepted))
    log_probs = policy.logits.log_softmax(-1)[[0, 1]].gather(1, CODES[[0, 3]])
    torch.testing.assert_close(loss, -(log_probs * torch.tensor(policy.masks[0])).sum(1).mean())


def test_learns_from_accepted() -> None:
    assert BestOfN().learns_from_accepted
    assert not BestOfN(select="best").learns_from_accepted


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(UserError, match="best_of_n takes the best image of a group, and group_size is 1; take 2"):
        BestOfN().check(TablePolicy(), 1, ImageSampling())
    with pytest.raises(UserError, match="best_of_n: num_masks 0"):
        BestOfN(num_masks=0)
