import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from unirl.functional.seeding import derive_seed, generator_for

PART = st.one_of(st.integers(), st.text(max_size=5))


def test_seeds_never_change() -> None:
    """A resumed run draws what the first one would have drawn, on another machine and next year."""
    assert derive_seed(0, 1, 0, "images") == 8749610498466968800


@given(st.lists(PART, max_size=4))
def test_seeds_fit_a_generator(parts: list[int | str]) -> None:
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    assert generator_for("cpu", *parts).initial_seed() == seed


@given(st.lists(PART, max_size=4), st.lists(PART, max_size=4))
def test_different_names_have_different_seeds(one: list[int | str], other: list[int | str]) -> None:
    assert (derive_seed(*one) == derive_seed(*other)) is (one == other)


def test_parts_do_not_run_together() -> None:
    names = [(1, 2), (12,), ("1", 2), ("1", "2"), ("12",), (2, 1), ("1, 2",), ()]
    assert len({derive_seed(*name) for name in names}) == len(names)


def test_neighbouring_draws_are_unlike() -> None:
    places = itertools.product(range(5), range(4), ("images", "answers"))
    draws = torch.stack([torch.randn(1000, generator=generator_for("cpu", 0, *place)) for place in places])
    assert (torch.corrcoef(draws) - torch.eye(len(draws))).abs().max() < 0.2


def test_making_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator_for(torch.device("cpu"), 0))
    assert torch.equal(torch.get_rng_state(), before)
