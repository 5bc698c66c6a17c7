"""GRPO against sums done by hand, for a policy that is a table of logits."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.errors import UserError
from unirl.types import Answers, Example, Images, ImageSampling, Rollout
from unirl.updates.grpo import GRPO, ImageScoring, KLPenalty, PolicyLoss

EXAMPLES = [Example(prompt, "q", "a", "c") for prompt in ("0", "0", "0", "1", "1", "1")]
CODES = torch.tensor([[0, 1], [1, 1], [2, 0], [0, 0], [1, 2], [2, 2]])
SCORES = torch.tensor([1.0, 0.0, 0.0, 0.5, 0.5, 0.5])
ANSWERS = Answers(
    torch.tensor([[0, 1], [1, 0], [0, 0], [1, 1], [0, 1], [1, 0]]), torch.ones(6, 2, dtype=torch.bool), "a" * 6
)
IMAGES_ONLY = {"answer_weight": 0.0, "scale_rewards": False}


def grpo(**options: Any) -> GRPO:
    """GRPO from flat options, each put into its group."""
    for name, kind in {"loss": PolicyLoss, "kl": KLPenalty, "scoring": ImageScoring}.items():
        given = {f.name: options.pop(f.name) for f in dataclasses.fields(kind) if f.name in options}
        options[name] = kind(**given)
    return GRPO(**options)


class Table(Backbone):
    """Two codes of three kinds for each of two prompts, and two answer tokens of two kinds, from tables of logits."""

    blocks = ()

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image_logits = nn.Parameter(torch.randn(2, 3, generator=generator))
        self.answer_logits = nn.Parameter(torch.randn(2, 2, generator=generator))
        self.calls: list[tuple[str, int]] = []

    def image_log_probs(
        self, prompts: Sequence[str], images: Images, sampling: ImageSampling, scored: Any = None, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        self.calls.append(("image", len(prompts)))
        table = self.image_logits.log_softmax(-1)[[int(p) for p in prompts]] * (1 + sampling.guidance)
        mask = torch.ones_like(images.codes, dtype=torch.bool)
        if scored:
            mask = torch.arange(2) < scored
            mask = mask.expand(len(prompts), 2)
        return table.gather(1, images.codes), mask

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        self.calls.append(("answer", len(questions)))
        return self.answer_logits.log_softmax(-1).gather(1, answers.ids.T).T * answers.mask


Table.__abstractmethods__ = frozenset()


def rollout(scores: Tensor = SCORES, **more: Any) -> Rollout:
    return Rollout(EXAMPLES, Images(CODES), ANSWERS, scores, {}, scores == 1, 3, **more)


def loss_of(rule: GRPO, policy: Table, batch: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
    return rule.loss(policy, batch, ImageSampling(steps=2), torch.Generator().manual_seed(0))


def prepared(rule: GRPO, policy: Table, batch: Rollout, updates: int) -> Rollout:
    generators = [torch.Generator().manual_seed(0) for _ in range(updates)]
    with torch.no_grad():
        return rule.prepare(policy, batch, ImageSampling(steps=2), generators)


def gradient(loss: Tensor, weight: Tensor) -> Tensor:
    return torch.autograd.grad(loss, weight, retain_graph=True)[0]


def test_gradient_is_reinforce_with_the_group_mean_as_baseline() -> None:
    policy = Table()
    loss, logs = loss_of(grpo(**IMAGES_ONLY), policy, rollout())
    probs = policy.image_logits[0].softmax(0).detach()
    # Rewards 1, 0, 0 of the first group give advantages 2/3, -1/3, -1/3; the second group has zero variance.
    expected = torch.zeros(2, 3)
    for codes, advantage in zip(CODES[:3], (2 / 3, -1 / 3, -1 / 3), strict=True):
        for code in codes:
            expected[0] -= advantage * (torch.eye(3)[code] - probs) / 2 / 6
    torch.testing.assert_close(gradient(loss, policy.image_logits), expected)
    assert logs["clip_ratio/image"] == 0


def test_own_answers_are_trained_where_accepted_or_all_if_asked() -> None:
    policy = Table()
    probs = policy.answer_logits.softmax(1).detach()
    ways = {"accepted": [2 / 3, 0, 0], "self": [2 / 3, -1 / 3, -1 / 3]}
    for answers, advantages in ways.items():
        policy.calls.clear()
        rule = grpo(image_weight=0.0, answer_weight=2.0, scale_rewards=False, answer_labels=answers)  # type: ignore[arg-type]
        loss, _ = loss_of(rule, policy, rollout())
        expected = torch.zeros(2, 2)
        for ids, advantage in zip(ANSWERS.ids, advantages, strict=False):
            for place, token in enumerate(ids):
                expected[place] -= 2 * advantage * (torch.eye(2)[token] - probs[place]) / 2 / 6
        torch.testing.assert_close(gradient(loss, policy.answer_logits), expected)
        assert policy.calls == [("answer", 1 if answers == "accepted" else 3)]


def test_learns_from_accepted() -> None:
    assert grpo().learns_from_accepted
    assert not grpo(answer_labels="self").learns_from_accepted
    assert not grpo(answer_weight=0.0).learns_from_accepted


def test_a_group_equal_but_for_dropped_samples_has_no_gradient() -> None:
    policy, weights = Table(), torch.tensor([0.0, 1, 1, 1, 1, 1])
    scores = torch.tensor([1.0, 0.1, 0.1, 0.5, 0.5, 0.5])  # 0.1 and its mean may differ in the last bit
    loss_of(grpo(), policy, rollout(scores, weights=weights))
    assert policy.calls == []


def test_zero_variance_groups_need_no_forward_pass_without_kl() -> None:
    policy = Table()
    loss, _ = loss_of(grpo(), policy, rollout(torch.full((6,), 0.7)))
    assert policy.calls == []
    assert loss == 0
    assert gradient(loss, policy.image_logits).abs().max() == 0  # a loss that reaches every parameter
    loss_of(grpo(answer_weight=0.0), policy, rollout())
    assert policy.calls == [("image", 3)]


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1)])
def test_every_rank_logs_the_same_names(betas: tuple[float, float]) -> None:
    policy, rule = Table(), grpo(beta=betas[0], answer_beta=betas[1])
    rule.attach(policy)
    batches = rollout(), rollout(torch.zeros(6)), rollout(torch.ones(6))
    names = [list(loss_of(rule, policy, batch)[1]) for batch in batches]
    assert names[0] == names[1] == names[2]


def test_kl_of_a_policy_with_itself_is_0_and_grows_with_distance() -> None:
    policy, rule = Table(), grpo(beta=0.5)
    rule.attach(policy)
    flat = rollout(torch.zeros(6))
    loss, logs = loss_of(rule, policy, flat)
    assert loss == logs["kl/image"] == logs["kl/answer"] == 0
    assert gradient(loss, policy.image_logits).abs().max() == 0
    before = [table.log_softmax(-1).detach() for table in (policy.image_logits, policy.answer_logits)]
    with torch.no_grad():
        policy.image_logits += torch.tensor([1.0, 0.0, -1.0])
        policy.answer_logits += torch.tensor([0.3, 0.0])
    loss, logs = loss_of(rule, policy, flat)
    gaps = [
        (before[0] - policy.image_logits.log_softmax(-1))[[0, 0, 0, 1, 1, 1]].gather(1, CODES),
        (before[1] - policy.answer_logits.log_softmax(-1)).gather(1, ANSWERS.ids.T).T,
    ]
    k3 = [(gap.exp() - gap - 1).mean() for gap in gaps]
    torch.testing.assert_close(logs["kl/image"], k3[0].detach())
    torch.testing.assert_close(logs["kl/answer"], k3[1].detach())
    torch.testing.assert_close(loss, 0.5 * (k3[0] + k3[1]))
    assert list(rule.loss(policy, flat, ImageSampling(steps=2), torch.Generator())[1])


def test_answers_have_a_kl_penalty_without_an_answer_loss() -> None:
    policy, rule = Table(), grpo(answer_weight=0.0, answer_beta=0.5)
    rule.attach(policy)
    with torch.no_grad():
        policy.answer_logits += torch.tensor([0.3, 0.0])
    loss, logs = loss_of(rule, policy, rollout(torch.zeros(6)))
    assert policy.calls == [("answer", 6)]  # no image has an advantage or a penalty
    torch.testing.assert_close(loss, 0.5 * logs["kl/answer"])
    assert gradient(loss, policy.answer_logits).abs().max() > 0


@pytest.mark.parametrize(("beta", "answer_beta"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_the_reference_scores_only_tasks_with_a_penalty(beta: float, answer_beta: float) -> None:
    policy, reference = Table(), Table()
    rule = grpo(beta=beta, answer_beta=answer_beta)
    rule.attach(policy)
    rule._reference._copy = reference
    loss_of(rule, policy, rollout())
    held = {"image": beta, "answer": answer_beta}
    assert reference.calls == [(name, 6) for name in held if held[name]]
    assert {name for name, _ in policy.calls} == {"image", "answer"}


def test_reference_is_the_model_with_its_adapters_off() -> None:
    class BaseTunerLayer(nn.Module):
        """Named like peft's own base of adapters."""

        on = True

        def enable_adapters(self, enabled: bool) -> None:
            self.on = enabled

    class Adapted(Table):
        def __init__(self) -> None:
            super().__init__()
            self.layer = BaseTunerLayer()
            self.shift = nn.Parameter(torch.tensor([1.0, 0.0, -1.0]))

        def image_log_probs(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                self.image_logits += self.shift if self.layer.on else 0
            found = super().image_log_probs(*args, **kwargs)
            return found

    policy, rule = Adapted(), grpo(beta=1.0, answer_weight=0.0)
    rule.attach(policy)
    assert rule._reference is not None
    assert rule._reference._copy is None
    with rule._reference.active(policy) as reference:
        assert reference is policy
        assert not policy.layer.on
        assert not torch.is_grad_enabled()
    assert policy.layer.on


def test_later_iterations_use_old_log_probs_and_clip() -> None:
    policy, rule = Table(), grpo(epsilon=0.1, epsilon_high=0.3, **IMAGES_ONLY)
    batch = prepared(rule, policy, rollout(), 2)
    old = policy.image_logits.log_softmax(-1)[0].detach()
    assert len(batch.old_log_probs) == 2
    first, _ = loss_of(rule, policy, batch)
    torch.testing.assert_close(first, torch.tensor(0.0), atol=1e-6, rtol=0)  # ratio 1, advantages that add up to 0
    with torch.no_grad():
        policy.image_logits += torch.tensor([1.0, 0.0, -1.0])
    loss, logs = loss_of(rule, policy, dataclasses.replace(batch, iteration=1))
    ratio = (policy.image_logits.log_softmax(-1)[0].detach() - old).exp()[CODES[:3]]
    gain = torch.tensor([[2 / 3], [-1 / 3], [-1 / 3]])
    expected = -torch.minimum(ratio * gain, ratio.clamp(0.9, 1.3) * gain).sum() / 2 / 6
    torch.testing.assert_close(loss.detach(), expected)
    assert logs["clip_ratio/image"] == ((ratio < 0.9) | (ratio > 1.3)).float().mean()
    assert not prepared(rule, policy, rollout(), 1).old_log_probs  # one iteration is on-policy


def test_advantages_come_from_normalized_rewards() -> None:
    policy = Table()
    by_score = loss_of(grpo(**IMAGES_ONLY), policy, rollout())[0]
    by_normalized = loss_of(grpo(**IMAGES_ONLY), policy, rollout(torch.ones(6), normalized_rewards=SCORES))[0]
    torch.testing.assert_close(gradient(by_normalized, policy.image_logits), gradient(by_score, policy.image_logits))


@pytest.mark.parametrize("negative_scale", [0.0, 0.25])
def test_negative_scale(negative_scale: float) -> None:
    policy = Table()
    loss, _ = loss_of(grpo(negative_scale=negative_scale, **IMAGES_ONLY), policy, rollout())
    probs, expected = policy.image_logits[0].softmax(0).detach(), torch.zeros(2, 3)
    for codes, advantage in zip(CODES[:3], (2 / 3, -negative_scale / 3, -negative_scale / 3), strict=True):
        for code in codes:
            expected[0] -= advantage * (torch.eye(3)[code] - probs) / 2 / 6
    torch.testing.assert_close(gradient(loss, policy.image_logits), expected)
    assert policy.calls == [("image", 3 if negative_scale else 1)]  # no advantage, no forward pass


def test_sample_weights_scale_the_gradient() -> None:
    policy = Table()
    whole = gradient(loss_of(grpo(**IMAGES_ONLY), policy, rollout())[0], policy.image_logits)
    half = gradient(
        loss_of(grpo(**IMAGES_ONLY), policy, rollout(weights=torch.full((6,), 0.5)))[0], policy.image_logits
    )
    torch.testing.assert_close(half, whole / 2)
    policy.calls.clear()
    loss_of(grpo(**IMAGES_ONLY), policy, rollout(weights=torch.tensor([1.0, 0, 1, 1, 1, 1])))
    assert policy.calls == [("image", 2)]


def test_token_reduction() -> None:
    policy = Table()
    mask = torch.tensor([[True, True], [True, False], [True, True]]).repeat(2, 1)
    batch = dataclasses.replace(rollout(), answers=dataclasses.replace(ANSWERS, mask=mask))
    parts = {}
    for reduction in ("sample", "token"):
        rule = grpo(image_weight=0.0, scale_rewards=False, answer_labels="self", reduction=reduction)  # type: ignore[arg-type]
        parts[reduction] = gradient(loss_of(rule, policy, batch)[0], policy.answer_logits)
    probs = policy.answer_logits.softmax(1).detach()
    for reduction, shares in {"sample": (1 / 2, 1, 1 / 2), "token": (3 / 5, 3 / 5, 3 / 5)}.items():
        expected = torch.zeros(2, 2)
        for row, (advantage, share) in enumerate(zip((2 / 3, -1 / 3, -1 / 3), shares, strict=True)):
            for place in range(int(mask[row].sum())):
                expected[place] -= advantage * share * (torch.eye(2)[ANSWERS.ids[row, place]] - probs[place]) / 6
        torch.testing.assert_close(parts[reduction], expected)


def test_token_reduction_counts_tokens_of_the_whole_batch() -> None:
    """With a KL penalty zero-variance groups are scored, too; the policy gradient must not depend on it."""
    policy, found = Table(), []
    mask = torch.tensor([[True, False], [True, False], [True, False], [True, True], [True, True], [True, True]])
    batch = dataclasses.replace(rollout(), answers=dataclasses.replace(ANSWERS, mask=mask))
    for beta in (0.0, 1e-9):
        rule = grpo(image_weight=0.0, scale_rewards=False, answer_labels="self", reduction="token", answer_beta=beta)
        rule.attach(policy)
        found.append(gradient(loss_of(rule, policy, batch)[0], policy.answer_logits))
    torch.testing.assert_close(*found)
    assert policy.calls == [("answer", 3), ("answer", 6)]


def test_a_float_mask_is_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, scored = Table(), Table.image_log_probs
    expected = gradient(loss_of(grpo(**IMAGES_ONLY), policy, rollout())[0], policy.image_logits)

    def numbers(*given: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = scored(*given)
        return log_probs, mask.float()

    monkeypatch.setattr(Table, "image_log_probs", numbers)
    torch.testing.assert_close(
        gradient(loss_of(grpo(**IMAGES_ONLY), policy, rollout())[0], policy.image_logits), expected
    )


def test_no_reference_is_kept_without_a_penalty() -> None:
    rules = grpo(), grpo(beta=0.2), grpo(answer_beta=1.0)
    for rule in rules:
        rule.attach(Table())
    assert [rule._reference is None for rule in rules] == [True, False, False]


def test_scored_steps_and_loss_guidance() -> None:
    policy = Table()
    one = loss_of(grpo(scored_steps=1, **IMAGES_ONLY), policy, rollout())[0]
    expected = gradient(
        loss_of(grpo(**IMAGES_ONLY), policy, dataclasses.replace(rollout(), images=Images(CODES[:, :1])))[0],
        policy.image_logits,
    )
    torch.testing.assert_close(gradient(one, policy.image_logits), expected)
    guided = gradient(loss_of(grpo(loss_guidance=1.0, **IMAGES_ONLY), policy, rollout())[0], policy.image_logits)
    torch.testing.assert_close(
        guided, 2 * gradient(loss_of(grpo(**IMAGES_ONLY), policy, rollout())[0], policy.image_logits)
    )


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"beta": -0.1}, "beta -0.1"),
        ({"epsilon": -1.0}, "epsilon -1.0"),
        ({"scored_steps": 0}, "scored_steps 0"),
        ({"num_masks": 0}, "num_masks 0"),
        ({"image_weight": 0.0, "answer_weight": 0.0}, "both 0"),
        ({"std_epsilon": float("nan")}, "std_epsilon nan"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        grpo(**setting)


def test_settings_that_do_not_fit_the_run_are_refused() -> None:
    with pytest.raises(UserError, match="group_size is 1; take 2 or more"):
        grpo().check(Table(), 1, ImageSampling())
    with pytest.raises(UserError, match=r"scored_steps 9, but image_sampling\.steps is 8"):
        grpo(scored_steps=9).check(Table(), 2, ImageSampling(steps=8))
    with pytest.warns(UserWarning, match=r"generated with guidance 2\.0 and scored with 0\.0"):
        grpo(loss_guidance=0.0).check(Table(), 2, ImageSampling(guidance=2.0))
