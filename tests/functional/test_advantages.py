import torch

from unirl.functional.advantages import group_mean, zero_variance_groups


def test_group_mean_is_prompt_major_and_constant_within_groups() -> None:
    values = torch.arange(12.0)
    means = group_mean(values, 4)
    assert means.tolist() == [1.5] * 4 + [5.5] * 4 + [9.5] * 4
    torch.testing.assert_close(group_mean(means, 4), means)
    torch.testing.assert_close(group_mean(values, 1), values)


def test_flat_is_what_would_be_flat_without_the_dropped() -> None:
    scores = torch.tensor([0.1, 0.1, 0.7, 0.7, 0.1, 0.1])
    weights = [1, 1, 1], [1, 0.5, 0], [0, 1, 0], [0, 0, 0]
    for first, flat in zip(weights, (False, True, True, True), strict=True):
        counted = torch.tensor([*first, 0.0, 1.0, 1.0])
        assert zero_variance_groups(scores, 3, counted).tolist() == [flat, True]
    assert zero_variance_groups(scores, 3, torch.ones(6)).tolist() == zero_variance_groups(scores, 3).tolist() == [False, False]
