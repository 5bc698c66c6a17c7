import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unirl.backbones import Backbone
from unirl.backbones.showo import Magvit, MagvitConfig, Showo
from unirl.errors import UserError
from unirl.functional.reductions import masked_mean
from unirl.types import AnswerSampling, Example, ImageSampling, Rollout
from unirl.updates import GRPO, SFT, KLPenalty, LabelSource, PosteriorLabels

GOLDEN = Path(__file__).parents[1] / "fixtures" / "showo_golden"
SAMPLING = ImageSampling(steps=4, guidance=1.0)
EXAMPLES = [
    Example("a red circle", "what color ?", "red", "colors"),
    Example("a red circle", "what color ?", "red", "colors"),
    Example("three blue square", "how many square are there ?", "three blue square", "counting"),
    Example("three blue square", "how many square are there ?", "three blue square", "counting"),
]
Gradients = dict[str, Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Showo]:
    """The golden text model with a random image tokenizer of its codebook."""
    folder = tmp_path_factory.mktemp("showo") / "checkpoint"
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("golden*", "meta*", "magvit*"))
    config = MagvitConfig(4, (1,), (1,), (1,), (1,), z_channels=6, groups=4)
    (folder / "vq").mkdir()
    (folder / "vq" / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    save_file(Magvit(config).state_dict(), folder / "vq" / "model.safetensors")

    def build() -> Showo:
        backbone = Showo(str(folder), image_tokenizer="vq", max_text_len=12)
        backbone.build()
        return backbone

    return build


@pytest.fixture(scope="module")
def backbone(load: Callable[[], Showo]) -> Iterator[Showo]:
    backbone = load()
    yield backbone
    assert all(p.grad is None for p in backbone.parameters())


@pytest.fixture(scope="module")
def rollout(backbone: Showo) -> Rollout:
    """Two groups of two images; the first and the last image are correct."""
    prompts, questions = [e.prompt for e in EXAMPLES], [e.question for e in EXAMPLES]
    images = backbone.sample_images(prompts, SAMPLING, seeded())
    answers = backbone.sample_answers(images, questions, AnswerSampling(4))
    scores = torch.tensor([1.0, 0.5, 0.0, 1.0])
    return Rollout(EXAMPLES, images, answers, scores, {"keyword": scores}, scores == 1, 2)


def gradients(backbone: Showo, loss: Tensor) -> Gradients:
    weights = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {n: torch.zeros_like(w) if s is None else s for (n, w), s in zip(weights.items(), grads, strict=True)}


def close(got: Gradients, expected: Gradients) -> None:
    for name, grad in expected.items():
        torch.testing.assert_close(got[name], grad, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def accepting(rollout: Rollout, *rows: bool) -> Rollout:
    return dataclasses.replace(rollout, accepted=torch.tensor(rows))


def run(rule: SFT, backbone: Showo, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor], Gradients]:
    loss, logs = rule.loss(backbone, rollout, SAMPLING, seeded(1))
    return loss, logs, gradients(backbone, loss)


def paper_loss(backbone: Showo, rollout: Rollout, detach: bool = False) -> Tensor:
    """-mean log p(target answer | straight-through image, question)."""
    images = backbone.straight_through(rollout.prompts, rollout.images, SAMPLING, 1.0, 2, seeded(1))
    assert images.soft is not None
    images = dataclasses.replace(images, soft=images.soft.detach() if detach else images.soft)
    target = backbone.tokenize_answers([example.answer for example in rollout.examples])
    return -masked_mean(backbone.answer_log_probs(images, rollout.questions, target), target.mask)


def test_end_to_end_is_the_papers_loss(backbone: Showo, rollout: Rollout) -> None:
    _, logs, got = run(SFT(end_to_end=True, answer_labels="prompt"), backbone, rollout)
    expected = paper_loss(backbone, rollout)
    close(got, gradients(backbone, expected))
    torch.testing.assert_close(logs["loss/image"], expected.detach())
    torch.testing.assert_close(logs["loss/answer"], expected.detach())


@pytest.mark.parametrize(("image", "answer"), [(1.0, 0.0), (0.0, 1.0), (0.3, 2.0)])
def test_end_to_end_weights(image: float, answer: float, backbone: Showo, rollout: Rollout) -> None:
    rule = SFT(end_to_end=True, answer_labels="prompt", image_weight=image, answer_weight=answer)
    loss, _, got = run(rule, backbone, rollout)
    whole, beside = (gradients(backbone, paper_loss(backbone, rollout, detach)) for detach in (False, True))
    close(got, {name: image * (whole[name] - beside[name]) + answer * beside[name] for name in whole})
    assert any((whole[name] - beside[name]).abs().max() > 1e-4 for name in whole)
    torch.testing.assert_close(loss.detach(), (image + answer) * paper_loss(backbone, rollout).detach())


def test_end_to_end_trains_answers_about_accepted_images_only(backbone: Showo, rollout: Rollout) -> None:
    only = SFT(end_to_end=True, image_weight=0.0)
    _, logs, got = run(only, backbone, rollout)
    target = backbone.tokenize_answers([e.answer for e in EXAMPLES[::3]])
    scored = backbone.answer_log_probs(rollout.images[::3], [e.question for e in EXAMPLES[::3]], target)
    expected = -masked_mean(scored, target.mask)
    torch.testing.assert_close(logs["loss/answer"], expected.detach())
    close(got, gradients(backbone, expected))
    _, logs, got = run(only, backbone, accepting(rollout, *[False] * 4))
    assert logs["loss/answer"] == 0
    assert all((grad == 0).all() for grad in got.values())


@pytest.mark.parametrize("guidance", [None, 0.0])
def test_rejection_trains_accepted_images_and_their_answers(
    guidance: float | None, backbone: Showo, rollout: Rollout
) -> None:
    rule = SFT(end_to_end=False, image_weight=0.5, answer_weight=2.0, num_masks=3, loss_guidance=guidance)
    loss, logs, got = run(rule, backbone, rollout)
    examples, images = EXAMPLES[::3], rollout.images[::3]
    policy = dataclasses.replace(SAMPLING, guidance=SAMPLING.guidance if guidance is None else guidance)
    log_probs, weights = backbone.image_log_likelihood([e.prompt for e in examples], images, policy, 3, seeded(1))
    image = -(log_probs * weights).sum(1)
    target = backbone.tokenize_answers([e.answer for e in examples])
    scored = backbone.answer_log_probs(images, [e.question for e in examples], target)
    expected = 0.5 * image.mean() - 2.0 * scored.sum() / target.mask.sum()
    torch.testing.assert_close(loss.detach(), expected.detach())
    torch.testing.assert_close(logs["loss/image"], image.mean().detach())
    close(got, gradients(backbone, expected))


@pytest.mark.parametrize("num_masks", [1, 2])
def test_rejected_images_do_not_matter(num_masks: int, backbone: Showo, rollout: Rollout) -> None:
    rule = SFT(end_to_end=False, num_masks=num_masks)
    codes = rollout.images.codes.clone()
    codes[1:3] = (codes[1:3] + 7) % 64
    changed = dataclasses.replace(rollout, images=dataclasses.replace(rollout.images, codes=codes))
    first, second = run(rule, backbone, rollout), run(rule, backbone, changed)
    assert first[0] == second[0]
    close(first[2], second[2])
    assert run(rule, backbone, accepting(rollout, True, True, False, True))[0] != first[0]


def test_rejection_of_everything(backbone: Showo, rollout: Rollout) -> None:
    none = accepting(rollout, *[False] * 4)
    loss, logs, got = run(SFT(end_to_end=False), backbone, none)
    assert loss == logs["loss/image"] == logs["loss/answer"] == 0
    assert len(got) == len(list(backbone.transformer.parameters()))
    assert all((grad == 0).all() for grad in got.values())
    answers_all, _, got = run(SFT(end_to_end=False, answer_labels="prompt"), backbone, none)
    assert answers_all > 0
    assert any(grad.abs().max() > 0 for grad in got.values())


def test_prompts_that_always_succeed_have_weight_0(backbone: Showo, rollout: Rollout) -> None:
    """All of the second group is accepted, so only the accepted image of the first group is trained."""
    saturated = accepting(rollout, True, False, True, True)
    _, logs, got = run(SFT(end_to_end=False, answer_weight=0.0), backbone, saturated)
    log_probs, weights = backbone.image_log_likelihood([EXAMPLES[0].prompt], rollout.images[:1], SAMPLING, 1, seeded(1))
    expected = -(log_probs * weights).sum()
    torch.testing.assert_close(logs["loss/image"], expected.detach())
    close(got, gradients(backbone, expected))
    _, every, _ = run(SFT(end_to_end=False, answer_weight=0.0, weight_by_failure_rate=False), backbone, saturated)
    assert every["loss/image"] != logs["loss/image"]


@pytest.mark.parametrize("end_to_end", [True, False])
@pytest.mark.parametrize("labels", ["prompt", "accepted", "self", "posterior"])
def test_dropped_samples_do_not_matter(
    end_to_end: bool, labels: LabelSource, backbone: Showo, rollout: Rollout
) -> None:
    posterior = PosteriorLabels(min_posterior=0.0)  # every label is trained
    rule = SFT(end_to_end=end_to_end, answer_labels=labels, posterior=posterior, weight_by_failure_rate=False)
    dropped = dataclasses.replace(rollout, weights=torch.tensor([1.0, 1.0, 1.0, 0.0]))
    whole, less = run(rule, backbone, rollout), run(rule, backbone, dropped)
    assert whole[0] != less[0]
    all_dropped = dataclasses.replace(rollout, weights=torch.zeros(4))
    assert all((grad == 0).all() for grad in run(rule, backbone, all_dropped)[2].values())


def test_failure_rate_counts_dropped_samples(backbone: Showo, rollout: Rollout) -> None:
    accepted = dataclasses.replace(accepting(rollout, *[True] * 4), weights=torch.tensor([1.0, 0.0, 1.0, 0.0]))
    _, logs, _ = run(SFT(end_to_end=False, answer_weight=0.0), backbone, accepted)
    assert logs["loss/image"] == 0


@pytest.mark.parametrize(
    ("rule", "needs"),
    [
        (SFT(end_to_end=True), True),
        (SFT(end_to_end=True, answer_labels="prompt"), False),
        (SFT(end_to_end=True, answer_weight=0.0), False),
        (SFT(end_to_end=False, answer_labels="prompt"), True),
        (SFT(end_to_end=False, answer_labels="self", image_weight=0.0), False),
    ],
)
def test_learns_from_accepted(rule: SFT, needs: bool) -> None:
    assert rule.learns_from_accepted == needs


@pytest.mark.parametrize("end_to_end", [True, False])
def test_own_answers(end_to_end: bool, backbone: Showo, rollout: Rollout) -> None:
    rule = SFT(end_to_end=end_to_end, image_weight=0.0, answer_labels="self")
    _, logs, got = run(rule, backbone, rollout)
    said = backbone.answer_log_probs(rollout.images, [e.question for e in EXAMPLES], rollout.answers)
    expected = -masked_mean(said, rollout.answers.mask)
    torch.testing.assert_close(logs["loss/answer"], expected.detach())
    close(got, gradients(backbone, expected))


@pytest.mark.parametrize("end_to_end", [True, False])
def test_the_loss_falls(end_to_end: bool, load: Callable[[], Showo], rollout: Rollout) -> None:
    backbone, rule = load(), SFT(end_to_end=end_to_end)
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], 1e-3)
    losses = []
    for _ in range(20):
        loss, _ = rule.loss(backbone, rollout, SAMPLING, seeded(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is None for p in backbone.image_tokenizer.parameters())


class Rigid(Backbone):
    """Has no straight-through codes."""


Rigid.__abstractmethods__ = frozenset()


def test_a_backbone_without_straight_through_codes_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"Rigid has none; set end_to_end: false"):
        SFT(end_to_end=True).check(Rigid(), 2, SAMPLING)
    SFT().check(Rigid(), 2, SAMPLING)
    SFT(end_to_end=True).check(Showo("not built yet"), 2, SAMPLING)
    with pytest.raises(TypeError, match="Rigid has no straight-through codes"):
        Rigid().straight_through([], None, SAMPLING)


