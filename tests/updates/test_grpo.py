"""GRPO against sums done by hand, on a policy that is a table of logits."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.errors import UserError
from unirl.types import Answers, Example, Images, ImageSampling, Rollout
from unirl.updates.grpo import GRPO

EXAMPLES = [Example(prompt, "q", "a", "c") for prompt in ("0", "0", "0", "1", "1", "1")]
CODES = torch.tensor([[0, 1], [1, 1], [2, 0], [0, 0], [1, 2], [2, 2]])
SCORES = torch.tensor([1.0, 0.0, 0.0, 0.5, 0.5, 0.5])
SAID = Answers(
    torch.tensor([[0, 1], [1, 0], [0, 0], [1, 1], [0, 1], [1, 0]]), torch.ones(6, 2, dtype=torch.bool), "a" * 6
)
DRAWING = {"answer_weight": 0.0, "normalize": False}


class Table(Backbone):
    """Two codes of three kinds for each of two prompts, and two answer tokens of two kinds, from tables of logits."""

    blocks = ()

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.drawing = nn.Parameter(torch.randn(2, 3, generator=generator))
        self.saying = nn.Parameter(torch.randn(2, 2, generator=generator))
        self.calls: list[tuple[str, int]] = []

    def image_log_probs(
        self, prompts: Sequence[str], images: Images, sampling: ImageSampling, scored: Any = None, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        self.calls.append(("image", len(prompts)))
        table = self.drawing.log_softmax(-1)[[int(p) for p in prompts]] * (1 + sampling.guidance)
        mask = torch.ones_like(images.codes, dtype=torch.bool)
        if scored:
            mask = torch.arange(2) < scored
            mask = mask.expand(len(prompts), 2)
        return table.gather(1, images.codes), mask

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        self.calls.append(("answer", len(questions)))
        return self.saying.log_softmax(-1).gather(1, answers.ids.T).T * answers.mask


Table.__abstractmethods__ = frozenset()


def rollout(scores: Tensor = SCORES, **more: Any) -> Rollout:
    return Rollout(EXAMPLES, Images(CODES), SAID, scores, {}, scores == 1, 3, **more)


def loss_of(rule: GRPO, policy: Table, batch: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
    return rule.loss(policy, batch, ImageSampling(steps=2), torch.Generator().manual_seed(0))


def prepared(rule: GRPO, policy: Table, batch: Rollout, updates: int) -> Rollout:
    generators = [torch.Generator().manual_seed(0) for _ in range(updates)]
    with torch.no_grad():
        return rule.prepare(policy, batch, ImageSampling(steps=2), generators)


def slope(loss: Tensor, weight: Tensor) -> Tensor:
    return torch.autograd.grad(loss, weight, retain_graph=True)[0]


def test_gradient_is_reinforce_with_the_groups_mean_as_baseline() -> None:
    policy = Table()
    loss, logs = loss_of(GRPO(**DRAWING), policy, rollout())
    chances = policy.drawing[0].softmax(0).detach()
    # Of the first group one drawing earned 1, so the advantages are 2/3, -1/3 and -1/3; the second group is flat.
    expected = torch.zeros(2, 3)
    for codes, advantage in zip(CODES[:3], (2 / 3, -1 / 3, -1 / 3), strict=True):
        for code in codes:
            expected[0] -= advantage * (torch.eye(3)[code] - chances) / 2 / 6
    torch.testing.assert_close(slope(loss, policy.drawing), expected)
    assert logs["image_clipped"] == 0


def test_answers_of_accepted_drawings_learn_and_of_others_only_if_asked() -> None:
    policy = Table()
    chances = policy.saying.softmax(1).detach()
    ways = {"accepted": [2 / 3, 0, 0], "all": [2 / 3, -1 / 3, -1 / 3]}
    for answers, advantages in ways.items():
        policy.calls.clear()
        rule = GRPO(image_weight=0.0, answer_weight=2.0, normalize=False, answers=answers)  # type: ignore[arg-type]
        loss, _ = loss_of(rule, policy, rollout())
        expected = torch.zeros(2, 2)
        for ids, advantage in zip(SAID.ids, advantages, strict=False):
            for place, token in enumerate(ids):
                expected[place] -= 2 * advantage * (torch.eye(2)[token] - chances[place]) / 2 / 6
        torch.testing.assert_close(slope(loss, policy.saying), expected)
        assert policy.calls == [("answer", 1 if answers == "accepted" else 3)]


def test_it_says_whether_it_needs_accepted_samples() -> None:
    assert GRPO().learns_from_accepted
    assert not GRPO(answers="all").learns_from_accepted
    assert not GRPO(answer_weight=0.0).learns_from_accepted


def test_what_is_alike_but_for_what_was_dropped_teaches_nothing() -> None:
    policy, weights = Table(), torch.tensor([0.0, 1, 1, 1, 1, 1])
    scores = torch.tensor([1.0, 0.1, 0.1, 0.5, 0.5, 0.5])  # 0.1 and its mean may differ in the last bit
    loss_of(GRPO(), policy, rollout(scores, weights=weights))
    assert policy.calls == []


def test_groups_that_scored_alike_cost_no_forward_pass_without_kl() -> None:
    policy = Table()
    loss, _ = loss_of(GRPO(), policy, rollout(torch.full((6,), 0.7)))
    assert policy.calls == []
    assert loss == 0
    assert slope(loss, policy.drawing).abs().max() == 0  # a loss that reaches every parameter
    loss_of(GRPO(answer_weight=0.0), policy, rollout())
    assert policy.calls == [("image", 3)]


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1)])
def test_every_process_logs_the_same_names_whatever_it_drew(betas: tuple[float, float]) -> None:
    policy, rule = Table(), GRPO(beta=betas[0], answer_beta=betas[1])
    rule.attach(policy)
    batches = rollout(), rollout(torch.zeros(6)), rollout(torch.ones(6))
    names = [list(loss_of(rule, policy, batch)[1]) for batch in batches]
    assert names[0] == names[1] == names[2]


def test_kl_of_a_policy_with_itself_is_0_and_grows_with_distance() -> None:
    policy, rule = Table(), GRPO(beta=0.5)
    rule.attach(policy)
    flat = rollout(torch.zeros(6))
    loss, logs = loss_of(rule, policy, flat)
    assert loss == logs["image_kl"] == logs["answer_kl"] == 0
    assert slope(loss, policy.drawing).abs().max() == 0
    before = [table.log_softmax(-1).detach() for table in (policy.drawing, policy.saying)]
    with torch.no_grad():
        policy.drawing += torch.tensor([1.0, 0.0, -1.0])
        policy.saying += torch.tensor([0.3, 0.0])
    loss, logs = loss_of(rule, policy, flat)
    gaps = [
        (before[0] - policy.drawing.log_softmax(-1))[[0, 0, 0, 1, 1, 1]].gather(1, CODES),
        (before[1] - policy.saying.log_softmax(-1)).gather(1, SAID.ids.T).T,
    ]
    k3 = [(gap.exp() - gap - 1).mean() for gap in gaps]
    torch.testing.assert_close(logs["image_kl"], k3[0].detach())
    torch.testing.assert_close(logs["answer_kl"], k3[1].detach())
    torch.testing.assert_close(loss, 0.5 * (k3[0] + k3[1]))
    assert list(rule.loss(policy, flat, ImageSampling(steps=2), torch.Generator())[1])  # the reference stays a table


def test_answers_are_held_without_being_taught() -> None:
    policy, rule = Table(), GRPO(answer_weight=0.0, answer_beta=0.5)
    rule.attach(policy)
    with torch.no_grad():
        policy.saying += torch.tensor([0.3, 0.0])
    loss, logs = loss_of(rule, policy, rollout(torch.zeros(6)))
    assert policy.calls == [("answer", 6)]  # no drawing had anything to learn, and no KL holds it
    torch.testing.assert_close(loss, 0.5 * logs["answer_kl"])
    assert slope(loss, policy.saying).abs().max() > 0


@pytest.mark.parametrize(("beta", "answer_beta"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_the_reference_scores_only_what_it_holds(beta: float, answer_beta: float) -> None:
    policy, reference = Table(), Table()
    rule = GRPO(beta=beta, answer_beta=answer_beta)
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
                self.drawing += self.shift if self.layer.on else 0
            found = super().image_log_probs(*args, **kwargs)
            return found

    policy, rule = Adapted(), GRPO(beta=1.0, answer_weight=0.0)
    rule.attach(policy)
    assert rule._reference is not None
    assert rule._reference._copy is None
    with rule._reference.active(policy) as reference:
        assert reference is policy
        assert not policy.layer.on
        assert not torch.is_grad_enabled()
    assert policy.layer.on


def test_later_updates_weigh_by_the_policy_that_drew_and_clip() -> None:
    policy, rule = Table(), GRPO(clip_low=0.1, clip_high=0.3, **DRAWING)
    batch = prepared(rule, policy, rollout(), 2)
    old = policy.drawing.log_softmax(-1)[0].detach()
    assert len(batch.old_log_probs) == 2
    first, _ = loss_of(rule, policy, batch)
    torch.testing.assert_close(first, torch.tensor(0.0), atol=1e-6, rtol=0)  # ratio 1, advantages that add up to 0
    with torch.no_grad():
        policy.drawing += torch.tensor([1.0, 0.0, -1.0])
    loss, logs = loss_of(rule, policy, dataclasses.replace(batch, iteration=1))
    ratio = (policy.drawing.log_softmax(-1)[0].detach() - old).exp()[CODES[:3]]
    gain = torch.tensor([[2 / 3], [-1 / 3], [-1 / 3]])
    expected = -torch.minimum(ratio * gain, ratio.clamp(0.9, 1.3) * gain).sum() / 2 / 6
    torch.testing.assert_close(loss.detach(), expected)
    assert logs["image_clipped"] == ((ratio < 0.9) | (ratio > 1.3)).float().mean()
    assert not prepared(rule, policy, rollout(), 1).old_log_probs  # one update is on-policy, and keeps nothing


def test_rewards_in_standard_deviations_are_what_is_compared() -> None:
    policy = Table()
    by_score = loss_of(GRPO(**DRAWING), policy, rollout())[0]
    by_contrast = loss_of(GRPO(**DRAWING), policy, rollout(torch.ones(6), normalized_rewards=SCORES))[0]
    torch.testing.assert_close(slope(by_contrast, policy.drawing), slope(by_score, policy.drawing))


@pytest.mark.parametrize("negative", [0.0, 0.25])
def test_what_is_worse_than_its_group_counts_less_where_asked(negative_scale: float) -> None:
    policy = Table()
    loss, _ = loss_of(GRPO(negative_scale=negative_scale, **DRAWING), policy, rollout())
    chances, expected = policy.drawing[0].softmax(0).detach(), torch.zeros(2, 3)
    for codes, advantage in zip(CODES[:3], (2 / 3, -negative_scale / 3, -negative_scale / 3), strict=True):
        for code in codes:
            expected[0] -= advantage * (torch.eye(3)[code] - chances) / 2 / 6
    torch.testing.assert_close(slope(loss, policy.drawing), expected)
    assert policy.calls == [("image", 3 if negative_scale else 1)]  # what teaches nothing costs nothing


def test_weights_of_samples_scale_what_they_teach() -> None:
    policy = Table()
    whole = slope(loss_of(GRPO(**DRAWING), policy, rollout())[0], policy.drawing)
    half = slope(loss_of(GRPO(**DRAWING), policy, rollout(weights=torch.full((6,), 0.5)))[0], policy.drawing)
    torch.testing.assert_close(half, whole / 2)
    policy.calls.clear()
    loss_of(GRPO(**DRAWING), policy, rollout(weights=torch.tensor([1.0, 0, 1, 1, 1, 1])))
    assert policy.calls == [("image", 2)]


def test_token_reduction_counts_every_token_alike() -> None:
    policy = Table()
    mask = torch.tensor([[True, True], [True, False], [True, True]]).repeat(2, 1)
    batch = dataclasses.replace(rollout(), answers=dataclasses.replace(SAID, mask=mask))
    parts = {}
    for reduction in ("sample", "token"):
        rule = GRPO(image_weight=0.0, normalize=False, answers="all", reduction=reduction)  # type: ignore[arg-type]
        parts[reduction] = slope(loss_of(rule, policy, batch)[0], policy.saying)
    chances = policy.saying.softmax(1).detach()
    for reduction, shares in {"sample": (1 / 2, 1, 1 / 2), "token": (3 / 5, 3 / 5, 3 / 5)}.items():
        expected = torch.zeros(2, 2)
        for row, (advantage, share) in enumerate(zip((2 / 3, -1 / 3, -1 / 3), shares, strict=True)):
            for place in range(int(mask[row].sum())):
                expected[place] -= advantage * share * (torch.eye(2)[SAID.ids[row, place]] - chances[place]) / 6
        torch.testing.assert_close(parts[reduction], expected)


def test_tokens_of_the_whole_batch_count_whoever_is_scored() -> None:
    """With a KL term flat groups are scored, too; the slope of the policy must not depend on it."""
    policy, found = Table(), []
    mask = torch.tensor([[True, False], [True, False], [True, False], [True, True], [True, True], [True, True]])
    batch = dataclasses.replace(rollout(), answers=dataclasses.replace(SAID, mask=mask))
    for beta in (0.0, 1e-9):
        rule = GRPO(image_weight=0.0, normalize=False, answers="all", reduction="token", answer_beta=beta)
        rule.attach(policy)
        found.append(slope(loss_of(rule, policy, batch)[0], policy.saying))
    torch.testing.assert_close(*found)
    assert policy.calls == [("answer", 3), ("answer", 6)]


def test_a_mask_of_numbers_is_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, scored = Table(), Table.image_log_probs
    expected = slope(loss_of(GRPO(**DRAWING), policy, rollout())[0], policy.drawing)

    def numbers(*given: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = scored(*given)
        return log_probs, mask.float()

    monkeypatch.setattr(Table, "image_log_probs", numbers)
    torch.testing.assert_close(slope(loss_of(GRPO(**DRAWING), policy, rollout())[0], policy.drawing), expected)


def test_without_a_weight_of_the_divergence_no_reference_is_kept() -> None:
    rules = GRPO(), GRPO(beta=0.2), GRPO(answer_beta=1.0)
    for rule in rules:
        rule.attach(Table())
    assert [rule._reference is None for rule in rules] == [True, False, False]


def test_the_scored_steps_and_the_guidance_are_those_asked_for() -> None:
    policy = Table()
    one = loss_of(GRPO(scored_steps=1, **DRAWING), policy, rollout())[0]
    expected = slope(
        loss_of(GRPO(**DRAWING), policy, dataclasses.replace(rollout(), images=Images(CODES[:, :1])))[0], policy.drawing
    )
    torch.testing.assert_close(slope(one, policy.drawing), expected)
    guided = slope(loss_of(GRPO(loss_guidance=1.0, **DRAWING), policy, rollout())[0], policy.drawing)
    torch.testing.assert_close(guided, 2 * slope(loss_of(GRPO(**DRAWING), policy, rollout())[0], policy.drawing))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"beta": -0.1}, "beta -0.1"),
        ({"clip_low": -1.0}, "clip_low -1.0"),
        ({"scored_steps": 0}, "scored_steps 0"),
        ({"views": 0}, "views 0"),
        ({"image_weight": 0.0, "answer_weight": 0.0}, "both 0"),
        ({"epsilon": float("nan")}, "epsilon nan"),
    ],
)
def test_settings_that_cannot_train(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        GRPO(**setting)


def test_what_does_not_fit_the_loop_is_refused() -> None:
    with pytest.raises(UserError, match="group_size is 1; take 2 or more"):
        GRPO().check(Table(), 1, ImageSampling())
    with pytest.raises(UserError, match=r"scored_steps 9, but sampling\.steps is 8"):
        GRPO(scored_steps=9).check(Table(), 2, ImageSampling(steps=8))
    with pytest.warns(UserWarning, match=r"drawn with guidance 2\.0, scored with 0\.0"):
        GRPO(loss_guidance=0.0).check(Table(), 2, ImageSampling(guidance=2.0))
