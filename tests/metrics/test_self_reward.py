import pytest
import torch

from unirl.metrics import SelfRewardAccuracy

NAMES = ["colors", "counting"]
Verdicts = list[tuple[bool, bool, str]]
"""(accepted by the rewards, correct according to the judge, category)"""
ROWS: Verdicts = [
    *[(True, True, "colors")] * 3,
    (False, True, "colors"),
    *[(True, False, "colors")] * 1,
    *[(False, False, "colors")] * 1,
    *[(True, True, "counting")] * 1,
    *[(True, False, "counting")] * 4,
]


def metric_of(rows: Verdicts) -> SelfRewardAccuracy:
    metric = SelfRewardAccuracy(NAMES)
    accepted, correct, categories = zip(*rows, strict=True)
    metric.update(torch.tensor(accepted), torch.tensor(correct), categories)
    return metric


def numbers(metric: SelfRewardAccuracy) -> dict[str, float]:
    return {name: pytest.approx(value.item()) for name, value in metric.compute().items()}


def test_mean_of_accepted_correct_and_rejected_wrong() -> None:
    assert numbers(metric_of(ROWS)) == {
        "colors": (3 / 4 + 1 / 2) / 2,
        "counting": (1 + 0) / 2,
        "overall": (4 / 5 + 1 / 6) / 2,
    }


def test_extremes() -> None:
    for right in (True, False):
        rows = [(correct == right, correct, "colors") for correct in (True, False, True, True)]
        assert numbers(metric_of(rows)) == {"colors": float(right), "overall": float(right)}


def test_a_constant_self_reward_has_one_half() -> None:
    for accepted in (True, False):
        rows: Verdicts = [(accepted, correct, "counting") for correct in (True, False, False, False, False)]
        assert numbers(metric_of(rows)) == {"counting": 0.5, "overall": 0.5}


def test_categories_without_correct_or_wrong_images_are_left_out() -> None:
    rows: Verdicts = [(True, True, "colors"), (False, True, "colors")]
    assert numbers(metric_of(rows)) == {}
    rows.append((False, False, "counting"))
    assert numbers(metric_of(rows)) == {"overall": 0.75}


def test_two_processes() -> None:
    merged, first, second = SelfRewardAccuracy(NAMES), metric_of(ROWS[:3]), metric_of(ROWS[3:])
    merged.counts = first.counts + second.counts
    merged._update_count = 1
    assert numbers(merged) == numbers(metric_of(ROWS))


def test_batches_add_up() -> None:
    metric = metric_of(ROWS[:1])
    for accepted, correct, category in ROWS[1:]:
        metric.update(torch.tensor([accepted]), torch.tensor([correct]), [category])
    assert numbers(metric) == numbers(metric_of(ROWS))
