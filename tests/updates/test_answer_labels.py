"""Labels of trained answers, on a bandit whose likelihoods are known: about code c it says c with odds of e^2 to 1."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.testing import BanditBackbone, make_bandit_rollout
from unirl.types import Answers, Candidates, ImageSampling, Rollout
from unirl.updates import GRPO, SFT, PolicyLoss, PosteriorLabels, UpdateRule

SAMPLING = ImageSampling(steps=4)
ODDS = math.exp(2.0)
ROWS = 12


def bandit_rollout(backbone: BanditBackbone, said: str | None = None) -> Rollout:
    """Two prompts, six images each. With `said`, the model gave this answer about each."""
    rollout = make_bandit_rollout(backbone, 6, SAMPLING, seed=0, num_prompts=2)
    return rollout if said is None else dataclasses.replace(rollout, answers=backbone.tokenize_answers([said] * ROWS))


def with_candidates(backbone: BanditBackbone, rollout: Rollout, accepted: list[bool]) -> Rollout:
    """The candidates "0", "1" and "2" for every answer."""
    answers = backbone.tokenize_answers(["0", "1", "2"] * ROWS)
    mask = torch.ones(ROWS, 3, dtype=torch.bool)
    return dataclasses.replace(rollout, candidates=Candidates(answers, mask, torch.tensor(accepted).expand(ROWS, 3)))


def first_codes(rollout: Rollout) -> list[int]:
    return rollout.images.codes[:, 0].tolist()


def prepared(rule: UpdateRule, backbone: BanditBackbone, rollout: Rollout) -> Rollout:
    rule.attach(backbone)
    with torch.no_grad():
        return rule.prepare(backbone, rollout, SAMPLING, [torch.Generator()])


def labels(backbone: BanditBackbone, rollout: Rollout, posterior: PosteriorLabels) -> tuple[Answers, Tensor]:
    found = prepared(SFT(answer_labels="posterior", posterior=posterior), backbone, rollout).answer_labels
    assert found is not None
    assert found.weights is not None
    return found.answers, found.weights


def loss(rule: UpdateRule, backbone: BanditBackbone, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
    return rule.loss(backbone, rollout, SAMPLING, torch.Generator().manual_seed(0))


def test_the_label_is_the_candidate_of_largest_posterior() -> None:
    """The odds of what the model sees are e^2, those of the prior 5: the image wins, with e^2 / (e^2 + 5 + 1)."""
    backbone = BanditBackbone()
    rollout = with_candidates(backbone, bandit_rollout(backbone), [False, True, False])
    codes = first_codes(rollout)
    assert set(codes) == {0, 1, 2}
    wrong = ODDS / (ODDS + 5 + 1)
    for least, trained in ((wrong - 1e-3, [True] * ROWS), (wrong + 1e-3, [code == 1 for code in codes])):
        answers, weights = labels(backbone, rollout, PosteriorLabels(prior=0.5, min_posterior=least))
        assert answers.text == [str(code) for code in codes]
        assert weights.tolist() == [float(value) for value in trained]


def test_a_strong_prior_overrules_the_image() -> None:
    backbone = BanditBackbone()
    rollout = with_candidates(backbone, bandit_rollout(backbone), [False, True, False])
    answers, weights = labels(backbone, rollout, PosteriorLabels(prior=0.9, min_posterior=0.8))  # odds of 45
    assert answers.text == ["1"] * ROWS
    assert weights.tolist() == [1.0] * ROWS


def test_the_prior_goes_to_all_that_is_accepted_and_not_to_the_prompts_words() -> None:
    """Accepted: 0, which no prompt's answer must be, and 1. Each has half of the prior, so the image decides."""
    backbone = BanditBackbone()
    rollout = with_candidates(backbone, bandit_rollout(backbone), [True, True, False])
    answers, _ = labels(backbone, rollout, PosteriorLabels(prior=0.9, min_posterior=0.0))
    codes = first_codes(rollout)
    for text, code in zip(answers.text, codes, strict=True):
        assert text == (str(code) if code < 2 else text)
        assert text != "2"


