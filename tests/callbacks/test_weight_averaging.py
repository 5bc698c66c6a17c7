"""Lightning's EMAWeightAveraging: the average is validated and exported, and survives a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor

from unirl.backbones.showo import Showo
from unirl.callbacks import ExportPretrained
from unirl.rewards.likelihood import Likelihood
from unirl.training import EvaluationConfig, PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

DECAY = 0.5
WEIGHT = "backbone.transformer.phi.model.layers.0.self_attn.q_proj.weight"

pytestmark = pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")


class RecordWeight(Callback):
    """Records one weight after each training step and in each validation batch."""

    def __init__(self) -> None:
        self.trained: list[Tensor] = []
        self.validated: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.trained.append(pl_module.get_parameter(WEIGHT).detach().clone())

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.validated.append(pl_module.get_parameter(WEIGHT).detach().clone())


def run(checkpoint: Path, folder: Path, ckpt_path: Path | None = None) -> RecordWeight:
    """Four steps and a validation, with a checkpoint of each step."""
    recorded = RecordWeight()
    model = SelfImprovement(
        Showo(str(checkpoint)),
        SFT(end_to_end=False),
        [Likelihood()],
        ShapesJudge(),
        RolloutConfig(image_sampling=ImageSampling(steps=2), answer_sampling=AnswerSampling(3), accept_threshold=0.0),
        EvaluationConfig(num_understanding=6, num_diversity_prompts=0),
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2),
        exclude_frozen_parameters=True,
    )
    data = PromptsDataModule(
        ShapesPrompts(), prompts_per_step=2, steps_per_epoch=4, num_val_prompts=6, val_batch_size=6
    )
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        callbacks=[
            recorded,
            EMAWeightAveraging(decay=DECAY),
            ExportPretrained(),
            ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1),
        ],
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return recorded


@pytest.fixture(scope="module")
def uninterrupted(shapes_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RecordWeight, Path]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return run(shapes_checkpoint, folder), folder


def test_the_average_is_validated_and_exported(uninterrupted: tuple[RecordWeight, Path]) -> None:
    recorded, folder = uninterrupted
    average = recorded.trained[0]
    for weight in recorded.trained[1:]:
        average = DECAY * average + (1 - DECAY) * weight
    torch.testing.assert_close(recorded.validated[-1], average)
    assert not torch.equal(average, recorded.trained[-1])  # training continues from the weights themselves
    exported = Showo.from_pretrained(str(folder / "lightning_logs" / "version_0" / "pretrained"))
    torch.testing.assert_close(exported.get_parameter(WEIGHT.removeprefix("backbone.")).detach(), average)


def test_a_resumed_run_continues_the_average(
    uninterrupted: tuple[RecordWeight, Path], shapes_checkpoint: Path, tmp_path: Path
) -> None:
    expected, folder = uninterrupted
    resumed = run(shapes_checkpoint, tmp_path, folder / "step=2.ckpt")
    assert len(resumed.trained) == 2
    assert all(map(torch.equal, resumed.trained, expected.trained[2:]))
    assert torch.equal(resumed.validated[-1], expected.validated[-1])
