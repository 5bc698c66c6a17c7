import pytest
import torch

from unirl.metrics import AccuracyByCategory

NAMES = ["colors", "counting", "position"]


def numbers(metric: AccuracyByCategory) -> dict[str, float]:
    return {name: pytest.approx(value.item()) for name, value in metric.compute().items()}


def metric_of(correct: list[bool], categories: list[str]) -> AccuracyByCategory:
    metric = AccuracyByCategory(NAMES)
    metric.update(torch.tensor(correct), categories)
    return metric


def test_overall_is_the_mean_of_categories_not_of_samples() -> None:
    metric = metric_of([True, True, True, False, False], ["colors"] * 4 + ["counting"])
    assert numbers(metric) == {"colors": 0.75, "counting": 0.0, "overall": 0.375}


def test_updates_add_up() -> None:
    correct, categories = [True, False, True, True, False, True], ["colors", "position"] * 3
    metric = metric_of(correct[:2], categories[:2])
    for i in range(2, 6):
        metric.update(torch.tensor(correct[i : i + 1]), categories[i : i + 1])
    assert (
        numbers(metric)
        == numbers(metric_of(correct, categories))
        == {"colors": 2 / 3, "position": 2 / 3, "overall": 2 / 3}
    )


def test_two_processes_with_unequal_numbers_of_samples() -> None:
    first, second = metric_of([True], ["colors"]), metric_of([False, False, True], ["colors", "colors", "counting"])
    both = metric_of([True, False, False, True], ["colors"] * 3 + ["counting"])
    merged = AccuracyByCategory(NAMES)
    merged.correct, merged.total = first.correct + second.correct, first.total + second.total
    merged._update_count = 1
    assert numbers(merged) == numbers(both) == {"colors": 1 / 3, "counting": 1.0, "overall": 2 / 3}
    assert merged.counts == {"colors": 3, "counting": 1}


def test_categories_without_samples_are_left_out_after_a_reset() -> None:
    metric = metric_of([True], ["colors"])
    metric.reset()
    metric.update(torch.tensor([False]), ["position"])
    assert numbers(metric) == {"position": 0.0, "overall": 0.0}
    assert metric.counts == {"position": 1}


def test_an_unknown_category_is_an_error() -> None:
    with pytest.raises(ValueError):
        metric_of([True], ["shapes"])
