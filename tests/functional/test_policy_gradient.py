import math
from itertools import product

import pytest
import torch

from unirl.functional import clip_ratio, clipped_objective, decision_weights, k3


def test_ratios_are_clipped_only_in_the_direction_of_the_advantage() -> None:
    for ratio, advantage in product((0.5, 0.9, 1.0, 1.1, 2.0), (-2.0, 2.0)):
        log_ratio = torch.tensor([[math.log(ratio)]], requires_grad=True)
        objective = clipped_objective(log_ratio, torch.tensor([advantage]), 0.2, 0.4)
        clipped = min(max(ratio, 0.8), 1.4)
        assert objective.item() == pytest.approx(min(ratio * advantage, clipped * advantage), rel=1e-5)
        (gradient,) = torch.autograd.grad(objective.sum(), log_ratio)
        has_gradient = ratio < 1.4 if advantage > 0 else ratio > 0.8
        assert gradient.item() == pytest.approx(ratio * advantage if has_gradient else 0.0, rel=1e-5)


def test_clip_ratio_is_a_weighted_share() -> None:
    log_ratio = torch.tensor([[0.5, 1.0, 1.3, 2.0]]).log()
    assert clip_ratio(log_ratio, torch.tensor([[1.0, 1.0, 1.0, 2.0]]), 0.2, 0.4).item() == pytest.approx(3 / 5)
    assert clip_ratio(log_ratio, torch.zeros(1, 4), 0.2, 0.4).item() == 0


def test_k3_estimates_the_divergence() -> None:
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    divergence = (policy * (policy / reference).log()).sum()
    torch.testing.assert_close((policy * k3(policy.log(), reference.log())).sum(), divergence)
    assert (k3(torch.randn(100), torch.randn(100)) >= 0).all()
    assert k3(policy, policy).abs().max() == 0


def test_decision_weights() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    assert decision_weights(mask, "sample").tolist() == [[0.25] * 4, [0.5, 0.5, 0, 0], [0, 0, 0, 0]]
    assert decision_weights(mask, "token").tolist() == [[0.5] * 4, [0.5, 0.5, 0, 0], [0, 0, 0, 0]]
    subset = decision_weights(mask[:1], "token", mean_length=torch.tensor(2.0))
    assert subset.tolist() == [[0.5] * 4]
