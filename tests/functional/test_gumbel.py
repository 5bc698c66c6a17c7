import math

import pytest
import torch
from torch import Tensor

from unirl.functional.gumbel import conditional_gumbel, gumbel, straight_through


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawings(logits: Tensor, count: int) -> Tensor:
    return torch.multinomial(logits.softmax(-1), count, replacement=True, generator=seeded(1))


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_the_drawn_code_is_always_the_largest(scale: float) -> None:
    logits = scale * torch.randn(20_000, 9, generator=seeded())
    drawn = torch.randint(9, (20_000,), generator=seeded(2))  # unlikely ones too
    noise = conditional_gumbel(logits, drawn, seeded(3))
    assert torch.isfinite(noise).all()
    assert torch.equal((logits + noise).argmax(-1), drawn)


def test_over_drawn_codes_the_noise_is_standard_gumbel() -> None:
    logits, count = torch.tensor([2.0, 0.0, -1.0, 0.5, 1.0]), 200_000
    noise = conditional_gumbel(logits.expand(count, -1), drawings(logits, count), seeded(4))
    assert (noise.mean(0) - 0.5772).abs().max() < 0.02
    assert (noise.var(0) - math.pi**2 / 6).abs().max() < 0.05
    for point in (-1.0, 0.0, 1.0, 3.0):  # the whole distribution, not its moments alone
        assert ((noise < point).float().mean(0) - math.exp(-math.exp(-point))).abs().max() < 0.006
    dependence = torch.corrcoef(noise.T) - torch.eye(5)
    assert dependence.abs().max() < 0.012


def test_free_noise_is_standard_gumbel() -> None:
    noise = gumbel(torch.zeros(200_000), seeded())
    assert abs(noise.mean().item() - 0.5772) < 0.02
    assert abs(noise.var().item() - math.pi**2 / 6) < 0.05
    assert gumbel(torch.zeros(3, 2, dtype=torch.bfloat16), seeded()).dtype == torch.bfloat16


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_straight_through_is_one_hot_forward_and_softmax_backward(temperature: float) -> None:
    logits = torch.randn(4, 6, 7, generator=seeded(), requires_grad=True)
    drawn = torch.randint(7, (4, 6), generator=seeded(1))
    weight = torch.randn(4, 6, 7, generator=seeded(2))
    sample = straight_through(logits, drawn, temperature, seeded(3))
    assert torch.equal(sample, torch.nn.functional.one_hot(drawn, 7).float())
    noise = conditional_gumbel(logits.detach(), drawn, seeded(3))
    soft = ((logits + noise) / temperature).softmax(-1)
    (got,) = torch.autograd.grad((sample * weight).sum(), logits)
    (expected,) = torch.autograd.grad((soft * weight).sum(), logits)
    torch.testing.assert_close(got, expected)
    assert got.abs().max() > 0


def test_the_generator_is_the_only_randomness() -> None:
    before = torch.get_rng_state()
    logits, drawn = torch.zeros(5, 4), torch.tensor([0, 1, 2, 3, 0])
    first, again, other = (conditional_gumbel(logits, drawn, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
