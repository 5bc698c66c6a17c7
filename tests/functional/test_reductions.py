import pytest
import torch

from unirl.functional.reductions import masked_mean


def test_mean_of_what_counts() -> None:
    values = torch.tensor([[1.0, 3.0], [9.0, -4.0]])
    assert masked_mean(values, torch.tensor([[True, True], [False, True]])).item() == 0.0
    assert masked_mean(values, torch.tensor([[False, False], [True, False]])).item() == 9.0
    torch.testing.assert_close(masked_mean(values, torch.ones(2, 2, dtype=torch.bool)), values.mean())


def test_nothing_counts() -> None:
    values = torch.ones(3, requires_grad=True)
    mean = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("counted", [1, 2, 3])
def test_gradient_is_shared_by_what_counts(counted: int) -> None:
    values = torch.zeros(4, requires_grad=True)
    mask = torch.arange(4) < counted
    masked_mean(values, mask).backward()
    torch.testing.assert_close(values.grad, mask / counted)
