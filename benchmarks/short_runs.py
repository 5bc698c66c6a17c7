"""Short training runs of either backbone with either update rule on the CPU, without checkpoints and validation."""

from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.distributed.strategies import register
from unirl.rewards.likelihood import Likelihood
from unirl.training import EvaluationConfig, PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO, ImageScoring, KLPenalty
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts

RULES = ("sft", "sft end_to_end", "grpo")
STEPS = 2
"""Training steps of a run. Optimizer states exist from the end of the first one."""


def make_backbone(name: str, folder: Path, gradient_checkpointing: bool = False) -> Backbone:
    """Not built yet."""
    classes = {"showo": Showo, "janus": Janus}
    return classes[name](str(folder), gradient_checkpointing=gradient_checkpointing)


def make_rule(name: str) -> UpdateRule:
    """Each trains on all images and answers; GRPO has a reference."""
    if name == "grpo":
        return GRPO(answer_labels="self", kl=KLPenalty(beta=0.1), scoring=ImageScoring("random_masks"))
    end_to_end = name == "sft end_to_end"
    return SFT(end_to_end=end_to_end, straight_through_steps=1, weight_by_failure_rate=False, answer_labels="prompt")


def make_model(backbone: Backbone, rule: str, group_size: int) -> SelfImprovement:
    """Accepts every image, so that there is something to train on from an untrained model."""
    sampling = ImageSampling(steps=1, guidance=1.75)
    return SelfImprovement(
        backbone,
        make_rule(rule),
        [Likelihood()],
        rollout=RolloutConfig(
            group_size, image_sampling=sampling, answer_sampling=AnswerSampling(6), accept_threshold=0.0
        ),
        evaluation=EvaluationConfig(num_diversity_prompts=0),
    )


def make_data(prompts: int) -> PromptsDataModule:
    return PromptsDataModule(ShapesPrompts(), prompts_per_step=prompts, steps_per_epoch=STEPS, num_val_prompts=8)


def make_trainer(
    folder: Path, strategy: str = "auto", devices: int = 1, steps: int = STEPS, callback: Callback | None = None
) -> Trainer:
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
        callbacks=callback,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