def test_a_group_of_one_has_no_failure_rate() -> None:
    with pytest.raises(UserError, match=r"group_size is 1, so every weight would be 0; take 2 or more"):
        SFT().check(Rigid(), 1, SAMPLING)
    SFT(end_to_end=False, weight_by_failure_rate=False).check(Rigid(), 1, SAMPLING)
    SFT(end_to_end=False, image_weight=0.0).check(Rigid(), 1, SAMPLING)


@pytest.mark.parametrize(
    "setting", [{"temperature": 0.0}, {"temperature": -1.0}, {"straight_through_steps": 0}, {"num_masks": 0}]
)
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        SFT(**setting)


def test_answers_have_the_kl_penalty_of_grpo(load: Callable[[], Showo], rollout: Rollout) -> None:
    moved, nothing = (
        load(),
        dataclasses.replace(rollout, scores=torch.zeros(4), accepted=torch.zeros(4, dtype=torch.bool)),
    )
    rules = SFT(answer_weight=0.0, answer_beta=0.5), GRPO(answer_weight=0.0, kl=KLPenalty(answer_beta=0.5))
    for rule in rules:
        rule.attach(moved)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(torch.randn(weight.shape, generator=seeded(), dtype=torch.float32), alpha=0.02)
    (loss, metrics), (expected, others) = (rule.loss(moved, nothing, SAMPLING, seeded(1)) for rule in rules)
    assert metrics["kl/answer"] > 0
    torch.testing.assert_close(metrics["kl/answer"], others["kl/answer"])
    torch.testing.assert_close(loss, 0.5 * metrics["kl/answer"])
    close(gradients(moved, loss), gradients(moved, expected))
    unmoved = SFT(answer_beta=0.5)
    unmoved.attach(moved)
    assert unmoved.loss(moved, rollout, SAMPLING, seeded(1))[1]["kl/answer"] == 0
