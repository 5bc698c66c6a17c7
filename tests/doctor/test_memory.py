"""The estimate of memory says what the parts of a run hold."""

from dataclasses import replace
from types import SimpleNamespace as Made

import pytest
import torch

from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.doctor.memory import FLOAT, Shape, Step, estimate, shape_of
from unirl.doctor.needs import adapted, step_of
from unirl.rewards.keyword import Keyword
from unirl.sampling import packing
from unirl.training.module import SelfImprovement
from unirl.types import ImageSampling
from unirl.updates.grpo import GRPO

SHAPE = Shape(
    weights=1000,
    trained=800,
    reference=0,
    layers=4,
    width=8,
    row=144,
    cached=16,
    vocabulary=50,
    length=16,
    codebook=32,
    tower=0,
    painted=0,
)


def test_sharded_weights_are_whole_in_a_step_and_optimizer_states_never_are() -> None:
    one, four = (estimate(SHAPE, Step(2, shards=n, gathered=n > 1)) for n in (1, 4))
    assert four.weights == one.weights * 1.25  # all of it, and the process's own share
    assert four.gradients == one.gradients
    assert four.optimizer == one.optimizer / 4


def test_a_gathered_reference_takes_turns_with_the_gradients() -> None:
    shape = replace(SHAPE, reference=1000)
    found = estimate(shape, Step(2, shards=2, gathered=True))
    assert found.reference == FLOAT * 500
    assert found.gradients == FLOAT * (400 + 1000)


def test_a_cpu_packs_large_layers_for_drawing() -> None:
    shape = replace(SHAPE, packed=500)
    plain, packed = estimate(shape, Step(2)), estimate(shape, Step(2, packs=True))
    assert packed == replace(plain, rollout=plain.rollout + FLOAT * 500)


def test_recomputation_keeps_inputs_and_one_layer() -> None:
    found = estimate(SHAPE, Step(2, learns_answer=False, prompt=0))
    rows = 2 * (16 + 4)
    assert found.activations == FLOAT * rows * 144 * (4 + 1)
    assert found.recomputed == FLOAT * rows * (8 * 4 + 144 * 2)


def step_on(device: str, precision: str, kind: type = Showo) -> Step:
    model = SelfImprovement(kind("nowhere"), GRPO(), [Keyword()], sampling=ImageSampling(steps=16))
    data = Made(examples=[], prompts_per_step=1, val_batch_size=1)
    strategy = Made(root_device=torch.device(device))
    trainer = Made(num_devices=1, num_nodes=1, limit_val_batches=0, strategy=strategy, precision=precision)
    return step_of(model, data, trainer)


@pytest.mark.parametrize(("kind", "contexts"), [(Showo, 16), (Janus, 1)])
def test_only_a_masked_model_is_scored_in_the_context_of_each_step(kind: type, contexts: int) -> None:
    step = step_on("cpu", "32-true", kind)
    assert (step.num_masks, step.scored) == (contexts, 1)


@pytest.mark.parametrize(
    ("device", "precision", "packs"),
    [("cpu", "32-true", True), ("cpu", "bf16-mixed", False), ("cpu", "bf16-true", False), ("cuda", "32-true", False)],
)
def test_weights_are_packed_on_a_cpu_in_full_precision_only(device: str, precision: str, packs: bool) -> None:
    assert step_on(device, precision).packs is packs


def test_a_tower_that_looks_at_pictures_is_no_layer_of_the_language_model() -> None:
    model = SelfImprovement(Janus("unirl_shapes:checkpoints/janus"), GRPO(), [Keyword()])
    model.backbone.build(meta=True)
    shape = adapted(model)
    assert shape.layers == 4
    assert shape.tower > 0


def test_small_layers_are_not_counted_as_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Showo("unirl_shapes:checkpoints/showo")
    backbone.build(meta=True)
    assert shape_of(backbone).packed == 0
    monkeypatch.setattr(packing, "LARGE", 190 * 128)
    layers, head = backbone.transformer.phi.model.layers, backbone.transformer.phi.lm_head
    assert shape_of(backbone).packed == 2 * 128 * 512 * len(layers) + head.weight.numel()
