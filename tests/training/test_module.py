"""Whole runs of the loop on a tiny untrained Show-o: what trains, what repeats, what is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl import hookimpl
from unirl.backbones.showo import Showo
from unirl.callbacks import ExportPretrained, LogImages, ResultsTable
from unirl.errors import UserError
from unirl.metrics.self_reward import SelfRewardAccuracy
from unirl.rewards import Reward
from unirl.rewards.keyword import Keyword
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts


class Dark(Reward):
    """Likes dark pictures; accepts everything, so that every step learns something."""

    needs_pixels = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return 2 - images.pixels.mean((1, 2, 3))


class Broken(Reward):
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.full((len(examples),), float("nan"))


def module(checkpoint: Path, reward: Reward | None = None, **options: object) -> SelfImprovement:
    settings: dict = {"group_size": 2, "sampling": ImageSampling(steps=4), "answering": AnswerSampling(4), "lr": 1e-3}
    update = options.pop("update", SFT(end_to_end=False))
    return SelfImprovement(Showo(str(checkpoint)), update, [reward or Dark()], **(settings | options))  # type: ignore[arg-type]


def data(**options: int) -> PromptsDataModule:
    settings = {"prompts_per_step": 2, "steps_per_epoch": 3, "held_out": 12, "val_batch_size": 6}
    return PromptsDataModule(ShapesPrompts(), **(settings | options))


def trainer(folder: Path, **options: object) -> Trainer:
    settings: dict = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "max_epochs": 2}
    settings |= {"use_distributed_sampler": False, "inference_mode": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, **(settings | options))  # type: ignore[arg-type]


class Recorder(SelfImprovement):
    """Keeps what was asked and drawn, and the losses."""

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.seen = [*getattr(self, "seen", []), ([e.prompt for e in batch], loss.item())]
        return loss


def run(
    checkpoint: Path, folder: Path, ckpt_path: Path | None = None, max_steps: int = -1, **options: object
) -> Recorder:
    model = module(checkpoint, **options)
    model.__class__ = Recorder
    assert isinstance(model, Recorder)
    saving = ModelCheckpoint(folder, "step-{step}", every_n_train_steps=1, save_top_k=-1, auto_insert_metric_name=False)
    fit = trainer(folder, limit_val_batches=0, max_steps=max_steps, callbacks=[saving])
    fit.fit(model, data(), ckpt_path=ckpt_path)
    return model


def test_same_seed_same_run_and_other_seed_another(shapes_checkpoint: Path, tmp_path: Path) -> None:
    first, again, other = (run(shapes_checkpoint, tmp_path / str(i), seed=s) for i, s in enumerate((0, 0, 1)))
    assert first.seen == again.seen
    assert [loss for _, loss in first.seen] != [loss for _, loss in other.seen]


@pytest.mark.parametrize("updates", [1, 3])
def test_resume_in_the_middle_of_an_epoch_is_the_same_run(
    updates: int, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """With three updates a rollout, the run stops between the first and the second one."""
    whole = run(shapes_checkpoint, tmp_path / "whole", num_iterations=updates)
    head = run(shapes_checkpoint, tmp_path / "head", max_steps=4, num_iterations=updates)
    saved = tmp_path / "head" / "step-4.ckpt"
    tail = run(shapes_checkpoint, tmp_path / "tail", ckpt_path=saved, num_iterations=updates)
    assert len(whole.seen) == 6
    assert head.seen + tail.seen == whole.seen
    assert ("rollout" in torch.load(saved, weights_only=True)) == (updates > 1)


def test_a_rollout_of_a_version_that_did_not_keep_what_was_accepted_is_drawn_afresh(
    shapes_checkpoint: Path, tmp_path: Path
) -> None:
    run(shapes_checkpoint, tmp_path / "head", max_steps=4, num_iterations=3)
    saved = tmp_path / "head" / "step-4.ckpt"
    checkpoint = torch.load(saved, weights_only=True)
    del checkpoint["rollout"][0].__dict__["accepted"]
    torch.save(checkpoint, saved)
    tail = run(shapes_checkpoint, tmp_path / "tail", ckpt_path=saved, num_iterations=3)
    assert len(tail.seen) == 2


def test_grpo_with_a_reference_and_old_policies_resumes_exactly(shapes_checkpoint: Path, tmp_path: Path) -> None:
    """The reference is the base and not what the checkpoint holds; the log-probabilities of drawing come back."""

    def grpo() -> dict[str, object]:
        return {"update": GRPO(beta=0.1, answers="all", likelihood="random_masks"), "num_iterations": 3}

    whole = run(shapes_checkpoint, tmp_path / "whole", **grpo())
    head = run(shapes_checkpoint, tmp_path / "head", max_steps=4, **grpo())
    tail = run(shapes_checkpoint, tmp_path / "tail", ckpt_path=tmp_path / "head" / "step-4.ckpt", **grpo())
    assert head.seen + tail.seen == whole.seen
    assert [loss for _, loss in whole.seen][1] != 0


@pytest.mark.parametrize("sampling", [ImageSampling(4), ImageSampling(6, guidance=1.5, temperature=0.7)])
def test_grpo_scores_what_was_sampled(sampling: ImageSampling, shapes_checkpoint: Path, tmp_path: Path) -> None:
    model = module(shapes_checkpoint, update=GRPO(), sampling=sampling)
    model.configure_model()
    model.trainer = trainer(tmp_path)  # type: ignore[assignment]
    rollout = model.rollout(ShapesPrompts().held_out(2))
    scored, _ = model.backbone.image_log_probs(rollout.prompts, rollout.images, sampling)
    torch.testing.assert_close(scored.detach(), rollout.images.log_probs, atol=1e-5, rtol=0)
    said = model.backbone.answer_log_probs(rollout.images, rollout.questions, rollout.answers)
    torch.testing.assert_close(said.detach(), rollout.answers.log_probs, atol=1e-5, rtol=0)


def test_several_updates_learn_from_the_same_drawings(
    shapes_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, learnt = [], []
    draw, learn = SelfImprovement.rollout, SFT.loss
    monkeypatch.setattr(SelfImprovement, "rollout", lambda m, b: drawn.append(draw(m, b)) or drawn[-1])
    monkeypatch.setattr(SFT, "loss", lambda s, b, r, *rest: learnt.append(r.images.codes) or learn(s, b, r, *rest))
    run(shapes_checkpoint, tmp_path, num_iterations=4)
    assert len(drawn) == 2
    assert [torch.equal(codes, drawn[i // 4].images.codes) for i, codes in enumerate(learnt)] == [True] * 6


@pytest.mark.parametrize(("schedule", "last"), [("constant_with_warmup", 1.0), ("linear", 0.0), ("cosine", 0.0)])
def test_the_learning_rate_stays_or_falls(schedule: str, last: float, shapes_checkpoint: Path, tmp_path: Path) -> None:
    model = module(shapes_checkpoint, lr_schedule=schedule, warmup_steps=2)
    rates: list[float] = []
    model.optimizer_zero_grad = lambda *_: rates.append(model.optimizers().param_groups[0]["lr"])  # type: ignore
    fit = trainer(tmp_path, limit_val_batches=0)
    fit.fit(model, data())
    assert rates[:3] == pytest.approx([0, 0.5e-3, 1e-3])
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(last * 1e-3)


def test_training_changes_the_transformer_and_never_the_image_tokenizer(
    shapes_checkpoint: Path, tmp_path: Path
) -> None:
    before, after = Showo.from_pretrained(str(shapes_checkpoint)), run(shapes_checkpoint, tmp_path).backbone
    for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        if name.startswith("image_tokenizer"):
            assert torch.equal(old, new), name
    moved = [not torch.equal(a, b) for a, b in zip(before.transformer.parameters(), after.parameters(), strict=False)]
    assert any(moved)


def test_end_to_end_runs_and_learns_from_every_drawing(shapes_checkpoint: Path, tmp_path: Path) -> None:
    model = module(shapes_checkpoint, Keyword(), update=SFT(end_to_end=True, answers="all"))
    trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(model, data())
    assert model.trainer.global_step == 3


def test_fit_measures_draws_and_exports(shapes_checkpoint: Path, tmp_path: Path) -> None:
    results, model = ResultsTable(), module(shapes_checkpoint, judge=ShapesJudge(), num_understanding=12)
    callbacks = [results, LogImages(count=4), ExportPretrained()]
    fit = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=-1, callbacks=callbacks)
    fit.fit(model, data())
    assert set(results.before["drawing"]) == {*ShapesPrompts.categories, "overall"}
    assert set(results.now.get("consistency", {})) <= {"mmu_given_t2i", "t2i_given_mmu", "imbalance"}
    assert 0.5 < results.now["diversity"]["codes"] <= 1  # an untrained model draws anything
    assert set(results.now["seeing"]) == {*ShapesPrompts.categories, "overall"}
    assert [path.name for path in sorted((tmp_path / "pictures").iterdir())] == ["step-000000.png", "step-000003.png"]
    assert len(Showo.from_pretrained(str(tmp_path / "pretrained")).sample_images(["a photo of a ring"], model.sampling))


def test_plugins_are_told_what_was_measured(shapes_checkpoint: Path, tmp_path: Path) -> None:
    told: list[dict[str, float]] = []

    class Listener(Callback):
        @hookimpl
        def unirl_validated(self, metrics: dict[str, float]) -> None:
            told.append(dict(metrics))

    model = module(shapes_checkpoint, judge=ShapesJudge(), num_understanding=6, diversity_prompts=3)
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=-1, callbacks=[Listener()]).fit(model, data())
    assert len(told) == 2
    assert {"generation/overall", "understanding/overall", "diversity/codes"} <= set(told[0])
    assert all(isinstance(value, float) for value in told[1].values())


def test_groups_differ_within_and_pixels_are_only_decoded_for_who_needs_them(
    shapes_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = module(shapes_checkpoint, Keyword(), group_size=3)
    model.configure_model()
    model.trainer = trainer(tmp_path)  # type: ignore[assignment]
    monkeypatch.setattr(model.backbone, "decode", lambda images: pytest.fail("nobody needs pixels"))
    rollout = model.rollout(ShapesPrompts().held_out(2))
    assert [e.prompt for e in rollout.examples[:3]] == [rollout.examples[0].prompt] * 3
    assert not torch.equal(rollout.images.codes[0], rollout.images.codes[1])


@pytest.mark.parametrize(
    ("accept", "shares"), [(None, [0.0, 1.0]), (1.9, [0.0, 1.0]), (2.1, [0.0, 0.0]), (0.0, [1.0, 1.0])]
)
def test_learning_and_measuring_share_one_verdict(
    accept_threshold: float | None, shares: list[float], shapes_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    critic: list[list[bool]] = []
    heard = SelfRewardAccuracy.update
    monkeypatch.setattr(SelfRewardAccuracy, "update", lambda s, a, *rest: critic.append(a.tolist()) or heard(s, a, *rest))
    for truth, share in zip((0.0, 1.0), shares, strict=True):
        critic.clear()
        model = SelfImprovement(
            Showo(str(shapes_checkpoint)),
            SFT(end_to_end=False),
            [Fixed(truth, 1.0), Fixed(0.9)],
            judge=ShapesJudge(),
            group_size=2,
            sampling=ImageSampling(steps=2),
            answering=AnswerSampling(2),
            accept_threshold=accept_threshold,
            num_understanding=0,
            diversity_prompts=0,
        )
        fit = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
        fit.fit(model, data(steps_per_epoch=1))
        assert fit.callback_metrics["train/accepted"] == share
        assert critic
        assert all(one == bool(share) for batch in critic for one in batch)


class Fixed(Reward):
    """Always gives the same."""

    def __init__(self, value: float, accept_threshold: float | None = None) -> None:
        super().__init__()
        self.value, self.accept_threshold = value, accept_threshold

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.full((len(examples),), self.value)


class Souring(Dark):
    """Gives nonsense from its third rollout on."""

    def __init__(self, nonsense: object = None) -> None:
        super().__init__()
        self.asked, self.nonsense = 0, nonsense

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        self.asked += 1
        if self.asked < 3:
            return super().score(examples, images, answers)
        if isinstance(self.nonsense, Exception):
            raise self.nonsense
        return self.nonsense  # type: ignore[return-value]


@pytest.mark.parametrize("nonsense", [None, torch.ones(5), torch.full((4,), float("nan")), OSError("gone")], ids=str)
def test_a_reward_that_fails_stops_the_run_with_its_name_and_the_last_checkpoint_goes_on(
    nonsense: object, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="reward 'souring'"):
        run(shapes_checkpoint, tmp_path, reward=Souring(nonsense))
    whole = run(shapes_checkpoint, tmp_path / "whole")
    resumed = run(shapes_checkpoint, tmp_path / "resumed", ckpt_path=tmp_path / "step-2.ckpt")
    assert resumed.seen == whole.seen[2:]


def test_what_is_standardized_is_compared_so_and_each_reward_is_logged(shapes_checkpoint: Path, tmp_path: Path) -> None:
    wide = Dark(weight=100.0)
    wide.standardize = True
    model = module(shapes_checkpoint, wide, update=GRPO(answer_weight=0.0))
    fit = trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    fit.fit(model, data(steps_per_epoch=1))
    rollout = model._rollout
    assert rollout is not None
    first, second, *_ = rollout.advantage_rewards.tolist()
    assert first == pytest.approx(-second, rel=0.02)
    assert 25 < abs(first) < 100 * 0.5**0.5  # in standard deviations, but for epsilon
    torch.testing.assert_close(fit.callback_metrics["train/reward_dark"], rollout.score_parts["dark"].mean())
    torch.testing.assert_close(fit.callback_metrics["reward"], 100 * rollout.score_parts["dark"].mean())


def test_settings_that_cannot_train_are_refused(shapes_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="group_size 0"):
        module(shapes_checkpoint, group_size=0)
    with pytest.raises(UserError, match="num_iterations 0"):
        module(shapes_checkpoint, num_iterations=0)
    with pytest.raises(UserError, match="rewards is empty"):
        SelfImprovement(Showo(str(shapes_checkpoint)), SFT(), [])
    with pytest.raises(UserError, match="every weight in rewards is 0"):
        SelfImprovement(Showo(str(shapes_checkpoint)), SFT(), [Keyword(weight=0.0)])
    with pytest.raises(UserError, match="group_size is 1"):
        module(shapes_checkpoint, update=GRPO(), group_size=1)
    with pytest.raises(UserError, match="prompts_per_step 0"):
        data(prompts_per_step=0)


def test_what_training_sees_has_no_pictures() -> None:
    batch = next(iter(data().train_dataloader()))
    assert len(batch) == 2
    for example in batch:
        values = [getattr(example, name) for name in example.__dataclass_fields__]
        assert all(isinstance(value, str | tuple) for value in values)


@pytest.mark.parametrize("update", [SFT(end_to_end=True, straight_through_steps=2), GRPO(beta=0.1, likelihood="random_masks")])
def test_it_trains_with_weights_of_16_bits(update: object, shapes_checkpoint: Path, tmp_path: Path) -> None:
    model = module(shapes_checkpoint, update=update)
    fit = trainer(tmp_path, max_steps=2, limit_val_batches=0, precision="bf16-true", enable_checkpointing=False)
    fit.fit(model, data())
    assert next(model.backbone.parameters()).dtype == torch.bfloat16
    assert fit.callback_metrics["loss"].isfinite()
