import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from unirl.functional import RowGenerator, derive_seed, draw_rows, generator_for

PART = st.one_of(st.integers(), st.text(max_size=5))


def test_seeds_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert derive_seed(0, 1, 0, "images") == 8749610498466968800


@given(st.lists(PART, max_size=4))
def test_seeds_fit_a_generator(parts: list[int | str]) -> None:
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    assert generator_for("cpu", *parts).initial_seed() == seed


@given(st.lists(PART, max_size=4), st.lists(PART, max_size=4))
def test_different_parts_have_different_seeds(first: list[int | str], second: list[int | str]) -> None:
    assert (derive_seed(*first) == derive_seed(*second)) is (first == second)


def test_parts_are_not_concatenated() -> None:
    names = [(1, 2), (12,), ("1", 2), ("1", "2"), ("12",), (2, 1), ("1, 2",), ()]
    assert len({derive_seed(*name) for name in names}) == len(names)


def test_random_numbers_of_similar_parts_are_uncorrelated() -> None:
    names = itertools.product(range(5), range(4), ("images", "answers"))
    samples = torch.stack([torch.randn(1000, generator=generator_for("cpu", 0, *name)) for name in names])
    assert (torch.corrcoef(samples) - torch.eye(len(samples))).abs().max() < 0.2


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    torch.rand(3, generator=generator_for(torch.device("cpu"), 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_get_the_numbers_that_they_get_in_the_whole_batch() -> None:
    def draw(rows: int, generator: torch.Generator) -> torch.Tensor:
        def both(n: int) -> torch.Tensor:
            return torch.rand(n, 3, generator=generator) + torch.randint(9, (n, 1), generator=generator)

        return draw_rows(both, rows, generator, per_image=2)

    generator = generator_for("cpu", 0)
    state = generator.get_state()
    part = RowGenerator(generator, torch.tensor([3, 1]), total=4)
    assert torch.equal(generator.get_state(), state)
    whole = draw(8, generator).view(2, 4, 3)
    assert torch.equal(draw(4, part).view(2, 2, 3), whole[:, [3, 1]])
    padded = draw(6, RowGenerator(generator_for("cpu", 0), torch.tensor([3, 1]), total=4)).view(2, 3, 3)
    assert torch.equal(padded[:, :2], whole[:, [3, 1]])  # a row more, as FSDP2 appends it
