"""Whole runs on the pretend accelerator: every rule, reward, metric and callback leaves tensors where they belong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from tests.training.conftest import Runs
from tests.training.pretend_trainer import on_pretend_device

from unirl import ExportPretrained, ImageSampling, LogImages, ResultsTable
from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.callbacks import Guards, QualityControl
from unirl.rewards.attribute import Attribute
from unirl.rewards.keyword import Keyword
from unirl.rewards.likelihood import Likelihood
from unirl.rewards.oracle import Oracle
from unirl.testing.pretend import is_supported, pretend_accelerator
from unirl.types import AnswerSampling
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO, KLPenalty
from unirl.updates.sft import SFT
from unirl_emu3.backbone import Emu3
from unirl_emu3.tiny import save as save_emu3
from unirl_shapes.judge import ShapesJudge

pytestmark = pytest.mark.skipif(not is_supported(), reason="this PyTorch has no Python backend for PrivateUse1")
STEP_BUDGET = 100
"""Waits of a training step that depend neither on its images nor on the model; 70 to 83 when this was written."""


class Observer(Callback):
    """Waits for the device in the last training step, and where tensors are at the end."""

    def on_train_batch_start(self, *_: Any) -> None:
        self.counting = self.accelerator.count()
        self.counts = self.counting.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self.counting.__exit__(None, None, None)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tensors = dict(pl_module.named_parameters()) | dict(pl_module.named_buffers())
        states = [state["exp_avg"] for state in trainer.optimizers[0].state.values()]
        self.devices = {tensor.device.type for tensor in [*tensors.values(), *states]}
        self.trained = len(states)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, shapes_checkpoint: Path, janus_checkpoint: Path):
    emu3 = save_emu3(tmp_path_factory.mktemp("emu3"))
    vit = tmp_path_factory.mktemp("timm")
    model = timm.create_model("test_vit", img_size=64, num_classes=3)
    timm.models.save_for_hf(model, vit, model_args={"img_size": 64}, safe_serialization=True)
    return {"showo": shapes_checkpoint, "janus": janus_checkpoint, "emu3": emu3, "timm": vit}


KINDS: dict[str, Callable[[str], Backbone]] = {
    "showo": Showo,
    "janus": Janus,
    "emu3": lambda path: Emu3(path, image_area=64 * 64),
}
RULES: dict[str, Callable[[], UpdateRule]] = {
    "sft": lambda: SFT(answer_labels="prompt"),
    "end to end": lambda: SFT(end_to_end=True, straight_through_steps=2),
    "grpo": lambda: GRPO(kl=KLPenalty(beta=0.1)),
}
RUNS = [("showo", "end to end"), ("showo", "grpo"), ("janus", "sft"), ("janus", "grpo"), ("emu3", "grpo")]


@pytest.mark.parametrize(("kind", "rule"), RUNS, ids=map(", ".join, RUNS))
def test_a_run_on_a_device(kind: str, rule: str, runs: Runs, folders: dict[str, Path], tmp_path: Path) -> None:
    everything = (kind, rule) == ("showo", "grpo")
    observer = Observer()
    callbacks: list[Callback] = [Guards(), QualityControl(max_saturation=0.9), observer]
    options: dict[str, Any] = {"limit_val_batches": 0, "enable_checkpointing": False}
    module_options: dict[str, Any] = {}
    rewards = [Keyword(), Likelihood(standardize=True)]
    if everything:
        callbacks += [ModelCheckpoint(tmp_path, save_last=True), LogImages(2), ResultsTable(), ExportPretrained()]
        options = {"logger": CSVLogger(tmp_path)}
        rewards += [Attribute(), Oracle(ShapesJudge())]
        module_options = {"judge": ShapesJudge(), "num_understanding": 4, "num_iterations": 2}
        module_options |= {"num_diversity_prompts": 1, "diversity_model": str(folders["timm"])}
    with pretend_accelerator() as observer.accelerator:
        module = runs.module(
            KINDS[kind](str(folders[kind])),
            RULES[rule](),
            rewards,
            accept_threshold=0.0,
            image_sampling=ImageSampling(2, guidance=1.0),
            answer_sampling=AnswerSampling(3, temperature=1.0),
            **module_options,
        )
        device = on_pretend_device(observer.accelerator.device)
        options |= {"accelerator": "auto", "max_steps": 2, "gradient_clip_val": 1.0, "callbacks": callbacks}
        trainer = runs.trainer(tmp_path, **options | device)
        trainer.fit(module, runs.data(prompts_per_step=1, steps_per_epoch=2, num_val_prompts=2, val_batch_size=2))
    assert observer.devices == {"pretend"}
    assert observer.trained
    assert observer.counts.waits.total() <= STEP_BUDGET, observer.counts.waits.most_common(8)
    if everything:
        checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert {tensor.device.type for tensor in checkpoint["state_dict"].values()} == {"cpu"}
        assert next(tmp_path.glob("**/pretrained/model.safetensors")).is_file()
