"""Short training runs of either backbone by either rule, on the CPU, with nothing saved and nothing validated."""

from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.distributed.strategies import register
from unirl.rewards.likelihood import Likelihood
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts

RULES = ("sft", "sft through", "grpo")
STEPS = 2
"""Training steps of a run: before the first one's end there are no optimizer states."""


def backbone(kind: str, folder: Path, gradient_checkpointing: bool = False) -> Backbone:
    """Not built yet."""
    kinds = {"showo": Showo, "janus": Janus}
    return kinds[kind](str(folder), gradient_checkpointing=gradient_checkpointing)


def rule(name: str) -> UpdateRule:
    """SFT beside the drawing and through it, and GRPO with a reference; each learns from all drawings and answers."""
    if name == "grpo":
        return GRPO(beta=0.1, answers="all", likelihood="random_masks")
    return SFT(end_to_end=name == "sft through", straight_through_steps=1, weight_by_failure_rate=False, answers="all")


def model(made: Backbone, name: str, group: int) -> SelfImprovement:
    """Accepts every drawing, so that there is something to learn from an untrained model's."""
    sampling = ImageSampling(steps=1, guidance=1.75)
    settings: dict[str, Any] = {"group_size": group, "sampling": sampling, "answering": AnswerSampling(6)}
    return SelfImprovement(made, rule(name), [Likelihood()], accept_threshold=0.0, diversity_prompts=0, **settings)


def data(prompts: int) -> PromptsDataModule:
    return PromptsDataModule(ShapesPrompts(), prompts_per_step=prompts, steps_per_epoch=STEPS, num_val_prompts=8)


def trainer(
    folder: Path, strategy: str = "auto", devices: int = 1, steps: int = STEPS, watch: Callback | None = None
) -> Trainer:
    """Of a short run."""
    register()
    return Trainer(
        accelerator="cpu",
        strategy=strategy,
        devices=devices,
        default_root_dir=folder,
        max_steps=steps,
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        callbacks=watch,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
