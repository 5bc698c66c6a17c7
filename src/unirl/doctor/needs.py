"""What a run will need in memory and on disk, from its model built on the meta device."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer

from unirl.backbones.checkpoints import reason
from unirl.backbones.lora import select_trainable
from unirl.doctor.checks import check_disk, kept_at_once, log_folder
from unirl.doctor.findings import Finding, size
from unirl.doctor.memory import FLOAT, Memory, Shape, Step, estimate, shape_of
from unirl.errors import UserError

TOKENS = 1.5
"""Tokens of a word, at most, on average."""
SHARED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


def check_needs(model: Any, data: Any, trainer: Trainer) -> Iterator[Finding]:
    """Memory of a device, and room for checkpoints. The model is built on the meta device: do not train it.

    Args:
        model: Its backbone is not built.
        data: Its prompts tell how long a prompt is.
        trainer: Of the run.
    """
    try:
        model.backbone.build(meta=True)
    except Exception as error:  # a plugin's may only know how to build with its weights
        yield Finding("warning", "memory", f"no estimate, for build(meta=True) says: {reason(error)}")
        yield from check_disk(log_folder(trainer))
        return
    try:
        shape = adapted(model)
    except UserError as error:
        yield Finding("error", "model", str(error))
    else:
        memory = estimate(shape, step_of(model, data, trainer))
        yield _fits(memory, shape, trainer)
        one = FLOAT * (shape.weights + 2 * shape.trained)
        yield from check_disk(log_folder(trainer), one, kept_at_once(trainer))
        return
    yield from check_disk(log_folder(trainer))


def adapted(model: Any) -> Shape:
    """Freeze and adapt a model on the meta device as `fit` does, and read its sizes.

    Args:
        model: A `SelfImprovement` whose backbone is built there.

    Raises:
        UserError: its config does not fit it.
    """
    select_trainable(model.backbone, model.trainable_modules, model.lora)
    rule = copy.deepcopy(model.update)
    rule.attach(model.backbone)
    return shape_of(model.backbone, rule)


def step_of(model: Any, data: Any, trainer: Trainer) -> Step:
    """What a device computes in a step, from the settings and from what the update rule says of itself.

    Args:
        model: A `SelfImprovement` whose backbone is built.
        data: A `PromptsDataModule`.
        trainer: Of the run.
    """
    devices, strategy = trainer.num_devices * trainer.num_nodes, type(trainer.strategy).__name__
    rollout, work = model.rollout, model.update.workload(model.backbone, model.rollout.image_sampling)
    prompt, answer = _longest(data)
    return Step(
        drawings=max(1, data.prompts_per_step // devices) * rollout.group_size,
        validated=data.val_batch_size if trainer.limit_val_batches else 0,
        prompt=prompt,
        answer=answer + rollout.answer_sampling.max_tokens,
        num_masks=max(1, work.image_passes),
        scored=work.code_passes,
        guided=work.guided,
        learns_drawing=bool(work.image_passes),
        learns_answer=work.scores_answers,
        painted=model.rollouts.needs_pixels,
        through=work.straight_through and model.backbone.understands_pixels,
        shards=devices if strategy in SHARED else 1,
        gathered=strategy == "ModelParallelStrategy",
        half=2 if "16" in str(trainer.precision) else FLOAT,
        packs=trainer.strategy.root_device.type == "cpu" and "32" in str(trainer.precision),
    )


def _longest(data: Any) -> tuple[int, int]:
    """Tokens of the longest prompt, and of the longest question with its right answer."""
    words = [(len(e.prompt.split()), len(f"{e.question} {e.answer}".split())) for e in data.val_examples]
    prompt, answer = (int(TOKENS * max(counts)) + 2 for counts in zip(*(words or [(16, 16)]), strict=True))
    return prompt, answer


def _fits(memory: Memory, shape: Shape, trainer: Trainer) -> Finding:
    need = memory.total(shape.recompute)
    held = f"{size(memory.weights)} weights, {size(memory.gradients)} gradients, {size(memory.optimizer)} optimizer"
    held += f", {size(memory.reference)} reference" if memory.reference else ""
    kept = f"{size(memory.activations)} activations ({size(memory.recomputed)} with recomputation)"
    drawing = f"{size(memory.logits)} logits; drawing {size(memory.rollout)}"
    text = f"about {size(need)} a device: {held}, {kept}, {drawing}"
    room = _room(trainer)
    if room and need > room:
        advice = (
            "fewer prompts_per_step, group_size, views or val_batch_size; recompute, lora, or FSDP over more devices"
        )
        return Finding("warning", "memory", f"{text}; there are {size(room)}", advice)
    return Finding("ok", "memory", text)


def _room(trainer: Trainer) -> float:
    """Bytes of a device; 0 where nobody knows."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            found = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
    except OSError:
        return 0.0
    return float(found[1]) * 1024 / trainer.num_devices if found else 0.0
