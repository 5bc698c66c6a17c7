"""Whole runs on a tiny untrained Show-o: what trains, what is reproducible, what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl import (
    Answers,
    Example,
    ExportPretrained,
    Images,
    ImageSampling,
    LogImages,
    PromptsDataModule,
    ResultsTable,
    SelfImprovement,
    UserError,
    hookimpl,
    validate,
)
from unirl.backbones.showo import Showo
from unirl.metrics.self_reward import SelfRewardAccuracy
from unirl.rewards import Reward
from unirl.rewards.keyword import Keyword
from unirl.testing import TinyBackbone
from unirl.training.rollout import Rollouts
from unirl.updates.answer_labels import PosteriorLabels
from unirl.updates.grpo import GRPO, ImageScoring, KLPenalty
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

AS_MASKS = ImageScoring(likelihood="random_masks")


class Dark(Reward):
    """Likes dark images; accepts everything, so that every step trains something."""

    needs_pixels = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return 2 - images.pixels.mean((1, 2, 3))


class InOrder(Reward):
    """Likes later samples more: known scores, whatever an untrained model draws on this machine."""

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.arange(len(examples), dtype=torch.float32)


class Recorder(SelfImprovement):
    """Records prompts and losses."""

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.steps = [*getattr(self, "steps", []), ([e.prompt for e in batch], loss.item())]
        return loss


@pytest.fixture
def module(runs, shapes_checkpoint: Path):
    def make(reward: Reward | None = None, **options: Any) -> SelfImprovement:
        update = options.pop("update", None) or SFT(end_to_end=False)
        return runs.module(Showo(str(shapes_checkpoint)), update, [reward or Dark()], **options)

    return make


@pytest.fixture
def fit(runs, module):
    """A run of two epochs of three steps, with a checkpoint after each step."""

    def run(
        folder: Path, ckpt_path: Path | None = None, max_steps: int = -1, accumulated: int = 1, **options: Any
    ) -> Recorder:
        prompts = options.pop("prompts", None)
        model = module(kind=Recorder, **options)
        name = {"filename": "step-{step}", "auto_insert_metric_name": False}
        saving = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, **name)
        limits = {"limit_val_batches": 0, "max_steps": max_steps, "accumulate_grad_batches": accumulated}
        trainer = runs.trainer(folder, callbacks=[saving], **limits)
        trainer.fit(model, runs.data(prompts), ckpt_path=ckpt_path)
        return model

    return run


def sampled(runs, model: SelfImprovement, folder: Path, group_size: int = 2) -> Any:
    """A rollout of an untrained model on two held-out prompts."""
    model.configure_model()
    model.trainer = runs.trainer(folder)  # type: ignore[assignment]
    config = model.rollout
    rngs = model.rng("images"), model.rng("answers")
    examples = ShapesPrompts().held_out(2)
    return model.rollouts.sample(examples, config.image_sampling, config.answer_sampling, *rngs, group_size)


def test_the_seed_decides_the_run(fit, tmp_path: Path) -> None:
    first, same, other = (fit(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1)))
    assert first.steps == same.steps
    assert [loss for _, loss in first.steps] != [loss for _, loss in other.steps]


def grpo() -> GRPO:
    return GRPO(answer_labels="self", kl=KLPenalty(beta=0.1), scoring=AS_MASKS)


def posterior() -> SFT:
    labels = PosteriorLabels(num_candidates=3, min_posterior=0.0)
    return SFT(image_weight=0.0, answer_labels="posterior", posterior=labels, answer_images="reference")


@pytest.mark.parametrize(("rule", "iterations"), [(None, 1), (None, 3), (grpo, 3), (posterior, 3)])
def test_a_resumed_run_is_the_same_run(rule, iterations: int, fit, runs, tmp_path: Path) -> None:
    """Resumed in the middle of an epoch; with three iterations, between the first and the second one.

    The reference of GRPO is the base model and not that of the checkpoint; old log-probabilities and labels are
    restored. So are the answers to several questions about an image.
    """

    def run(name: str, **options: Any) -> Recorder:
        prompts = runs.question_sets() if rule else None
        return fit(tmp_path / name, num_iterations=iterations, update=rule and rule(), prompts=prompts, **options)

    saved = tmp_path / "head" / "step-4.ckpt"
    complete, head = run("complete"), run("head", max_steps=4)
    tail = run("tail", ckpt_path=saved)
    assert len(complete.steps) == 6
    assert head.steps + tail.steps == complete.steps
    assert rule is None or complete.steps[1][1] != 0
    assert ("rollouts" in torch.load(saved, weights_only=True)) == (iterations > 1)


@pytest.mark.parametrize("sampling", [ImageSampling(4), ImageSampling(6, guidance=1.5, temperature=0.7)])
def test_scored_decisions_are_the_sampled_ones(sampling: ImageSampling, runs, module, tmp_path: Path) -> None:
    model = module(update=GRPO(), image_sampling=sampling)
    rollout = sampled(runs, model, tmp_path)
    scored, _ = model.backbone.image_log_probs(rollout.prompts, rollout.images, sampling)
    torch.testing.assert_close(scored.detach(), rollout.images.log_probs, atol=1e-5, rtol=0)
    scored = model.backbone.answer_log_probs(rollout.images, rollout.questions, rollout.answers)
    torch.testing.assert_close(scored.detach(), rollout.answers.log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("iterations", "accumulated", "order"), [(4, 1, [0, 0, 0, 0, 1, 1]), (2, 2, [0, 1, 0, 2, 3, 2]), (1, 2, range(6))]
)
def test_several_iterations_use_one_rollout(
    iterations: int, accumulated: int, order: Sequence[int], fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an iteration sees the weights that the one before has changed, also where a step is two batches."""
    generated, trained, weights = [], [], []
    sample, loss = Rollouts.sample, SFT.loss

    def record(rule: SFT, backbone: Any, rollout: Any, *rest: Any) -> Any:
        trained.append(rollout.images.codes)
        weights.append((rollout.iteration, next(p for p in backbone.parameters() if p.requires_grad).sum().item()))
        return loss(rule, backbone, rollout, *rest)

    monkeypatch.setattr(Rollouts, "sample", lambda *a: generated.append(sample(*a)) or generated[-1])
    monkeypatch.setattr(SFT, "loss", record)
    fit(tmp_path, num_iterations=iterations, accumulated=accumulated)
    assert len(generated) == max(order) + 1
    assert [torch.equal(codes, generated[i].images.codes) for codes, i in zip(trained, order, strict=True)] == [
        True
    ] * 6
    for rollout in set(order):
        seen = [value for value, i in zip(weights, order, strict=True) if i == rollout]
        assert [iteration for iteration, _ in seen] == list(range(len(seen)))
        assert len(set(seen)) == len({weight for _, weight in seen})


