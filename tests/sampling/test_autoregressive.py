"""Codes one after another: chances, log-probabilities, guidance, and what the loop hands from step to step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unirl.sampling.autoregressive import guide, sample_codes, sample_inverse_cdf, sample_uniforms

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_code_frequencies_are_their_probabilities() -> None:
    probable = torch.tensor([0.1, 0.0, 0.6, 0.25, 0.05])
    codes, log_probs = sample_inverse_cdf(probable.log().expand(20000, -1), 1.0, torch.rand(20000, generator=seeded()))
    seen = codes.bincount(minlength=5) / 20000
    assert seen[1] == 0
    assert (seen - probable).abs().max() < 4 * (0.25 / 20000) ** 0.5
    torch.testing.assert_close(log_probs, probable.log()[codes])


@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(0.1, 5.0))
def test_every_uniform_gives_a_possible_code(seed: int, count: int, temperature: float) -> None:
    logits = 20 * torch.randn(8, count, generator=seeded(seed))
    logits[:, ::3] = -torch.inf
    logits[:, -1] = 0.0
    uniforms = torch.rand(8, generator=seeded(seed))
    uniforms[:2] = torch.tensor([0.0, 1 - 2**-24])
    codes, log_probs = sample_inverse_cdf(logits, temperature, uniforms)
    assert codes.min() >= 0
    assert codes.max() < count
    assert log_probs.isfinite().all()
    torch.testing.assert_close(log_probs, (logits / temperature).log_softmax(-1).gather(1, codes[:, None])[:, 0])


def test_temperature_zero_takes_the_most_likely() -> None:
    logits = torch.randn(6, 9, generator=seeded())
    codes, log_probs = sample_inverse_cdf(logits, 0.0, torch.rand(6))
    assert torch.equal(codes, logits.argmax(-1))
    torch.testing.assert_close(log_probs, logits.log_softmax(-1).max(-1).values)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 4.0])
def test_guidance_is_the_usual_formula(guidance: float) -> None:
    cond, uncond = torch.randn(2, 3, 7, generator=seeded())
    expected = uncond + (guidance + 1) * (cond - uncond)
    torch.testing.assert_close(guide(cond, uncond, guidance), expected)


def test_each_step_gets_the_embeddings_of_the_last() -> None:
    given: list[tuple[list[float], list[float]]] = []

    def step(embeds: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        given.append((embeds[:, 0].tolist(), uniforms.tolist()))
        return embeds + 1, embeds[:, 0].long() * 10, -embeds[:, 0]

    uniforms = torch.arange(6.0).view(3, 2) / 6
    sample = sample_codes(step, torch.tensor([[1.0], [5.0]]), 3, uniforms)
    assert [embeds for embeds, _ in given] == [[1, 5], [2, 6], [3, 7]]
    assert torch.equal(torch.tensor([c for _, c in given]), uniforms)
    assert sample.codes.tolist() == [[10, 20, 30], [50, 60, 70]]
    assert sample.log_probs.tolist() == [[-1, -2, -3], [-5, -6, -7]]


def test_uniforms_come_from_the_generator_alone() -> None:
    one, same, other = (sample_uniforms(4, 3, seeded(s), CPU) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (4, 3)
