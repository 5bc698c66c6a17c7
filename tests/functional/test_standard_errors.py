"""Standard errors of differences: closed forms, and the spread of simulated measurements."""

from random import Random
from statistics import pstdev

import pytest

from unirl.functional import difference_errors


def test_closed_forms() -> None:
    assert difference_errors({"a": 0.5}, {"a": 0.5}, {"a": 60}) == pytest.approx(
        {"a": 0.0913, "overall": 0.0913}, abs=1e-4
    )
    assert difference_errors({"a": 1.0}, {"a": 1.0}, {"a": 8}) == {"a": 0.0, "overall": 0.0}
    assert difference_errors({"a": 1.0}, {"b": 1.0}, {"a": 8, "b": 8}) == {}


def test_the_spread_of_measurements_of_one_model() -> None:
    rng, counts, share = Random(0), {"a": 8, "b": 100}, {"a": 0.5, "b": 0.9}

    def measure() -> dict[str, float]:
        return {name: sum(rng.random() < share[name] for _ in range(n)) / n for name, n in counts.items()}

    pairs = [(measure(), measure()) for _ in range(2000)]
    expected = difference_errors(share, share, counts)
    for name in counts:
        assert pstdev(x[name] - y[name] for x, y in pairs) == pytest.approx(expected[name], rel=0.1)
    assert pstdev(sum(x.values()) / 2 - sum(y.values()) / 2 for x, y in pairs) == pytest.approx(
        expected["overall"], rel=0.1
    )
