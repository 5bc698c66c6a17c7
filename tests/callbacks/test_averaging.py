"""EMA of the weights is Lightning's own callback: what it does here is what its name says."""

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
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

DECAY = 0.5
WATCHED = "backbone.transformer.phi.model.layers.0.self_attn.q_proj.weight"


class Watch(Callback):
    """Keeps one weight, as it is after each step, and as it is measured."""

    def __init__(self) -> None:
        self.trained: list[Tensor] = []
        self.measured: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.trained.append(pl_module.get_parameter(WATCHED).detach().clone())

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.measured.append(pl_module.get_parameter(WATCHED).detach().clone())


def run(checkpoint: Path, folder: Path, steps: int, ckpt_path: Path | None = None) -> Watch:
    watch = Watch()
    sampling = {"sampling": ImageSampling(steps=2), "answering": AnswerSampling(3)}
    small = {"accept": 0.0, "num_understanding": 6, "diversity_prompts": 0, "lr": 1e-2}
    model = SelfImprovement(
        Showo(str(checkpoint)), SFT(end_to_end=False), [Likelihood()], ShapesJudge(), **sampling, **small
    )
    data = PromptsDataModule(ShapesPrompts(), prompts_per_step=2, steps_per_epoch=4, num_val_prompts=6, val_batch_size=6)
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=1,
        max_steps=steps,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        callbacks=[watch, EMAWeightAveraging(decay=DECAY), ExportPretrained(), saving],
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return watch


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")
def test_the_average_is_measured_and_exported_and_training_goes_on_from_the_weights(
    shapes_checkpoint: Path, tmp_path: Path
) -> None:
    watch = run(shapes_checkpoint, tmp_path, 4)
    average = watch.trained[0]
    for weight in watch.trained[1:]:
        average = DECAY * average + (1 - DECAY) * weight
    torch.testing.assert_close(watch.measured[-1], average)
    assert not torch.equal(average, watch.trained[-1])
    exported = Showo.from_pretrained(str(tmp_path / "lightning_logs" / "version_0" / "pretrained"))
    torch.testing.assert_close(exported.get_parameter(WATCHED.removeprefix("backbone.")).detach(), average)


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")
def test_a_resumed_run_averages_on(shapes_checkpoint: Path, tmp_path: Path) -> None:
    whole = run(shapes_checkpoint, tmp_path / "whole", 4)
    run(shapes_checkpoint, tmp_path / "head", 2)
    tail = run(shapes_checkpoint, tmp_path / "tail", 4, tmp_path / "head" / "step=2.ckpt")
    assert len(tail.trained) == 2
    assert all(map(torch.equal, tail.trained, whole.trained[2:]))
    assert torch.equal(tail.measured[-1], whole.measured[-1])