def test_without_candidates_the_own_and_the_prompts_answer_are_compared() -> None:
    backbone = BanditBackbone()
    rollout = bandit_rollout(backbone, said="2")
    answers, weights = labels(backbone, rollout, PosteriorLabels(prior=0.5, num_alternatives=5, min_posterior=0.0))
    expected = [
        "2" if code == 2 else example.answer
        for code, example in zip(first_codes(rollout), rollout.examples, strict=True)
    ]
    assert answers.text == expected
    assert weights.tolist() == [1.0] * ROWS


def test_likelihoods_may_be_those_of_the_untrained_model() -> None:
    for model in ("policy", "reference"):
        backbone = BanditBackbone()
        rollout = with_candidates(backbone, bandit_rollout(backbone), [False, False, False])
        rule = SFT(answer_labels="posterior", posterior=PosteriorLabels(min_posterior=0.0, model=model))  # type: ignore[arg-type]
        rule.attach(backbone)
        with torch.no_grad():
            backbone.answer_logits.mul_(-1)  # the policy now says what it does not see
            found = rule.prepare(backbone, rollout, SAMPLING, [torch.Generator()]).answer_labels
        assert found is not None
        seen = [text == str(code) for text, code in zip(found.answers.text, first_codes(rollout), strict=True)]
        assert seen == [model == "reference"] * ROWS


def test_likelihoods_do_not_depend_on_the_batch_size() -> None:
    backbone = BanditBackbone()
    rollout = with_candidates(backbone, bandit_rollout(backbone), [False, True, False])
    whole, parts = (
        labels(backbone, dataclasses.replace(rollout, loss_batch_size=size), PosteriorLabels(min_posterior=0.6))
        for size in (None, 5)
    )
    assert whole[0].text == parts[0].text
    assert torch.equal(whole[1], parts[1])


@pytest.mark.parametrize("end_to_end", [False, True])
def test_sft_learns_the_labels_that_are_trained(end_to_end: bool) -> None:
    backbone = BanditBackbone()
    rollout = with_candidates(backbone, bandit_rollout(backbone), [False, True, False])
    rollout = dataclasses.replace(rollout, weights=torch.tensor([0.0, 0.5, *[1.0] * (ROWS - 2)]))
    rule = SFT(end_to_end=end_to_end, image_weight=0.0, answer_labels="posterior")
    rollout = prepared(rule, backbone, rollout)
    value, logs = loss(rule, backbone, rollout)
    found = rollout.answer_labels
    assert found is not None
    weights = found.weights * rollout.sample_weights  # type: ignore[operator]
    scored = backbone.answer_log_probs(rollout.images, rollout.questions, found.answers).sum(1)
    torch.testing.assert_close(value, -(scored * weights).sum() / (2 * weights.sum()))
    assert 0 < logs["answer_labels/frac_trained"] == (weights > 0).float().mean() < 1
    prompt = [text == e.answer for text, e in zip(found.answers.text, rollout.examples, strict=True)]
    assert logs["answer_labels/frac_prompt"] == ((weights > 0) & torch.tensor(prompt)).float().mean()


@pytest.mark.parametrize("source", ["prompt", "posterior"])
def test_grpo_learns_given_labels_by_cross_entropy_and_images_by_advantage(source: str) -> None:
    backbone = BanditBackbone()
    rollout = with_candidates(backbone, bandit_rollout(backbone), [False, True, False])
    both = GRPO(answer_weight=2.0, answer_labels=source, loss=PolicyLoss(scale_rewards=False))  # type: ignore[arg-type]
    image = GRPO(answer_weight=0.0, loss=PolicyLoss(scale_rewards=False))
    answer = SFT(image_weight=0.0, answer_labels=source)  # type: ignore[arg-type]
    total, image_only, answer_only = (
        torch.autograd.grad(loss(rule, backbone, prepared(rule, backbone, rollout))[0], list(parameters(backbone)))
        for rule in (both, image, answer)
    )
    for got, first, second in zip(total, image_only, answer_only, strict=True):
        torch.testing.assert_close(got, first + 2 * second)
    assert any(part.abs().max() > 0 for part in answer_only)


