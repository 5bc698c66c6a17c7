import pytest
import torch

from unirl.metrics.accuracy import AccuracyByCategory

NAMES = ["colors", "counting", "position"]


def numbers(metric: AccuracyByCategory) -> dict[str, float]:
    return {name: pytest.approx(value.item()) for name, value in metric.compute().items()}


def filled(right: list[bool], categories: list[str]) -> AccuracyByCategory:
    metric = AccuracyByCategory(NAMES)
    metric.update(torch.tensor(right), categories)
    return metric


def test_overall_is_the_mean_of_categories_not_of_samples() -> None:
    metric = filled([True, True, True, False, False], ["colors"] * 4 + ["counting"])
    assert numbers(metric) == {"colors": 0.75, "counting": 0.0, "overall": 0.375}


def test_updates_add_up() -> None:
    right, categories = [True, False, True, True, False, True], ["colors", "position"] * 3
    metric = filled(right[:2], categories[:2])
    for i in range(2, 6):
        metric.update(torch.tensor(right[i : i + 1]), categories[i : i + 1])
    assert (
        numbers(metric) == numbers(filled(right, categories)) == {"colors": 2 / 3, "position": 2 / 3, "overall": 2 / 3}
    )


def test_two_processes_with_unequal_shares() -> None:
    one, other = filled([True], ["colors"]), filled([False, False, True], ["colors", "colors", "counting"])
    whole = filled([True, False, False, True], ["colors"] * 3 + ["counting"])
    merged = AccuracyByCategory(NAMES)
    merged.right, merged.seen = one.right + other.right, one.seen + other.seen
    merged._update_count = 1
    assert numbers(merged) == numbers(whole) == {"colors": 1 / 3, "counting": 1.0, "overall": 2 / 3}


def test_nothing_seen_and_reset() -> None:
    metric = filled([True], ["colors"])
    metric.reset()
    metric.update(torch.tensor([False]), ["position"])
    assert numbers(metric) == {"position": 0.0, "overall": 0.0}


def test_an_unknown_category_is_an_error() -> None:
    with pytest.raises(ValueError):
        filled([True], ["shapes"])
