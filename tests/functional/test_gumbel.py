import math

import pytest
import torch
from torch import Tensor

from unirl.functional import conditional_gumbel, gumbel, straight_through


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sampled_codes(logits: Tensor, count: int) -> Tensor:
    return torch.multinomial(logits.softmax(-1), count, replacement=True, generator=seeded(1))


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_the_sampled_code_has_the_largest_perturbed_logit(scale: float) -> None:
    logits = scale * torch.randn(20_000, 9, generator=seeded())
    codes = torch.randint(9, (20_000,), generator=seeded(2))  # unlikely codes, too
    noise = conditional_gumbel(logits, codes, seeded(3))
    assert torch.isfinite(noise).all()
    assert torch.equal((logits + noise).argmax(-1), codes)


def test_the_noise_over_sampled_codes_is_standard_gumbel() -> None:
    logits, count = torch.tensor([2.0, 0.0, -1.0, 0.5, 1.0]), 200_000
    noise = conditional_gumbel(logits.expand(count, -1), sampled_codes(logits, count), seeded(4))
    assert (noise.mean(0) - 0.5772).abs().max() < 0.02
    assert (noise.var(0) - math.pi**2 / 6).abs().max() < 0.05
    for point in (-1.0, 0.0, 1.0, 3.0):  # the distribution function, not only its moments
        assert ((noise < point).float().mean(0) - math.exp(-math.exp(-point))).abs().max() < 0.006
    dependence = torch.corrcoef(noise.T) - torch.eye(5)
    assert dependence.abs().max() < 0.012


def test_unconditional_noise_is_standard_gumbel() -> None:
    noise = gumbel(torch.zeros(200_000), seeded())
    assert abs(noise.mean().item() - 0.5772) < 0.02
    assert abs(noise.var().item() - math.pi**2 / 6) < 0.05
    assert gumbel(torch.zeros(3, 2, dtype=torch.bfloat16), seeded()).dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_straight_through_is_one_hot_forward_and_softmax_backward(temperature: float) -> None:
    logits = torch.randn(4, 6, 7, generator=seeded(), requires_grad=True)
    codes = torch.randint(7, (4, 6), generator=seeded(1))
    weight = torch.randn(4, 6, 7, generator=seeded(2))
    sample = straight_through(logits, codes, temperature, seeded(3))
    assert torch.equal(sample, torch.nn.functional.one_hot(codes, 7).float())
    noise = conditional_gumbel(logits.detach(), codes, seeded(3))
    soft = ((logits + noise) / temperature).softmax(-1)
    (gradient,) = torch.autograd.grad((sample * weight).sum(), logits)
    (expected,) = torch.autograd.grad((soft * weight).sum(), logits)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def test_the_generator_is_the_only_randomness() -> None:
    state = torch.get_rng_state()
    logits, codes = torch.zeros(5, 4), torch.tensor([0, 1, 2, 3, 0])
    first, second, other_seed = (conditional_gumbel(logits, codes, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other_seed)
