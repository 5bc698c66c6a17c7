import torch
from torch import nn

from unirl.functional import geometric_mean, masked_mean, zero_loss


def test_masked_mean_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0], [9.0, -4.0]])
    assert masked_mean(values, torch.tensor([[True, True], [False, True]])).item() == 0.0
    assert masked_mean(values, torch.tensor([[False, False], [True, False]])).item() == 9.0
    torch.testing.assert_close(masked_mean(values, torch.ones(2, 2, dtype=torch.bool)), values.mean())


def test_masked_mean_of_an_empty_mask_is_zero_with_gradient_zero() -> None:
    values = torch.ones(3, requires_grad=True)
    mean = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0, 0]


def test_gradient_of_masked_mean_is_shared_by_masked_values() -> None:
    for count in (1, 2, 3):
        values = torch.zeros(4, requires_grad=True)
        mask = torch.arange(4) < count
        masked_mean(values, mask).backward()
        torch.testing.assert_close(values.grad, mask / count)


def test_geometric_mean_does_not_depend_on_length() -> None:
    log_probs = torch.full((2, 5), 0.3).log()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]).bool()
    torch.testing.assert_close(geometric_mean(log_probs, mask), torch.tensor([0.3, 0.3]))


def test_zero_loss_reaches_all_trainable_parameters_and_no_others() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].requires_grad_(False)
    zero_loss(model).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model[0].parameters())
    assert all(parameter.grad is None for parameter in model[1].parameters())
