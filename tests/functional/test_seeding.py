import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unirl.functional import PerImageGenerator, RowGenerator, derive_seed, draw_rows, generator_for, multinomial

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
        def both(n: int, source: torch.Generator | None) -> torch.Tensor:
            return torch.rand(n, 3, generator=source) + torch.randint(9, (n, 1), generator=source)

        return draw_rows(both, rows, generator, per_image=2)

    generator = generator_for("cpu", 0)
    state = generator.get_state()
    part = RowGenerator(generator, torch.tensor([3, 1]), total=4)
    assert torch.equal(generator.get_state(), state)
    whole = draw(8, generator).view(2, 4, 3)
    assert torch.equal(draw(4, part).view(2, 2, 3), whole[:, [3, 1]])
    padded = draw(6, RowGenerator(generator_for("cpu", 0), torch.tensor([3, 1]), total=4)).view(2, 3, 3)
    assert torch.equal(padded[:, :2], whole[:, [3, 1]])  # a row more, as FSDP2 appends it


def own(*images: int) -> PerImageGenerator:
    return PerImageGenerator(generator_for("cpu", image) for image in images)


def test_an_image_draws_from_its_own_generator() -> None:
    def draw(rows: int, generator: torch.Generator | None) -> torch.Tensor:
        return torch.rand(rows, 3, generator=generator)

    whole = draw_rows(draw, 3, own(0, 1, 2))
    assert torch.equal(draw_rows(draw, 2, own(2, 0)), whole[[2, 0]])
    questions = draw_rows(draw, 6, own(0, 1, 2)).view(3, 2, 3)  # the first k rows are those of the first image
    assert torch.equal(draw_rows(draw, 2, own(1)), questions[1])
    masks = draw_rows(draw, 6, own(0, 1, 2), per_image=2).view(2, 3, 3)  # the first masks of all images come first
    assert torch.equal(masks, questions.transpose(0, 1))
    probabilities = torch.rand(3, 50, 9, generator=generator_for("cpu", "probabilities"))
    codes = multinomial(probabilities, own(0, 1, 2))
    assert codes.shape == (3, 50)
    assert torch.equal(multinomial(probabilities[[2, 0]], own(2, 0)), codes[[2, 0]])


def test_one_generator_draws_as_pytorch_does() -> None:
    probabilities = torch.rand(3, 5, 9, generator=generator_for("cpu", "probabilities"))
    expected = torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator_for("cpu", 0)).view(3, 5)
    assert torch.equal(multinomial(probabilities, generator_for("cpu", 0)), expected)


def test_what_pytorch_draws_itself_depends_on_all_images() -> None:
    numbers = [torch.rand(4, generator=own(*images)).tolist() for images in ((0, 1), (0, 1), (0, 2))]
    assert numbers[0] == numbers[1]
    assert numbers[0] != numbers[2]


def test_generators_that_are_not_one_for_each_image_are_refused() -> None:
    with pytest.raises(ValueError, match="got no generators"):
        own()
    shared = generator_for("cpu", 0)
    with pytest.raises(ValueError, match="one generator for two images"):
        PerImageGenerator([shared, shared])
    with pytest.raises(ValueError, match="has 2 generators for 3 rows"):
        multinomial(torch.ones(3, 4), own(0, 1))
