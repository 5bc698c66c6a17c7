"""FSDP2: float32 shards, gathered in the type of the policy; gradients of unequal ranks; what is gathered is freed."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from unirl.backbones import Backbone
from unirl.distributed.fsdp2 import finish_backward, shard, unsharded
from unirl.distributed.strategies import mixed_precision_policy
from unirl.testing.tiny_backbone import TinyBackbone
from unirl.types import ImageSampling

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from processes import run_processes

PROMPTS = ["a circle", "two squares", "a red star"]
SAMPLING = ImageSampling(steps=2, guidance=0.5)


def in_process_group(function: Callable[[], Any]) -> Callable[[Path], Any]:
    def wrapped(folder: Path) -> Any:
        dist.init_process_group("gloo")
        try:
            return function()
        finally:
            dist.destroy_process_group()

    return wrapped


def tiny() -> TinyBackbone:
    backbone = TinyBackbone()
    backbone.build()
    return backbone


def loss_of(backbone: Backbone, count: int) -> Tensor:
    """The negative mean log-probability of the first images."""
    images = backbone.sample_images(PROMPTS, SAMPLING, torch.Generator().manual_seed(0))
    log_probs, _ = backbone.image_log_probs(PROMPTS[:count], images[:count], SAMPLING)
    return -log_probs.mean()


def gradients(backbone: Backbone) -> dict[str, Tensor]:
    finish_backward(backbone)
    grads = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    return {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in grads.items()}


@pytest.mark.parametrize(
    "policy", [mixed_precision_policy("bf16-mixed"), MixedPrecisionPolicy(reduce_dtype=torch.float32)]
)
def test_shards_are_float32_and_gradients_are_those_of_the_whole_model(
    policy: MixedPrecisionPolicy, tmp_path: Path
) -> None:
    """Ranks score 1 and 3 images. A reduce_dtype once lost all gradients."""

    @in_process_group
    def run() -> tuple[set[torch.dtype], set[torch.dtype], dict[str, Tensor], dict[str, Tensor]]:
        whole, sharded = tiny(), tiny()
        shard(sharded, mp_policy=policy)
        with torch.autocast("cpu", torch.bfloat16, policy.param_dtype is not None, cache_enabled=False):
            (loss_of(whole, 1) / 2 + loss_of(whole, 3) / 2).backward()
            loss_of(sharded, 1 + 2 * dist.get_rank()).backward()
        with unsharded(sharded):
            gathered = {p.dtype for block in sharded.modules() for p in block._parameters.values() if p is not None}
        grads = gradients(sharded)
        dtypes = {p.dtype for p in sharded.parameters()} | {grad.dtype for grad in grads.values()}
        return dtypes, gathered, gradients(whole), grads

    for dtypes, gathered, expected, grads in run_processes(run, tmp_path):
        assert dtypes == {torch.float32}
        assert (torch.bfloat16 in gathered) == (policy.param_dtype is not None)
        assert not any(grad.any() for name, grad in grads.items() if name not in expected)
        flat, flat_expected = (torch.cat([part[name].flatten() for name in expected]) for part in (grads, expected))
        exact = policy.param_dtype is None
        assert torch.cosine_similarity(flat, flat_expected, 0) > (0.99999 if exact else 0.99)
        assert flat_expected.norm() > 0


def test_a_loss_while_all_weights_are_gathered_is_refused(tmp_path: Path) -> None:
    """A score, and pixels of soft codes."""

    @in_process_group
    def run() -> tuple[str, str, bool]:
        backbone = tiny()
        images = backbone.sample_images(PROMPTS[:1], SAMPLING)
        soft = backbone.straight_through(PROMPTS[:1], images, SAMPLING)
        shard(backbone)
        with unsharded(backbone):
            with pytest.raises(RuntimeError) as score:
                loss_of(backbone, 1)
            with pytest.raises(RuntimeError) as pixels:
                backbone.decode(soft)
            with torch.no_grad():
                is_finite = bool(backbone.decode(soft).isfinite().all())
        return str(score.value), str(pixels.value), is_finite

    for score, pixels, is_finite in run_processes(run, tmp_path):
        assert score.startswith("image_log_probs with gradient")
        assert pixels.startswith("decode with gradient")
        assert is_finite
