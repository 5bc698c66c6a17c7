"""What DPO scores, when, and under which masks."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .tables import CODES, Masked, Table, attached, learn, likelihoods, prepared, push, rollout, slope


@pytest.mark.parametrize("pairs", ["extremes", "all"])
def test_winner_loser_and_reference_are_scored_under_the_same_masks(pairs: str) -> None:
    policy = Masked()
    rule = attached(policy, pairs=pairs, beta=0.4)
    assert rule._reference is not None
    reference = rule._reference._copy
    assert isinstance(reference, Masked)
    scores = torch.tensor([1.0, 0.0, 0.5, 0.0, 0.2, 0.9])
    batch = prepared(rule, policy, rollout(scores), updates=2)
    for update in range(2):
        policy.masks.clear()
        loss, logs = learn(rule, policy, dataclasses.replace(batch, update=update), update)
        count = 2 if pairs == "extremes" else 3
        assert policy.masks == [policy.masks[0]] * count
        assert reference.masks[update * count : (update + 1) * count] == policy.masks
        assert logs["pair_margin"] == 0  # to the last bit: nothing but learning tells them apart
        assert loss.item() == pytest.approx(math.log(2))
    assert reference.masks[0] != reference.masks[-1]  # another update, other masks


def test_later_updates_know_the_reference_and_not_the_policy_that_drew() -> None:
    policy = Table()
    rule = attached(policy, beta=0.4)
    before = likelihoods(policy).detach()
    push(policy)  # an earlier rollout was learnt
    batch = prepared(rule, policy, rollout(), updates=2)
    assert len(batch.old_log_probs) == 2
    gains = likelihoods(policy) - before
    expected = -(0.4 * (gains[0] - gains[1])).sigmoid().log()
    for update in range(2):
        loss, _ = learn(rule, policy, dataclasses.replace(batch, update=update), update)
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("pairs", "drawings"), [("extremes", 2), ("all", 3)])
def test_only_groups_with_a_pair_are_scored(pairs: str, drawings: int) -> None:
    policy = Table()
    rule = attached(policy, pairs=pairs)
    batch = prepared(rule, policy, rollout())
    assert policy.calls == []  # the reference is a copy
    learn(rule, policy, batch)
    assert [prompts for prompts, _ in policy.calls] == [["0"]] * drawings


@pytest.mark.parametrize("pairs", ["extremes", "all"])
def test_without_any_pair_nothing_is_computed_and_the_logs_have_the_same_names(pairs: str) -> None:
    policy = Table()
    rule = attached(policy, pairs=pairs)
    _, names = learn(rule, policy, prepared(rule, policy, rollout()))
    policy.calls.clear()
    loss, logs = learn(rule, policy, prepared(rule, policy, rollout(torch.full((6,), 0.7))))
    assert policy.calls == []
    assert loss == 0
    assert slope(loss, policy).abs().max() == 0  # a loss that reaches every parameter
    assert list(logs) == list(names)
    assert logs["unpaired_groups"] == 1


def test_what_was_dropped_leaves_no_trace_and_weights_tell_groups_apart() -> None:
    policy = Table()
    rule = attached(policy)
    dropped = rollout(weights=torch.tensor([0.0, 1, 1, 1, 1, 1]))
    learn(rule, policy, prepared(rule, policy, dropped))
    assert policy.calls == [(["0"], [CODES[2].tolist()]), (["0"], [CODES[1].tolist()])]
    scores, weights = torch.tensor([1.0, 0, 0, 0, 0, 1.0]), torch.tensor([0.5, 1, 1, 1, 1, 1])
    loss = learn(rule, policy, prepared(rule, policy, rollout(scores, weights=weights)))[0]
    one, two = (
        slope(learn(rule, policy, prepared(rule, policy, rollout(part)))[0], policy)
        for part in (scores * torch.tensor([1, 1, 1, 0, 0, 0]), scores * torch.tensor([0, 0, 0, 1, 1, 1]))
    )
    torch.testing.assert_close(slope(loss, policy), (0.5 * one + two) / 1.5)


def test_decisions_score_every_code() -> None:
    policy = Masked()
    rule = attached(policy, likelihood="decisions", beta=0.4)
    batch, before = prepared(rule, policy, rollout()), likelihoods(policy).detach()
    push(policy)
    gains = likelihoods(policy) - before
    loss, _ = learn(rule, policy, batch)
    torch.testing.assert_close(loss, -(0.4 * (gains[0] - gains[1])).sigmoid().log())
    assert policy.masks == []


def test_the_reference_is_the_model_with_its_adapters_off() -> None:
    class BaseTunerLayer(nn.Module):
        """Named like peft's own base of adapters."""

        on = True

        def enable_adapters(self, enabled: bool) -> None:
            self.on = enabled

    class Adapted(Table):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = BaseTunerLayer(), []

        def image_log_probs(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
            self.seen.append((self.layer.on, torch.is_grad_enabled()))
            return super().image_log_probs(*args, **options)

    policy = Adapted()
    rule = attached(policy)
    batch = prepared(rule, policy, rollout())
    learn(rule, policy, batch)
    assert policy.seen == [(False, False)] * 2 + [(True, True)] * 2


def test_a_rollout_that_another_rule_prepared_is_scored_by_the_reference_when_it_is_learnt() -> None:
    """A run may be resumed, between two updates of a rollout, under another rule."""
    policy = Table()
    rule = attached(policy)
    batch = prepared(rule, policy, rollout())
    push(policy)
    expected, _ = learn(rule, policy, batch)
    for strange in ([{"image": torch.zeros(6, 2)}], []):
        torch.testing.assert_close(learn(rule, policy, dataclasses.replace(batch, old_log_probs=strange))[0], expected)
