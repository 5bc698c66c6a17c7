"""Checks of what a run needs: memory of a device and space for checkpoints, from the model on the meta device."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer

from unirl.backbones.checkpoints import describe_error
from unirl.backbones.lora import select_trainable
from unirl.doctor.environment import check_disk, log_folder, max_checkpoints
from unirl.doctor.findings import Finding, format_bytes
from unirl.doctor.memory import FLOAT, MemoryEstimate, ModelSizes, StepWorkload, estimate_memory, model_sizes
from unirl.errors import UserError

TOKENS_PER_WORD = 1.5
"""Upper bound of the average."""
SHARDING_STRATEGIES = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


def check_resources(model: Any, data: Any, trainer: Trainer) -> Iterator[Finding]:
    """Check the memory of a device and the space for checkpoints.

    Args:
        model: A `SelfImprovement` whose backbone is not built. It is built on the meta device: do not train it.
        data: A `PromptsDataModule`.
        trainer: Of the run.
    """
    folder = log_folder(trainer)
    try:
        model.backbone.build(meta=True)
    except Exception as error:  # backbones of plugins may not support the meta device
        yield Finding("warning", "memory", f"no estimate, because build(meta=True) failed: {describe_error(error)}")
        yield from check_disk(folder)
        return
    try:
        sizes = sizes_in_training(model)
    except UserError as error:
        yield Finding("error", "model", str(error))
        yield from check_disk(folder)
        return
    yield _check_memory(estimate_memory(sizes, step_workload(model, data, trainer)), sizes, trainer)
    saved = sizes.num_trainable if getattr(model, "exclude_frozen_parameters", False) else sizes.num_params
    checkpoint_bytes = FLOAT * (saved + 2 * sizes.num_trainable)
    yield from check_disk(folder, checkpoint_bytes, max_checkpoints(trainer))


def sizes_in_training(model: Any) -> ModelSizes:
    """Freeze parameters and add adapters on the meta device as `fit` does, and read the sizes.

    Args:
        model: A `SelfImprovement` whose backbone is built on the meta device.

    Raises:
        UserError: `trainable_modules` or `lora` do not fit the model.
    """
    select_trainable(model.backbone, model.trainable_modules, model.lora)
    rule = copy.deepcopy(model.update)
    rule.attach(model.backbone)
    return model_sizes(model.backbone, rule)


def step_workload(model: Any, data: Any, trainer: Trainer) -> StepWorkload:
    """What one device computes in a step, from the settings and the workload of the update rule.

    Args:
        model: A `SelfImprovement` whose backbone is built, perhaps on the meta device.
        data: A `PromptsDataModule`.
        trainer: Of the run.
    """
    devices, strategy = trainer.num_devices * trainer.num_nodes, type(trainer.strategy).__name__
    rollout, backbone = model.rollout, model.backbone
    rule = model.update.workload(backbone, rollout.image_sampling)
    prompt_tokens, answer_tokens = _longest(data)
    return StepWorkload(
        images=max(1, data.prompts_per_step // devices) * rollout.group_size,
        loss_images=model.loss_batch_size,
        val_images=data.val_batch_size if trainer.limit_val_batches else 0,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens + rollout.answer_sampling.max_tokens,
        image_passes=rule.image_passes,
        code_passes=rule.code_passes,
        guided=rule.guided,
        scores_answers=rule.scores_answers,
        decodes=model.rollouts.needs_pixels,
        straight_through=rule.straight_through and backbone.understands_pixels,
        num_shards=devices if strategy in SHARDING_STRATEGIES else 1,
        unsharded=strategy == "ModelParallelStrategy",
        activation_bytes=2 if "16" in str(trainer.precision) else FLOAT,
    )


def _longest(data: Any) -> tuple[int, int]:
    """Tokens of the longest prompt, and of the longest question with its correct answer."""
    words = [(len(e.prompt.split()), len(f"{e.question} {e.answer}".split())) for e in data.val_examples]
    prompt, answer = (int(TOKENS_PER_WORD * max(counts)) + 2 for counts in zip(*(words or [(16, 16)]), strict=True))
    return prompt, answer


def _check_memory(estimate: MemoryEstimate, sizes: ModelSizes, trainer: Trainer) -> Finding:
    peak = estimate.peak(sizes.gradient_checkpointing)
    parts = {
        "weights": estimate.weights,
        "gradients": estimate.gradients,
        "optimizer": estimate.optimizer,
        "reference": estimate.reference,
    }
    constant = ", ".join(f"{format_bytes(count)} {name}" for name, count in parts.items() if count)
    checkpointed = format_bytes(estimate.checkpointed_activations)
    activations = f"{format_bytes(estimate.activations)} activations ({checkpointed} with gradient_checkpointing)"
    temporary = f"{activations}, {format_bytes(estimate.logits)} logits; sampling {format_bytes(estimate.sampling)}"
    text = f"about {format_bytes(peak)} a device: {constant}, {temporary}"
    available = _available_memory(trainer)
    if available and peak > available:
        advice = (
            "lower model.rollout.loss_batch_size, data.prompts_per_step, model.rollout.group_size, the update rule's "
            "num_masks or data.val_batch_size; set the backbone's gradient_checkpointing or model.lora; or use fsdp2 "
            "on more devices"
        )
        return Finding("warning", "memory", f"{text}; {format_bytes(available)} are available", advice)
    return Finding("ok", "memory", text)


def _available_memory(trainer: Trainer) -> float:
    """Bytes of a device; 0 if not known."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            available = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
    except OSError:
        return 0.0
    return float(available[1]) * 1024 / trainer.num_devices if available else 0.0
