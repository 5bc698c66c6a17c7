"""DPO against sums done by hand, on a policy that is a table of logits."""

import math
from typing import Any

import pytest
import torch

from unirl.errors import UserError
from unirl.types import ImageSampling
from unirl_dpo.dpo import DPO

from .tables import SCORES, Table, attached, learn, likelihoods, prepared, push, rollout, slope


def test_an_untrained_policy_pays_log_2_and_is_pulled_by_half_beta() -> None:
    policy = Table()
    rule = attached(policy, beta=0.4)
    loss, logs = learn(rule, policy, prepared(rule, policy, rollout()))
    assert loss.item() == pytest.approx(math.log(2))
    # Only the first group has a pair, (0, 1); codes (0, 1) against (1, 1). The softmax itself cancels out.
    expected = torch.zeros(2, 3)
    expected[0] = -0.4 * 0.5 * torch.tensor([1.0, -1.0, 0.0])
    torch.testing.assert_close(slope(loss, policy), expected)
    assert logs["unpaired_groups"] == 0.5
    assert logs["pair_margin"] == logs["pair_accuracy"] == 0


@pytest.mark.parametrize("options", [{}, {"variant": "ipo"}, {"label_smoothing": 0.2}, {"sft_weight": 0.3}])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_trained_policy_by_hand(options: dict[str, Any], reduction: str) -> None:
    policy, beta = Table(), 0.4
    rule = attached(policy, beta=beta, reduction=reduction, **options)
    batch, before = prepared(rule, policy, rollout()), likelihoods(policy).detach()
    push(policy)
    now = likelihoods(policy)
    gap = ((now - before)[0] - (now - before)[1]) / (1 if reduction == "sum" else 2)
    smoothing = options.get("label_smoothing", 0.0)
    expected = -(1 - smoothing) * (beta * gap).sigmoid().log() - smoothing * (-beta * gap).sigmoid().log()
    if "variant" in options:
        expected = (gap - 1 / (2 * beta)) ** 2
    expected = expected - options.get("sft_weight", 0.0) * now[0] / 2
    loss, logs = learn(rule, policy, batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(slope(loss, policy), slope(expected, policy))
    torch.testing.assert_close(logs["pair_margin"], beta * gap.detach())
    torch.testing.assert_close(logs["winner_loss"], -now[0].detach() / 2)
    assert logs["pair_accuracy"] == float(gap > 0)


def test_opposite_scores_turn_the_pull_around() -> None:
    policy = Table()
    rule = attached(policy)
    there, back = (learn(rule, policy, prepared(rule, policy, rollout(scores)))[0] for scores in (SCORES, -SCORES))
    assert slope(there, policy).abs().max() > 0
    torch.testing.assert_close(slope(there, policy), -slope(back, policy))


def test_all_pairs_of_a_group_weigh_as_much_as_one() -> None:
    policy = Table()
    rule = attached(policy, beta=0.4, pairs="all")
    batch = prepared(rule, policy, rollout())
    before = likelihoods(policy).detach()
    push(policy)
    gains = likelihoods(policy) - before
    gaps = torch.stack([gains[better] - gains[worse] for better, worse in ((0, 1), (0, 2), (2, 1))])
    torch.testing.assert_close(learn(rule, policy, batch)[0], -(0.4 * gaps).sigmoid().log().mean())


def test_rewards_in_standard_deviations_are_what_is_compared() -> None:
    policy = Table()
    rule = attached(policy)
    by_score = learn(rule, policy, prepared(rule, policy, rollout()))[0]
    contrasted = rollout(torch.ones(6), normalized_rewards=SCORES)
    by_contrast = learn(rule, policy, prepared(rule, policy, contrasted))[0]
    torch.testing.assert_close(slope(by_contrast, policy), slope(by_score, policy))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"beta": 0.0}, "beta 0.0; it must be above 0"),
        ({"beta": float("nan")}, "beta nan"),
        ({"label_smoothing": 0.5}, "label_smoothing 0.5; it must be from 0 to below 0.5"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1"),
        ({"label_smoothing": 0.1, "variant": "ipo"}, "belongs to variant sigmoid"),
        ({"margin": -1.0}, "margin -1.0"),
        ({"sft_weight": -1.0}, "sft_weight -1.0"),
        ({"views": 0}, "views 0"),
    ],
)
def test_settings_that_cannot_train(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        DPO(**setting)


def test_a_group_of_one_has_no_pair() -> None:
    with pytest.raises(UserError, match="dpo pairs the drawings of a group, and group_size is 1; take 2 or more"):
        DPO().check(Table(), 1, ImageSampling())
    DPO().check(Table(), 2, ImageSampling())
