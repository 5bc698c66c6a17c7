"""Micro-batches: the same losses, logs and weights as with all images of a step at once, by Lightning's own means."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.distributed.tensor import DTensor

from unirl import Answers, Example, Images, ImageSampling, Rollout, SelfImprovement, UserError
from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.distributed.strategies import register
from unirl.functional import zero_loss
from unirl.prompts import Prompts
from unirl.rewards import Reward
from unirl.testing import TinyBackbone
from unirl.updates import GRPO, SFT, ImageScoring, KLPenalty, PolicyLoss, PosteriorLabels, UpdateRule

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))  # tests are not a package

from processes import run_processes

KL = KLPenalty(beta=0.1, answer_beta=0.5)
MASKS = ImageScoring("random_masks", num_masks=2)
RULES: dict[str, Callable[[], UpdateRule]] = {
    "grpo": lambda: GRPO(answer_labels="self", loss=PolicyLoss(reduction="token"), kl=KL),
    "grpo, random masks": lambda: GRPO(scoring=MASKS),
    "sft": lambda: SFT(num_masks=2),
    "sft, posterior": lambda: SFT(num_masks=2, answer_labels="posterior", posterior=PosteriorLabels(min_posterior=0.0)),
    "sft, end to end": lambda: SFT(end_to_end=True, straight_through_steps=2),
}


class Striped(Reward):
    """Likes and accepts some images, by their codes."""

    accept_threshold = 0.5

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return (images.codes.sum(1) % 3) / 2


class Recorder(SelfImprovement):
    """Records losses."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


@pytest.fixture
def fit(runs, shapes_checkpoint: Path, janus_checkpoint: Path):
    """The losses, the logs and the weights of a run of two training steps on one rollout."""
    backbones: dict[str, Callable[[], Backbone]] = {
        "tiny": TinyBackbone,
        "showo": lambda: Showo(str(shapes_checkpoint)),
        "janus": lambda: Janus(str(janus_checkpoint)),
    }

    def run(
        folder: Path,
        name: str,
        rule: str,
        loss_batch_size: int | None = None,
        reward: Reward | None = None,
        prompts: Prompts | None = None,
        **trainer: Any,
    ) -> dict[str, Any]:
        model = runs.module(
            backbones[name](),
            RULES[rule](),
            [reward or Striped()],
            Recorder,
            group_size=3,
            image_sampling=ImageSampling(3, guidance=0.5),
            num_iterations=2,
            loss_batch_size=loss_batch_size,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.01),
        )
        options = {"limit_val_batches": 0, "max_steps": 2, "enable_checkpointing": False, "gradient_clip_val": 1.0}
        runs.trainer(folder, **(options | trainer)).fit(model, runs.data(prompts))
        weights = {name: p.detach() for name, p in model.backbone.named_parameters() if p.requires_grad}
        weights = {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in weights.items()}
        return {"losses": model.losses, "logs": dict(model.trainer.callback_metrics), "weights": weights}

    return run


def assert_equal(result: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert expected["logs"]["loss"] != 0
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("backbone", "rule"),
    [
        *(("tiny", rule) for rule in RULES),
        *(("showo", rule) for rule in RULES if rule != "grpo"),
        ("janus", "sft, end to end"),
    ],
)
def test_micro_batches_train_as_the_whole_step(backbone: str, rule: str, fit, tmp_path: Path) -> None:
    assert_equal(fit(tmp_path, backbone, rule, loss_batch_size=4), fit(tmp_path, backbone, rule))


def test_gradients_of_several_batches_accumulate(fit, tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": 2, "max_steps": 1}
    assert_equal(fit(tmp_path, "tiny", "sft", 4, **options), fit(tmp_path, "tiny", "sft", **options))


def test_a_loss_scaler_scales_each_micro_batch(fit, tmp_path: Path) -> None:
    def run(loss_batch_size: int | None) -> dict[str, Any]:
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
        return fit(tmp_path, "tiny", "sft", loss_batch_size, plugins=plugin, gradient_clip_val=None)

    assert_equal(run(4), run(None), tolerance=1e-3)


class OnFirstRank(Striped):
    """The same; the other ranks have nothing to learn."""

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return super().score(examples, images, answers) * (dist.get_rank() == 0)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_several_processes(strategy: str, fit, runs, tmp_path: Path) -> None:
    """The ranks have unequally many questions about an image."""

    def run(folder: Path) -> list[list[dict[str, Any]]]:
        register()
        options: dict[str, Any] = {"strategy": strategy, "devices": 2, "reward": OnFirstRank()}
        options["prompts"] = runs.question_sets()
        return [
            [fit(folder, "tiny", rule, size, **options) for size in (2, None)] for rule in ("grpo, random masks", "sft")
        ]

    for results in run_processes(run, tmp_path):
        for parts, whole in results:
            assert_equal(parts, whole)


class OneNumber(UpdateRule):
    """A rule of before `loss_unit`."""

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return zero_loss(backbone), {}


def test_a_rule_without_a_loss_unit_is_refused(runs) -> None:
    assert runs.module(TinyBackbone(), OneNumber(), [Striped()]).loss_batch_size is None
    with pytest.raises(UserError, match="loss_batch_size 4: OneNumber computes its loss of all images at once"):
        runs.module(TinyBackbone(), OneNumber(), [Striped()], loss_batch_size=4)
    with pytest.raises(UserError, match="loss_batch_size 0; it must be from 1"):
        runs.module(TinyBackbone(), SFT(), [Striped()], loss_batch_size=0)


@pytest.mark.parametrize(("size", "expected"), [(2, 3), (4, 3), (7, 6)])
def test_a_sum_over_groups_is_split_into_whole_groups(size: int, expected: int, runs) -> None:
    class Grouped(OneNumber):
        loss_unit = "group"

    assert (
        runs.module(TinyBackbone(), Grouped(), [Striped()], group_size=3, loss_batch_size=size).loss_batch_size
        == expected
    )
