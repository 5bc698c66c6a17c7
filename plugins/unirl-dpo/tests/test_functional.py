"""Losses and pairs against computations by hand."""

import math

import pytest
import torch
from torch import Tensor

from unirl_dpo.functional import best_samples, pair_weights, preference_loss, preference_pairs


def pairs(scores: list[float], size: int, **options: object) -> list[tuple[int, int]]:
    chosen, rejected = preference_pairs(torch.tensor(scores), size, **options)  # type: ignore[arg-type]
    return list(zip(chosen.tolist(), rejected.tolist(), strict=True))


def loss_and_gradient(gap: float, **options: object) -> tuple[float, float]:
    gaps = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
    loss = preference_loss(gaps, **options)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(loss.sum(), gaps)
    return loss.item(), gradient.item()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_a_policy_equal_to_its_reference_has_loss_log_2(beta: float, smoothing: float) -> None:
    loss, gradient = loss_and_gradient(0.0, beta=beta, label_smoothing=smoothing)
    assert loss == pytest.approx(math.log(2))
    assert gradient == pytest.approx(-beta * (0.5 - smoothing))  # beta * (sigmoid(0) - (1 - smoothing))


def test_the_logistic_loss_and_its_gradient() -> None:
    loss, gradient = loss_and_gradient(3.0, beta=0.5)
    assert loss == pytest.approx(math.log(1 + math.exp(-1.5)))
    assert gradient == pytest.approx(-0.5 / (1 + math.exp(1.5)))


def test_smoothed_labels_have_no_gradient_at_their_odds() -> None:
    """cDPO: -(1 - e) log s(b g) - e log s(-b g); its minimum is where s(b g) = 1 - e."""
    loss, _ = loss_and_gradient(2.0, beta=0.5, label_smoothing=0.1)
    assert loss == pytest.approx(0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.exp(1)))
    assert loss_and_gradient(math.log(0.9 / 0.1) / 0.5, beta=0.5, label_smoothing=0.1)[1] == pytest.approx(0, abs=1e-12)


def test_ipo_is_a_squared_loss_around_its_target() -> None:
    assert loss_and_gradient(0.0, beta=0.25, variant="ipo") == pytest.approx((4.0, -4.0))
    assert loss_and_gradient(2.0, beta=0.25, variant="ipo") == pytest.approx((0.0, 0.0))
    assert loss_and_gradient(5.0, beta=0.25, variant="ipo") == pytest.approx((9.0, 6.0))


def test_losses_of_large_gaps_are_finite() -> None:
    for gap in (-1e4, 1e4):
        loss, gradient = loss_and_gradient(gap, beta=1.0)
        assert (loss, gradient) == pytest.approx((max(0.0, -gap), -1.0 if gap < 0 else 0.0))


def test_the_best_is_paired_with_the_worst_and_the_first_of_equals_is_taken() -> None:
    assert pairs([0.5, 1.0, 0.0, 0.2], 4) == [(1, 2)]
    assert pairs([1.0, 0.0, 1.0, 0.0], 4) == [(0, 1)]
    assert pairs([1.0, 1.0, 0.0, 0.0, 0.0, 1.0], 3) == [(0, 2), (5, 3)]


def test_equal_scores_are_no_pair() -> None:
    for pairing in ("extremes", "all"):
        assert pairs([0.1, 0.1, 0.1, 0.1], 2, pairing=pairing) == []
        assert pairs([0.1, 0.1, 0.3, 0.7], 2, pairing=pairing) == [(3, 2)]


def test_all_pairs_of_a_group_and_none_across_groups() -> None:
    assert pairs([0.0, 1.0, 2.0, 5.0, 5.0, 9.0], 3, pairing="all") == [(1, 0), (2, 0), (2, 1), (5, 3), (5, 4)]


@pytest.mark.parametrize(("pairing", "count"), [("extremes", 1), ("all", 2)])
def test_a_margin_is_the_least_difference(pairing: str, count: int) -> None:
    scores = [0.0, 0.3, 0.8]  # 0.8 - 0.3 is a little less than 0.5 in floats
    assert len(pairs(scores, 3, pairing=pairing, margin=0.5)) == count
    assert pairs(scores, 3, pairing=pairing, margin=0.6) == [(2, 0)]
    assert pairs(scores, 3, pairing=pairing, margin=0.81) == []


@pytest.mark.parametrize("pairing", ["extremes", "all"])
def test_opposite_scores_mirror_the_pairs(pairing: str) -> None:
    scores = torch.randn(24, generator=torch.Generator().manual_seed(0))
    original = set(pairs(scores.tolist(), 4, pairing=pairing))
    assert {(rejected, chosen) for chosen, rejected in pairs((-scores).tolist(), 4, pairing=pairing)} == original
    assert original


@pytest.mark.parametrize("pairing", ["extremes", "all"])
def test_dropped_samples_are_in_no_pair(pairing: str) -> None:
    weights = torch.tensor([0.0, 1, 1, 1, 0, 0, 0, 0, 0])
    assert pairs([9.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0], 3, pairing=pairing, weights=weights) == [(1, 2)]


def test_groups_have_the_same_weight_regardless_of_their_number_of_pairs() -> None:
    chosen, rejected = preference_pairs(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]), 4, "all")
    assert pair_weights(chosen, rejected, 4, torch.ones(8)).tolist() == pytest.approx([1 / 3] * 6)
    weights: Tensor = torch.tensor([0.5, 1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0])
    assert pair_weights(chosen, rejected, 4, weights)[:3].tolist() == pytest.approx([0.5 / 3, 0.5 / 3, 0.1 / 3])


def test_best_candidates() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0, 0.0])
    assert best_samples(scores, 3, torch.ones(6).bool()).tolist() == [0, 3]
    assert best_samples(scores, 3, torch.tensor([False, True, True, False, True, True])).tolist() == [2, 4]
    assert best_samples(scores, 3, torch.tensor([False] * 3 + [True] * 3)).tolist() == [3]
    assert best_samples(scores, 3, torch.zeros(6).bool()).tolist() == []
