"""The estimate of memory, and what it reads from models and settings."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.doctor.memory import FLOAT, ModelSizes, StepWorkload, estimate_memory
from unirl.doctor.resources import sizes_in_training, step_workload
from unirl.rewards.keyword import Keyword
from unirl.training import RolloutConfig, SelfImprovement
from unirl.types import ImageSampling
from unirl.updates.grpo import GRPO

SIZES = ModelSizes(
    num_params=1000,
    num_trainable=800,
    num_reference=0,
    num_layers=4,
    hidden_size=8,
    layer_activations=144,
    kv_size=16,
    vocab_size=50,
    image_tokens=16,
    codebook_size=32,
    vision_activations=0,
    decoder_width=0,
)


def test_weights_are_full_in_a_step_and_optimizer_states_are_sharded() -> None:
    one, four = (estimate_memory(SIZES, StepWorkload(2, num_shards=n, unsharded=n > 1)) for n in (1, 4))
    assert four.weights == one.weights * 1.25  # the full weights and the shards of this rank
    assert four.gradients == one.gradients
    assert four.optimizer == one.optimizer / 4


def test_a_full_reference_and_full_gradients_do_not_exist_at_once() -> None:
    sizes = replace(SIZES, num_reference=1000)
    estimate = estimate_memory(sizes, StepWorkload(2, num_shards=2, unsharded=True))
    assert estimate.reference == FLOAT * 500
    assert estimate.gradients == FLOAT * (400 + 1000)


def test_gradient_checkpointing_keeps_inputs_and_one_layer() -> None:
    estimate = estimate_memory(SIZES, StepWorkload(2, scores_answers=False, prompt_tokens=0))
    tokens = 2 * (16 + 4)
    assert estimate.activations == FLOAT * tokens * 144 * (4 + 1)
    assert estimate.checkpointed_activations == FLOAT * tokens * (8 * 4 + 144 * 2)


def test_only_a_micro_batch_has_activations() -> None:
    two, eight = (estimate_memory(SIZES, StepWorkload(count)) for count in (2, 8))
    parts = estimate_memory(SIZES, StepWorkload(8, loss_images=2))
    assert (parts.activations, parts.logits) == (two.activations, two.logits)
    assert parts.checkpointed_activations == two.checkpointed_activations
    assert parts.sampling == eight.sampling
    assert workload(Janus, loss_batch_size=2).scored_images == 2
    assert workload(Janus).scored_images == 4


def workload(backbone: type, **options: int) -> StepWorkload:
    sampling = RolloutConfig(image_sampling=ImageSampling(steps=16), **options)  # type: ignore[arg-type]
    model = SelfImprovement(backbone("nowhere"), GRPO(), [Keyword()], rollout=sampling)
    data = SimpleNamespace(val_examples=[], prompts_per_step=1, val_batch_size=1)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(
        num_devices=1, num_nodes=1, limit_val_batches=0, strategy=strategy, precision="32-true"
    )
    return step_workload(model, data, trainer)


def test_only_a_masked_model_is_scored_once_for_each_sampling_step() -> None:
    for backbone, passes in ((Showo, 16), (Janus, 1)):
        step = workload(backbone)
        assert (step.image_passes, step.code_passes) == (passes, 1), backbone


def test_a_vision_encoder_is_not_counted_as_layers_of_the_language_model() -> None:
    model = SelfImprovement(Janus("unirl_shapes:checkpoints/janus"), GRPO(), [Keyword()])
    model.backbone.build(meta=True)
    sizes = sizes_in_training(model)
    assert sizes.num_layers == 4
    assert sizes.vision_activations > 0
    assert sizes.gradient_checkpointing
