import torch

from unirl.functional.advantages import group_mean


def test_group_mean_is_prompt_major_and_constant_within_groups() -> None:
    values = torch.arange(12.0)
    means = group_mean(values, 4)
    assert means.tolist() == [1.5] * 4 + [5.5] * 4 + [9.5] * 4
    torch.testing.assert_close(group_mean(means, 4), means)
    torch.testing.assert_close(group_mean(values, 1), values)
