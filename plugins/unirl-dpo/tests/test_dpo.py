"""DPO against computations by hand, on a policy that is a table of logits."""

import math
from typing import Any

import pytest
import torch

from unirl import ImageSampling, UserError
from unirl_dpo.dpo import DPO

from .table_policy import (
    SCORES,
    TablePolicy,
    attached,
    change,
    compute_loss,
    gradient,
    log_likelihoods,
    prepared,
    rollout,
)


def test_an_untrained_policy_has_loss_log_2_and_gradient_half_beta() -> None:
    policy = TablePolicy()
    rule = attached(policy, beta=0.4)
    loss, metrics = compute_loss(rule, policy, prepared(rule, policy, rollout()))
    assert loss.item() == pytest.approx(math.log(2))
    # Only the first group has a pair, (0, 1); codes (0, 1) against (1, 1). The normalization cancels out.
    expected = torch.zeros(2, 3)
    expected[0] = -0.4 * 0.5 * torch.tensor([1.0, -1.0, 0.0])
    torch.testing.assert_close(gradient(loss, policy), expected)
    assert metrics["frac_unpaired_groups"] == 0.5
    assert metrics["rewards/margins"] == metrics["rewards/accuracies"] == 0


@pytest.mark.parametrize("options", [{}, {"variant": "ipo"}, {"label_smoothing": 0.2}, {"sft_weight": 0.3}])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_trained_policy_by_hand(options: dict[str, Any], reduction: str) -> None:
    policy, beta = TablePolicy(), 0.4
    rule = attached(policy, beta=beta, reduction=reduction, **options)
    batch, before = prepared(rule, policy, rollout()), log_likelihoods(policy).detach()
    change(policy)
    now = log_likelihoods(policy)
    gap = ((now - before)[0] - (now - before)[1]) / (1 if reduction == "sum" else 2)
    smoothing = options.get("label_smoothing", 0.0)
    expected = -(1 - smoothing) * (beta * gap).sigmoid().log() - smoothing * (-beta * gap).sigmoid().log()
    if "variant" in options:
        expected = (gap - 1 / (2 * beta)) ** 2
    expected = expected - options.get("sft_weight", 0.0) * now[0] / 2
    loss, metrics = compute_loss(rule, policy, batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, policy), gradient(expected, policy))
    torch.testing.assert_close(metrics["rewards/margins"], beta * gap.detach())
    torch.testing.assert_close(metrics["loss/sft"], -now[0].detach() / 2)
    assert metrics["rewards/accuracies"] == float(gap > 0)


def test_opposite_scores_have_opposite_gradients() -> None:
    policy = TablePolicy()
    rule = attached(policy)
    rollouts = [prepared(rule, policy, rollout(scores)) for scores in (SCORES, -SCORES)]
    first, second = (compute_loss(rule, policy, batch)[0] for batch in rollouts)
    assert gradient(first, policy).abs().max() > 0
    torch.testing.assert_close(gradient(first, policy), -gradient(second, policy))


def test_all_pairs_of_a_group_weigh_as_much_as_one() -> None:
    policy = TablePolicy()
    rule = attached(policy, beta=0.4, pairs="all")
    batch = prepared(rule, policy, rollout())
    before = log_likelihoods(policy).detach()
    change(policy)
    gains = log_likelihoods(policy) - before
    gaps = torch.stack([gains[chosen] - gains[rejected] for chosen, rejected in ((0, 1), (0, 2), (2, 1))])
    torch.testing.assert_close(compute_loss(rule, policy, batch)[0], -(0.4 * gaps).sigmoid().log().mean())


def test_standardized_rewards_decide_the_pairs() -> None:
    policy = TablePolicy()
    rule = attached(policy)
    by_score = compute_loss(rule, policy, prepared(rule, policy, rollout()))[0]
    normalized = rollout(torch.ones(6), normalized_rewards=SCORES)
    by_normalized = compute_loss(rule, policy, prepared(rule, policy, normalized))[0]
    torch.testing.assert_close(gradient(by_normalized, policy), gradient(by_score, policy))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"beta": 0.0}, "beta 0.0; it must be above 0"),
        ({"beta": float("nan")}, "beta nan"),
        ({"label_smoothing": 0.5}, "label_smoothing 0.5; it must be 0 or more, and below 0.5"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1"),
        ({"label_smoothing": 0.1, "variant": "ipo"}, "is for variant sigmoid"),
        ({"margin": -1.0}, "margin -1.0"),
        ({"sft_weight": -1.0}, "sft_weight -1.0"),
        ({"num_masks": 0}, "num_masks 0"),
    ],
)
def test_invalid_settings_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DPO(**setting)


def test_a_group_of_one_has_no_pair() -> None:
    with pytest.raises(UserError, match="dpo pairs the images of a group, and group_size is 1; take 2 or more"):
        DPO().check(TablePolicy(), 1, ImageSampling())
    DPO().check(TablePolicy(), 2, ImageSampling())
