"""Shares from variances: closed forms and properties."""

from random import Random

import pytest

from unirl.functional import variance_shares


@pytest.mark.parametrize(
    ("shares", "variances", "floor", "expected"),
    [
        ([1.0, 1.0], [0.0, 0.25], 0.0, [0.0, 1.0]),  # all of the draws go where rewards vary
        ([1.0, 1.0], [0.0, 0.25], 0.2, [0.1, 0.9]),  # but the floor's half of a fifth
        ([1.0, 3.0], [0.2, 0.2], 0.5, [0.25, 0.75]),  # equal variances leave the own shares
        ([1.0, 3.0], [0.3, 0.1], 0.0, [0.5, 0.5]),  # share times variance
        ([1.0, 3.0], [0.0, 0.0], 0.1, [0.25, 0.75]),  # nothing varies
        ([1.0, 3.0], [None, None], 0.1, [0.25, 0.75]),  # nothing is known
        ([1.0, 3.0], [None, 0.0], 0.1, [0.25, 0.75]),
        ([1.0, 1.0, 2.0], [0.1, 0.3, None], 0.0, [0.125, 0.375, 0.5]),  # the unknown one keeps its own share
        ([1.0, 0.0], [0.1, 5.0], 0.5, [1.0, 0.0]),  # what the source does not have is not drawn
        ([7.0], [0.1], 0.5, [1.0]),
        ([7.0], [0.0], 0.5, [1.0]),
        ([1.0, 3.0], [0.0, 0.25], 1.0, [0.25, 0.75]),  # a floor of 1 is uniform sampling
    ],
)
def test_closed_forms(shares: list[float], variances: list[float | None], floor: float, expected: list[float]) -> None:
    assert variance_shares(shares, variances, floor) == pytest.approx(expected, abs=1e-12)


def test_shares_sum_to_one_and_respect_the_floor_in_any_order() -> None:
    rng = Random(0)
    for _ in range(200):
        count, floor = rng.randint(1, 9), rng.random()
        own = [rng.uniform(0.01, 5) for _ in range(count)]
        variances = [rng.choice([None, 0.0, rng.random(), 1e-30, 1e60]) for _ in range(count)]
        shares = variance_shares(own, variances, floor)
        assert sum(shares) == pytest.approx(1)
        assert all(share >= floor * o / sum(own) - 1e-12 for share, o in zip(shares, own, strict=True))
        assert variance_shares(own[::-1], variances[::-1], floor) == shares[::-1]
