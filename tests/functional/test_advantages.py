import math

import torch

from unirl.functional import group_advantages, group_mean, group_std, zero_variance_groups


def test_group_mean_is_prompt_major_and_constant_within_groups() -> None:
    values = torch.arange(12.0)
    means = group_mean(values, 4)
    assert means.tolist() == [1.5] * 4 + [5.5] * 4 + [9.5] * 4
    torch.testing.assert_close(group_mean(means, 4), means)
    torch.testing.assert_close(group_mean(values, 1), values)


def test_group_std_of_one_sample_is_zero() -> None:
    assert group_std(torch.tensor([1.0, 3.0]), 1).tolist() == [0.0, 0.0]


def test_zero_variance_ignores_samples_of_weight_zero() -> None:
    scores = torch.tensor([0.1, 0.1, 0.7, 0.7, 0.1, 0.1])
    weights = [1, 1, 1], [1, 0.5, 0], [0, 1, 0], [0, 0, 0]
    for first_group, zero_variance in zip(weights, (False, True, True, True), strict=True):
        both_groups = torch.tensor([*first_group, 0.0, 1.0, 1.0])
        assert zero_variance_groups(scores, 3, both_groups).tolist() == [zero_variance, True]
    unweighted = zero_variance_groups(scores, 3).tolist()
    assert zero_variance_groups(scores, 3, torch.ones(6)).tolist() == unweighted == [False, False]


def test_advantages_by_hand() -> None:
    scores = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    assert group_advantages(scores, 3, scale_rewards=False).tolist() == [-2.0, -1.0, 3.0, 0, 0, 0]
    deviation = math.sqrt((4 + 1 + 9) / 2)
    expected = torch.tensor([-2.0, -1.0, 3.0, 0, 0, 0]) / (deviation + 0.5)
    torch.testing.assert_close(group_advantages(scores, 3, epsilon=0.5), expected)


def test_samples_of_weight_zero_change_neither_mean_nor_standard_deviation() -> None:
    scores, weights = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    advantages = group_advantages(scores, 4, scale_rewards=False, weights=weights)
    assert (advantages * weights).tolist() == [0.5, 0, 0, -0.5]
    two_samples = group_advantages(torch.tensor([1.0, 0.0]), 2)
    torch.testing.assert_close((group_advantages(scores, 4, weights=weights) * weights)[[0, 3]], two_samples)


def test_groups_of_equal_scores_have_advantages_of_exactly_zero() -> None:
    """The computed mean of equal floats may differ from them, and a small epsilon would blow the difference up."""
    scores = torch.full((3000,), 0.1)
    assert group_advantages(scores, 3, epsilon=0.0).abs().max() == 0
    assert group_advantages(scores, 1000, epsilon=1e-12).abs().max() == 0
