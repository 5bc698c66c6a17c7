import pytest
import torch

from unirl.metrics.self_reward import SelfRewardAccuracy

NAMES = ["colors", "counting"]
Verdicts = list[tuple[bool, bool, str]]
"""(accepted by the model, right by the judge, category)"""
ROWS: Verdicts = [
    *[(True, True, "colors")] * 3,
    (False, True, "colors"),
    *[(True, False, "colors")] * 1,
    *[(False, False, "colors")] * 1,
    *[(True, True, "counting")] * 1,
    *[(True, False, "counting")] * 4,
]


def filled(rows: Verdicts) -> SelfRewardAccuracy:
    metric = SelfRewardAccuracy(NAMES)
    accepted, right, categories = zip(*rows, strict=True)
    metric.update(torch.tensor(accepted), torch.tensor(right), categories)
    return metric


def numbers(metric: SelfRewardAccuracy) -> dict[str, float]:
    return {name: pytest.approx(value.item()) for name, value in metric.compute().items()}


def test_mean_of_accepted_right_and_refused_wrong() -> None:
    assert numbers(filled(ROWS)) == {
        "colors": (3 / 4 + 1 / 2) / 2,
        "counting": (1 + 0) / 2,
        "overall": (4 / 5 + 1 / 6) / 2,
    }


@pytest.mark.parametrize(("accept", "fair"), [(lambda right: right, 1.0), (lambda right: not right, 0.0)])
def test_extremes(accept_threshold: object, fair: float) -> None:
    rows = [(bool(accept_threshold(right)), right, "colors") for right in (True, False, True, True)]  # type: ignore[operator]
    assert numbers(filled(rows)) == {"colors": fair, "overall": fair}


@pytest.mark.parametrize("verdict", [True, False])
def test_a_critic_of_one_opinion_is_worth_a_half(verdict: bool) -> None:
    rows: Verdicts = [(verdict, right, "counting") for right in (True, False, False, False, False)]
    assert numbers(filled(rows)) == {"counting": 0.5, "overall": 0.5}


def test_without_both_kinds_nothing_is_said() -> None:
    rows: Verdicts = [(True, True, "colors"), (False, True, "colors")]
    assert numbers(filled(rows)) == {}
    rows.append((False, False, "counting"))
    assert numbers(filled(rows)) == {"overall": 0.75}


def test_two_processes() -> None:
    merged, first, second = SelfRewardAccuracy(NAMES), filled(ROWS[:3]), filled(ROWS[3:])
    merged.counts = first.counts + second.counts
    merged._update_count = 1
    assert numbers(merged) == numbers(filled(ROWS))


def test_batches_add_up() -> None:
    metric = filled(ROWS[:1])
    for accepted, right, category in ROWS[1:]:
        metric.update(torch.tensor([accepted]), torch.tensor([right]), [category])
    assert numbers(metric) == numbers(filled(ROWS))
