import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unirl.sampling import masked
from unirl.sampling.masked import MaskedSample, choose_steps, cosine_schedule, sample_masked
from unirl.types import ImageSampling

CPU = torch.device("cpu")
Logits = Callable[[Tensor, Tensor], Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(logits: Logits, shape: tuple[int, int], seed: int = 0, **sampling: float) -> MaskedSample:
    return sample_masked(logits, torch.zeros(shape, dtype=torch.long), ImageSampling(**sampling), seeded(seed))


def contextual(codes: Tensor, known: Tensor) -> Tensor:
    """Logits over 5 codes that depend on the place and on everything known."""
    table = torch.randn(16, 5, generator=seeded(7))
    context = ((codes + 1) * known).sum(1)[:, None, None] * torch.linspace(-0.2, 0.2, 5)
    return table[: codes.shape[1]] + context


@pytest.mark.parametrize(("length", "steps"), [(256, 16), (1024, 50)])
def test_schedule_is_a_cosine(length: int, steps: int) -> None:
    cosine = [math.floor(length * math.cos(math.pi / 2 * k / steps)) for k in range(1, steps)]
    assert cosine_schedule(length, steps) == [*cosine, 0]


@pytest.mark.parametrize(
    ("length", "steps", "plan"),
    [
        (16, 4, [14, 11, 6, 0]),
        (16, 1, [0]),
        (4, 8, [3, 2, 1, 1, 1, 1, 1, 0]),  # at least one code a step, and one left for the last
        (1, 3, [1, 1, 0]),
    ],
)
def test_schedule_of_few_codes(length: int, steps: int, plan: list[int]) -> None:
    assert cosine_schedule(length, steps) == plan


@given(st.integers(1, 300), st.integers(1, 60))
def test_schedule_falls_to_nothing(length: int, steps: int) -> None:
    plan = [length, *cosine_schedule(length, steps)]
    assert len(plan) == steps + 1
    assert plan[-1] == 0
    assert all(a > b or a == b == 1 for a, b in itertools.pairwise(plan))


@pytest.mark.parametrize("steps", [1, 4, 16, 20])
def test_every_code_is_fixed_once_as_planned(steps: int) -> None:
    sampled = sample(contextual, (3, 16), steps=steps)
    left = torch.tensor([16, *cosine_schedule(16, steps)])
    for row in sampled.steps:
        assert torch.equal(row.bincount(minlength=steps + 1)[1:], left[:-1] - left[1:])


def test_known_codes_stay_known() -> None:
    calls: list[tuple[Tensor, Tensor]] = []

    def recorded(codes: Tensor, known: Tensor) -> Tensor:
        calls.append((codes.clone(), known.clone()))
        return contextual(codes, known)

    sampled = sample(recorded, (2, 16), steps=6, confidence_noise=4.0)
    assert not calls[0][1].any()
    assert [known.sum(1).tolist() for _, known in calls[1:]] == [[16 - n] * 2 for n in cosine_schedule(16, 6)[:-1]]
    for step, (codes, known) in enumerate(calls, start=1):
        assert torch.equal(known, sampled.steps < step)
        assert torch.equal(codes[known], sampled.codes[known])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_log_probs_are_those_of_the_step_that_fixed_the_code(temperature: float) -> None:
    sampled = sample(contextual, (4, 16), steps=5, temperature=temperature)
    for step in range(1, 6):
        logits = contextual(sampled.codes, sampled.steps < step) / temperature
        expected = torch.log(torch.softmax(logits, -1)).gather(-1, sampled.codes[..., None]).squeeze(-1)
        here = sampled.steps == step
        torch.testing.assert_close(sampled.log_probs[here], expected[here], atol=1e-5, rtol=0)


def test_low_temperature_takes_the_most_likely() -> None:
    table = torch.randn(16, 5, generator=seeded(3))
    sampled = sample(lambda codes, known: table.expand(2, -1, -1), (2, 16), steps=4, temperature=1e-4)
    assert torch.equal(sampled.codes, table.argmax(-1).expand(2, -1))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_frequencies_are_the_softmax(steps: int, temperature: float) -> None:
    # Whatever the order, codes that do not look at each other must keep their distribution, so without the confidence
    # deciding (equal probabilities aside) one place a row is sampled.
    logits, count = torch.tensor([1.0, 0.0, -1.0, 0.5]), 40_000
    sampled = sample(lambda codes, known: logits.expand(count, 1, -1), (count, 1), steps=steps, temperature=temperature)
    share = sampled.codes.flatten().bincount(minlength=4) / count
    torch.testing.assert_close(share, (logits / temperature).softmax(0), atol=0.012, rtol=0)


def test_without_noise_the_most_confident_come_first() -> None:
    # Place i is uniform over its first i + 1 codes: whatever it samples has the log-probability -log(i + 1).
    logits = torch.zeros(16, 16).masked_fill(torch.ones(16, 16, dtype=torch.bool).triu(1), -torch.inf)
    sampled = sample(lambda codes, known: logits.expand(2, -1, -1), (2, 16), steps=6, confidence_noise=0.0)
    assert torch.equal(sampled.steps, sampled.steps.sort(dim=1).values)
    assert (sampled.codes <= torch.arange(16)).all()


def test_confidence_noise_shrinks_cumulatively(monkeypatch: pytest.MonkeyPatch) -> None:
    # Log-probabilities 0, -log 2, 0 and noises 0, 2.5, 10, in three steps that fix one code each. Factors 2/3 and then
    # 2/3 x 1/3: in step 2 the second place has -0.69 + 0.56 < 0 (with the factor 1/3 it would have 0.14 > 0).
    monkeypatch.setattr(masked, "gumbel", lambda like, generator: torch.tensor([[0.0, 2.5, 10.0]]))
    logits = torch.tensor([[0.0, -torch.inf], [0.0, 0.0], [0.0, -torch.inf]])
    sampled = sample(lambda codes, known: logits[None], (1, 3), steps=3)
    assert sampled.steps.tolist() == [[2, 3, 1]]


def test_the_generator_is_the_only_randomness() -> None:
    before = torch.get_rng_state()
    first, repeated, other = (sample(contextual, (2, 16), seed, steps=4) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.codes, repeated.codes)
    assert torch.equal(first.steps, repeated.steps)
    assert not torch.equal(first.codes, other.codes)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_chosen_steps(length: int, total: int, scored: int, seed: int) -> None:
    chosen, left = choose_steps(length, total, scored, seeded(seed), CPU), [length, *cosine_schedule(length, total)]
    fixing = [step for step in range(1, total + 1) if left[step] < left[step - 1]]
    assert len(chosen) == min(scored, len(fixing))
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert set(chosen.tolist()) <= set(fixing)
    assert choose_steps(length, total, None, None, CPU).tolist() == fixing
    assert len(fixing) == min(length, total)


@pytest.mark.parametrize("scored", [1, 2, 3])
def test_a_mean_over_the_codes_of_chosen_steps_is_in_expectation_the_mean_over_all(scored: int) -> None:
    left = [16, *cosine_schedule(16, 4)]
    sizes = torch.tensor(left[:-1]) - torch.tensor(left[1:])  # 2, 3, 5 and 6 codes
    generator, samples, weights = seeded(), 4000, torch.zeros(5)
    for _ in range(samples):
        chosen = choose_steps(16, 4, scored, generator, CPU)
        weights[chosen] += 1 / sizes[chosen - 1].sum()  # what each of their codes weighs in the mean
    assert (weights[1:] / samples - 1 / 16).abs().max() < 0.004