def test_training_changes_the_transformer_and_never_the_image_tokenizer(
    fit, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    before, after = Showo.from_pretrained(str(shapes_checkpoint)).state_dict(), fit(tmp_path).backbone.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert not [name for name in changed if name.startswith("image_tokenizer")]


def test_end_to_end_trains_on_every_image(runs, module, tmp_path: Path) -> None:
    model = module(Keyword(), update=SFT(end_to_end=True, answer_labels="prompt"))
    runs.trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(model, runs.data())
    assert model.trainer.global_step == 3


def test_fit_measures_logs_images_and_exports(runs, module, tmp_path: Path) -> None:
    received: list[dict[str, float]] = []

    class Listener(Callback):
        @hookimpl
        def unirl_validated(self, metrics: dict[str, float]) -> None:
            received.append(dict(metrics))

    results, model = ResultsTable(), module(judge=ShapesJudge(), num_understanding=12)
    callbacks = [results, LogImages(count=4), ExportPretrained(), Listener()]
    runs.trainer(tmp_path, max_epochs=1, num_sanity_val_steps=-1, callbacks=callbacks).fit(model, runs.data())
    categories = {*ShapesPrompts.categories, "overall"}
    assert set(results.before["generation"]) == set(results.after["understanding"]) == categories
    assert set(results.after.get("consistency", {})) <= {"mmu_given_t2i", "t2i_given_mmu", "imbalance"}
    assert 0.5 < results.after["diversity"]["codes"] <= 1  # images of an untrained model differ
    assert [path.name for path in sorted((tmp_path / "images").iterdir())] == ["step-000000.png", "step-000003.png"]
    exported = Showo.from_pretrained(str(tmp_path / "pretrained"))
    assert len(exported.sample_images(["a photo of a ring"], model.rollout.image_sampling))
    assert len(received) == 2
    assert {"generation/overall", "understanding/overall", "diversity/codes"} <= set(received[0])
    assert all(isinstance(value, float) for value in received[1].values())


def test_pixels_are_decoded_only_where_they_are_needed(
    runs, module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = module(Keyword())
    monkeypatch.setattr(model.backbone, "decode", lambda images: pytest.fail("nothing needs pixels"))
    rollout = sampled(runs, model, tmp_path, group_size=3)
    assert [e.prompt for e in rollout.examples[:3]] == [rollout.examples[0].prompt] * 3
    assert not torch.equal(rollout.images.codes[0], rollout.images.codes[1])


class Fixed(Reward):
    """Always returns the same score."""

    def __init__(self, value: float, accept_threshold: float | None = None) -> None:
        super().__init__()
        self.value, self.accept_threshold = value, accept_threshold

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.full((len(examples),), self.value)


@pytest.mark.parametrize(
    ("threshold", "shares"), [(None, [0.0, 1.0]), (1.9, [0.0, 1.0]), (2.1, [0.0, 0.0]), (0.0, [1.0, 1.0])]
)
def test_training_and_evaluation_accept_the_same_samples(
    threshold: float | None,
    shares: list[float],
    runs,
    shapes_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[bool] = []
    update = SelfRewardAccuracy.update
    monkeypatch.setattr(
        SelfRewardAccuracy, "update", lambda s, a, *rest: measured.extend(a.tolist()) or update(s, a, *rest)
    )
    for value, share in zip((0.0, 1.0), shares, strict=True):
        measured.clear()
        model = runs.module(
            Showo(str(shapes_checkpoint)),
            SFT(end_to_end=False),
            [Fixed(value, 1.0), Fixed(0.9)],
            judge=ShapesJudge(),
            image_sampling=ImageSampling(2),
            accept_threshold=threshold,
            num_understanding=0,
            num_diversity_prompts=0,
        )
        trainer = runs.trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
        trainer.fit(model, runs.data(steps_per_epoch=1))
        assert trainer.callback_metrics["frac_accepted"] == share
        assert measured
        assert set(measured) == {bool(share)}


class Failing(Dark):
    """Fails from its third rollout on."""

    def __init__(self, failure: object = None) -> None:
        super().__init__()
        self.calls, self.failure = 0, failure

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        self.calls += 1
        if self.calls < 3:
            return super().score(examples, images, answers)
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure  # type: ignore[return-value]


def test_a_failing_reward_stops_the_run_by_name_and_the_last_checkpoint_resumes(fit, tmp_path: Path) -> None:
    failures = [None, torch.ones(5), torch.full((4,), float("nan")), OSError("gone")]
    for i, failure in enumerate(failures):
        with pytest.raises(UserError, match="reward 'failing'"):
            fit(tmp_path / str(i), reward=Failing(failure))
    complete, mended = fit(tmp_path / "complete"), Failing()
    mended.calls = -100
    resumed = fit(tmp_path / "resumed", ckpt_path=tmp_path / "0" / "step-2.ckpt", reward=mended)
    assert resumed.steps == complete.steps[2:]


def test_normalized_rewards_decide_advantages_and_each_reward_is_logged(runs, module, tmp_path: Path) -> None:
    wide = InOrder(weight=100.0)
    wide.standardize = True
    model = module(wide, update=GRPO(answer_weight=0.0))
    trainer = runs.trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    trainer.fit(model, runs.data(steps_per_epoch=1))
    rollout, metrics = model._current, trainer.callback_metrics
    assert rollout is not None
    assert rollout.advantage_rewards is not None
    high = 100 * 0.5 / (0.5**0.5 + 1e-4)  # in standard deviations, but for epsilon
    assert rollout.advantage_rewards.tolist() == pytest.approx([-high, high, -high, high], rel=1e-5)
    assert metrics["rewards/inorder/mean"] == rollout.score_parts["inorder"].mean() == 1.5
    assert metrics["reward"] == 150
    torch.testing.assert_close(metrics["reward_std"], rollout.scores.view(2, 2).std(1).mean())
    assert metrics["frac_reward_zero_std"] == 0
    assert metrics["completions/mean_length"] == rollout.answers.mask.sum(1).float().mean()
    assert metrics["grad_norm"] > 0
    assert metrics["learning_rate"] == pytest.approx(1e-3)
    torch.testing.assert_close(metrics["entropy/image"], -rollout.images.log_probs.mean())
    assert {"loss", "clip_ratio/image", "clip_ratio/answer"} <= set(metrics)


def test_settings_that_cannot_train_are_refused(runs, module, shapes_checkpoint: Path) -> None:
    refused = [
        ("group_size 0", {"group_size": 0}),
        ("num_iterations 0", {"num_iterations": 0}),
        ("num_understanding -1", {"num_understanding": -1}),
        ("model.rewards: every weight is 0", {"reward": Keyword(weight=0.0)}),
        ("group_size is 1", {"update": GRPO(), "group_size": 1}),
        ("trainable_modules: the list is empty", {"trainable_modules": []}),
        ("model.optimizer: lr 0.0", {"optimizer": lambda p: torch.optim.SGD(p, lr=0.0)}),
        ("model.optimizer: Invalid beta", {"optimizer": lambda p: torch.optim.AdamW(p, betas=(1.5, 0.9))}),
        ("model.lr_scheduler:", {"lr_scheduler": torch.optim.lr_scheduler.StepLR}),
    ]
    for message, options in refused:
        with pytest.raises(UserError, match=message):
            module(**options)
    with pytest.raises(UserError, match=r"model\.rewards: the list is empty"):
        SelfImprovement(Showo(str(shapes_checkpoint)), SFT(), [])
    with pytest.raises(UserError, match="prompts_per_step 0"):
        runs.data(prompts_per_step=0)


def test_classes_names_and_single_rewards_are_refused() -> None:
    backbone, update, rewards = TinyBackbone(), GRPO(), [Keyword()]
    refused = {
        "model.backbone: expected an object of class Backbone, got 'showo'": ("showo", update, rewards),
        "model.update: expected an object of class UpdateRule, got the class GRPO": (backbone, GRPO, rewards),
        "model.rewards: expected a list of objects of class Reward, got a Keyword": (backbone, update, Keyword()),
        "model.rewards: expected an object of class Reward, got 'keyword'": (backbone, update, ["keyword"]),
        "model.judge: expected an object of class Judge, got a Keyword": (backbone, update, rewards, Keyword()),
    }
    for message, arguments in refused.items():
        with pytest.raises(UserError, match=message):
            SelfImprovement(*arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"data\.prompts: expected an object of class Prompts, got 'shapes'"):
        PromptsDataModule("shapes")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="rewards: expected a list of objects of class Reward, got a Keyword"):
        validate(backbone, [], Keyword())  # type: ignore[arg-type]


def test_training_batches_hold_no_images(runs) -> None:
    batch = next(iter(runs.data().train_dataloader()))
    assert len(batch) == 2
    for example in batch:
        values = [getattr(example, name) for name in example.__dataclass_fields__]
        assert all(isinstance(value, str | tuple) for value in values)


@pytest.mark.parametrize("update", [SFT(end_to_end=True, straight_through_steps=2), grpo()])
def test_computation_in_16_bit(update: object, runs, module, tmp_path: Path) -> None:
    model = module(update=update)
    trainer = runs.trainer(
        tmp_path, max_steps=2, limit_val_batches=0, precision="bf16-mixed", enable_checkpointing=False
    )
    trainer.fit(model, runs.data())
    assert trainer.callback_metrics["loss"].isfinite()