def parameters(backbone: BanditBackbone) -> list[torch.nn.Parameter]:
    return [p for p in backbone.parameters() if p.requires_grad]


def test_candidates_are_asked_for_where_answers_are_trained_by_them() -> None:
    sampling = SFT(answer_labels="posterior", posterior=PosteriorLabels(3, 0.7)).candidate_sampling
    assert sampling is not None
    assert (sampling.num_candidates, sampling.temperature) == (3, 0.7)
    assert GRPO(answer_labels="posterior").candidate_sampling is not None
    for rule in (SFT(answer_labels="posterior", answer_weight=0.0), SFT(answer_labels="self"), GRPO()):
        assert rule.candidate_sampling is None


@pytest.mark.parametrize("rule", [SFT, GRPO])
@pytest.mark.parametrize(
    "setting",
    [
        {"num_candidates": -1},
        {"candidate_temperature": -1.0},
        {"prior": 0.0},
        {"prior": 1.5},
        {"num_alternatives": 0},
        {"min_posterior": 1.1},
    ],
)
def test_settings_out_of_range_are_refused(rule: type[SFT] | type[GRPO], setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"{rule.__name__.lower()}\.posterior: {next(iter(setting))}"):
        rule(posterior=PosteriorLabels(**setting))  # type: ignore[arg-type]


def test_answers_are_learned_about_the_images_of_the_answer_rollout() -> None:
    """Of the reference's images as many are in each micro-batch as there can be, and all of them in some."""
    backbone = BanditBackbone()
    rollout, rule = bandit_rollout(backbone), SFT(image_weight=0.0, answer_labels="prompt")
    others = make_bandit_rollout(backbone, 1, SAMPLING, seed=1, num_prompts=3)
    both = dataclasses.replace(rollout, answer_rollout=others, loss_batch_size=3)
    expected, _ = loss(rule, backbone, others)
    assert expected != loss(rule, backbone, rollout)[0]
    parts = both.micro_batches()
    assert [len(part.answer_samples.rows) for part in parts] == [0, 1, 1, 1]
    torch.testing.assert_close(sum(loss(rule, backbone, part)[0] for part in parts), expected)
    torch.testing.assert_close(loss(rule, backbone, both)[0], expected)


@pytest.mark.parametrize("rule", [SFT, GRPO])
def test_the_untrained_model_generates_images(rule: type[SFT] | type[GRPO]) -> None:
    made = rule(answer_labels="prompt", answer_images="reference", answer_images_per_prompt=2)
    backbone, base = BanditBackbone(), BanditBackbone()
    made.attach(backbone)
    with torch.no_grad():
        backbone.prompt_logits.mul_(-50)
    images = made.sample_answer_images(backbone, ["code 0", "code 2"], SAMPLING, torch.Generator().manual_seed(3))
    expected = base.sample_images(["code 0"] * 2 + ["code 2"] * 2, SAMPLING, torch.Generator().manual_seed(3))
    assert images is not None
    assert torch.equal(images.codes, expected.codes)
    assert rule().sample_answer_images(backbone, ["code 0"], SAMPLING, torch.Generator()) is None


def test_own_answers_need_own_images_under_grpo() -> None:
    with pytest.raises(UserError, match="set answer_labels to prompt or posterior"):
        GRPO(answer_images="reference")
    with pytest.raises(UserError, match="answer_images_per_prompt 0"):
        SFT(answer_images_per_prompt=0)
