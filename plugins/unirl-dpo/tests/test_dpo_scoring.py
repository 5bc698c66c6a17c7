"""Which images DPO scores, when, and under which masks."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .table_policy import (
    CODES,
    MaskedTablePolicy,
    TablePolicy,
    attached,
    change,
    compute_loss,
    gradient,
    log_likelihoods,
    prepared,
    rollout,
)


@pytest.mark.parametrize("pairs", ["extremes", "all"])
def test_both_images_and_the_reference_are_scored_under_the_same_masks(pairs: str) -> None:
    policy = MaskedTablePolicy()
    rule = attached(policy, pairs=pairs, beta=0.4)
    assert rule._reference is not None
    reference = rule._reference._copy
    assert isinstance(reference, MaskedTablePolicy)
    scores = torch.tensor([1.0, 0.0, 0.5, 0.0, 0.2, 0.9])
    batch = prepared(rule, policy, rollout(scores), iterations=2)
    for iteration in range(2):
        policy.masks.clear()
        loss, metrics = compute_loss(rule, policy, dataclasses.replace(batch, iteration=iteration), iteration)
        count = 2 if pairs == "extremes" else 3
        assert policy.masks == [policy.masks[0]] * count
        assert reference.masks[iteration * count : (iteration + 1) * count] == policy.masks
        assert metrics["rewards/margins"] == 0  # exactly
        assert loss.item() == pytest.approx(math.log(2))
    assert reference.masks[0] != reference.masks[-1]  # another iteration, other masks


def test_later_iterations_compare_with_the_reference_and_not_with_the_sampling_policy() -> None:
    policy = TablePolicy()
    rule = attached(policy, beta=0.4)
    before = log_likelihoods(policy).detach()
    change(policy)  # as by an earlier rollout
    batch = prepared(rule, policy, rollout(), iterations=2)
    assert len(batch.old_log_probs) == 2
    gains = log_likelihoods(policy) - before
    expected = -(0.4 * (gains[0] - gains[1])).sigmoid().log()
    for iteration in range(2):
        loss, _ = compute_loss(rule, policy, dataclasses.replace(batch, iteration=iteration), iteration)
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("pairs", "count"), [("extremes", 2), ("all", 3)])
def test_only_groups_with_a_pair_are_scored(pairs: str, count: int) -> None:
    policy = TablePolicy()
    rule = attached(policy, pairs=pairs)
    batch = prepared(rule, policy, rollout())
    assert policy.calls == []  # the reference is a copy
    compute_loss(rule, policy, batch)
    assert [prompts for prompts, _ in policy.calls] == [["0"]] * count


@pytest.mark.parametrize("pairs", ["extremes", "all"])
def test_without_pairs_nothing_is_computed_and_the_metrics_have_the_same_names(pairs: str) -> None:
    policy = TablePolicy()
    rule = attached(policy, pairs=pairs)
    _, names = compute_loss(rule, policy, prepared(rule, policy, rollout()))
    policy.calls.clear()
    loss, metrics = compute_loss(rule, policy, prepared(rule, policy, rollout(torch.full((6,), 0.7))))
    assert policy.calls == []
    assert loss == 0
    assert gradient(loss, policy).abs().max() == 0  # a loss that reaches every parameter
    assert list(metrics) == list(names)
    assert metrics["frac_unpaired_groups"] == 1


def test_dropped_samples_are_not_scored_and_groups_are_weighted() -> None:
    policy = TablePolicy()
    rule = attached(policy)
    dropped = rollout(weights=torch.tensor([0.0, 1, 1, 1, 1, 1]))
    compute_loss(rule, policy, prepared(rule, policy, dropped))
    assert policy.calls == [(["0"], [CODES[2].tolist()]), (["0"], [CODES[1].tolist()])]
    scores, weights = torch.tensor([1.0, 0, 0, 0, 0, 1.0]), torch.tensor([0.5, 1, 1, 1, 1, 1])
    loss = compute_loss(rule, policy, prepared(rule, policy, rollout(scores, weights=weights)))[0]
    one, two = (
        gradient(compute_loss(rule, policy, prepared(rule, policy, rollout(part)))[0], policy)
        for part in (scores * torch.tensor([1, 1, 1, 0, 0, 0]), scores * torch.tensor([0, 0, 0, 1, 1, 1]))
    )
    torch.testing.assert_close(gradient(loss, policy), (0.5 * one + two) / 1.5)


def test_decisions_score_all_codes() -> None:
    policy = MaskedTablePolicy()
    rule = attached(policy, likelihood="decisions", beta=0.4)
    batch, before = prepared(rule, policy, rollout()), log_likelihoods(policy).detach()
    change(policy)
    gains = log_likelihoods(policy) - before
    loss, _ = compute_loss(rule, policy, batch)
    torch.testing.assert_close(loss, -(0.4 * (gains[0] - gains[1])).sigmoid().log())
    assert policy.masks == []


def test_the_reference_is_the_model_without_its_adapters() -> None:
    class BaseTunerLayer(nn.Module):
        """Named like the base class of peft's adapters."""

        enabled = True

        def enable_adapters(self, enabled: bool) -> None:
            self.enabled = enabled

    class Adapted(TablePolicy):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.modes = BaseTunerLayer(), []

        def image_log_probs(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
            self.modes.append((self.layer.enabled, torch.is_grad_enabled()))
            return super().image_log_probs(*args, **options)

    policy = Adapted()
    rule = attached(policy)
    batch = prepared(rule, policy, rollout())
    compute_loss(rule, policy, batch)
    assert policy.modes == [(False, False)] * 2 + [(True, True)] * 2


def test_a_rollout_prepared_by_another_rule_is_scored_by_the_reference_in_the_loss() -> None:
    """A run may be resumed between two iterations on a rollout, with another rule."""
    policy = TablePolicy()
    rule = attached(policy)
    batch = prepared(rule, policy, rollout())
    change(policy)
    expected, _ = compute_loss(rule, policy, batch)
    for old_log_probs in ([{"image": torch.zeros(6, 2)}], []):
        batch = dataclasses.replace(batch, old_log_probs=old_log_probs)
        torch.testing.assert_close(compute_loss(rule, policy, batch)[0], expected)
