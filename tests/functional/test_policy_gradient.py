import math

import pytest
import torch

from unirl.functional.advantages import group_advantages
from unirl.functional.policy_gradient import clipped_objective, decision_weights, k3


def test_advantages_by_hand() -> None:
    scores = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    assert group_advantages(scores, 3, normalize=False).tolist() == [-2.0, -1.0, 3.0, 0, 0, 0]
    deviation = math.sqrt((4 + 1 + 9) / 2)
    expected = torch.tensor([-2.0, -1.0, 3.0, 0, 0, 0]) / (deviation + 0.5)
    torch.testing.assert_close(group_advantages(scores, 3, epsilon=0.5), expected)


def test_samples_that_do_not_count_are_no_baseline_either() -> None:
    scores, weights = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    got = group_advantages(scores, 4, normalize=False, weights=weights)
    assert (got * weights).tolist() == [0.5, 0, 0, -0.5]
    alone = group_advantages(torch.tensor([1.0, 0.0]), 2)  # nor do they count in the deviation
    torch.testing.assert_close((group_advantages(scores, 4, weights=weights) * weights)[[0, 3]], alone)


def test_groups_that_scored_alike_have_no_advantage_at_all() -> None:
    """0.1 + 0.1 + 0.1 is not 0.3 in floating point; divided by epsilon the rest would be no rounding error any more."""
    scores = torch.full((3000,), 0.1)
    assert group_advantages(scores, 3, epsilon=0.0).abs().max() == 0
    assert group_advantages(scores, 1000, epsilon=1e-12).abs().max() == 0


@pytest.mark.parametrize("gain", [-2.0, 2.0])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_clipping_only_ever_takes_away(ratio: float, gain: float) -> None:
    """A ratio is clipped where it has moved as the advantage wanted, never where it has moved against it."""
    log_ratio = torch.tensor([[math.log(ratio)]], requires_grad=True)
    objective = clipped_objective(log_ratio, torch.tensor([gain]), 0.2, 0.4)
    clipped = min(max(ratio, 0.8), 1.4)
    assert objective.item() == pytest.approx(min(ratio * gain, clipped * gain), rel=1e-5)
    (slope,) = torch.autograd.grad(objective.sum(), log_ratio)
    free = ratio < 1.4 if gain > 0 else ratio > 0.8
    assert slope.item() == pytest.approx(ratio * gain if free else 0.0, rel=1e-5)


def test_k3_estimates_the_divergence() -> None:
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    exact = (policy * (policy / reference).log()).sum()
    torch.testing.assert_close((policy * k3(policy.log(), reference.log())).sum(), exact)  # its mean over the policy
    assert (k3(torch.randn(100), torch.randn(100)) >= 0).all()
    assert k3(policy, policy).abs().max() == 0


def test_weights_of_decisions() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    assert decision_weights(mask, "sample").tolist() == [[0.25] * 4, [0.5, 0.5, 0, 0], [0, 0, 0, 0]]
    assert decision_weights(mask, "token").tolist() == [[0.5] * 4, [0.5, 0.5, 0, 0], [0, 0, 0, 0]]
    part = decision_weights(mask[:1], "token", typical=torch.tensor(2.0))  # as if the others were there
    assert part.tolist() == [[0.5] * 4]
