"""Checks that a backbone gives the same outputs when it is saved and loaded, copied or sharded."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.backbones.precision import cast_frozen_weights
from unirl.backbones.sampling_config import SamplingConfig
from unirl.distributed.fsdp2 import finish_backward, shard
from unirl.testing.backbone_settings import BackboneSettings, sampled_log_probs, with_pixels
from unirl.testing.comparison import make_generator, max_difference
from unirl.testing.subprocesses import SubprocessError, run_in_subprocesses
from unirl.types import AnswerSampling, Images, ImageSampling

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy")
PICKLE_PREFIXES = (b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK")
"""First bytes of Python's pickles and of PyTorch's zip files of pickles."""
WORLD_SIZE = 2
TIMEOUT = 600
"""Seconds after which ranks that wait for each other are killed."""


class WeightChecks(BackboneSettings):
    """The part of `BackboneConformance` on building, checkpoints, copies and shards."""

    def test_second_build_does_nothing(self, backbone: Backbone) -> None:
        """A second call of `build` keeps all parameters."""
        _perturb(backbone)
        before = {name: (id(p), p.detach().clone()) for name, p in backbone.named_parameters()}
        backbone.build()
        for name, parameter in backbone.named_parameters():
            identity, value = before.get(name, (0, parameter))
            unchanged = identity == id(parameter) and torch.equal(value, parameter)
            assert unchanged, f"build replaced {name!r} in a second call; return at once where the model is built"

    def test_blocks_are_in_the_model(self, backbone: Backbone) -> None:
        """`blocks` names classes of layers of the built model."""
        blocks: object = backbone.blocks
        assert isinstance(blocks, tuple), f"blocks is a {type(blocks).__name__}, expected a tuple of module classes"
        assert blocks, "blocks is empty; name the classes of the repeated layers"
        modules = {type(module) for module in backbone.modules()}
        for block in blocks:
            occurs = any(issubclass(module, block) for module in modules)
            assert occurs, f"blocks has {block.__name__}, but the built model has no such module"
            assert not isinstance(backbone, block), f"blocks has {block.__name__}, the backbone itself; name its layers"

    def test_meta_build_allocates_nothing(self) -> None:
        """The constructor creates no weights, and `build(meta=True)` creates them on the meta device."""
        backbone = self.make_unbuilt()
        if backbone is None:
            pytest.skip("make_unbuilt returns None")
        count = sum(p.numel() for p in backbone.parameters())
        assert not count, f"__init__ created {count} weights; store settings in __init__ and create modules in build"
        backbone.build(meta=True)
        parameters = dict(backbone.named_parameters())
        assert parameters, "build(meta=True) created no parameters; create every module on the meta device"
        allocated = [name for name, p in parameters.items() if not p.is_meta]
        assert not allocated, (
            f"build(meta=True) allocated {allocated[0]!r}; create every module on the meta device and load nothing"
        )

    def test_save_and_load_round_trip(self, backbone: Backbone, tmp_path: Path) -> None:
        """A loaded model equals the saved one, and checkpoints hold no pickles."""
        _perturb(backbone)
        backbone.sampling_config = SamplingConfig(ImageSampling(guidance=0.125), AnswerSampling(max_tokens=3))
        backbone.save_pretrained(tmp_path)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        for path in files:
            pickled = path.suffix in PICKLE_SUFFIXES or path.read_bytes()[:2] in PICKLE_PREFIXES
            assert not pickled, f"save_pretrained wrote the pickle {path.name}; write weights as safetensors"
        has_weights = any(path.suffix == ".safetensors" for path in files)
        names = sorted(path.name for path in files)
        assert has_weights, f"save_pretrained wrote {names}, expected a .safetensors file"
        loaded = type(backbone).from_pretrained(str(tmp_path))
        changed = _changed_tensors(backbone, loaded)
        assert not changed, f"from_pretrained loaded {changed} with other values than save_pretrained saved"
        self._assert_same_outputs(backbone, loaded, "the model that from_pretrained loaded")
        assert loaded.sampling_config == backbone.sampling_config, (
            "from_pretrained loaded another sampling_config than that of the saved model; call "
            "self.sampling_config.save_pretrained(path) in save_pretrained, and keep what names the checkpoint in the "
            "attribute checkpoint"
        )

    def test_16_bit_checkpoints_are_loaded_in_float32(self, backbone: Backbone, tmp_path: Path) -> None:
        """Weights are float32, whatever type they were saved in: the trainer's precision says in which they train."""
        backbone.bfloat16().save_pretrained(tmp_path)
        loaded = type(backbone).from_pretrained(str(tmp_path))
        for name, parameter in loaded.named_parameters():
            assert parameter.dtype == torch.float32, (
                f"from_pretrained loaded {name!r} in {parameter.dtype}, as it was saved; load float32, because weights "
                "in 16 bit do not learn"
            )

    def test_16_bit_computation_gives_float32_log_probs(self, backbone: Backbone) -> None:
        """Under autocast (`bf16-mixed`), with frozen weights held in bfloat16, log-probabilities are float32."""
        cast_frozen_weights(backbone, torch.bfloat16)
        prompts, questions = list(self.prompts), list(self.questions)
        with torch.autocast("cpu", torch.bfloat16):
            images = self._sample_images(backbone)
            inputs = with_pixels(backbone, images)
            answers = backbone.sample_answers(inputs, questions, self.answer_sampling, make_generator())
            found = {
                "sample_images": images.log_probs,
                "image_log_probs": backbone.image_log_probs(prompts, images, self.image_sampling)[0],
                "sample_answers": answers.log_probs,
                "answer_log_probs": backbone.answer_log_probs(inputs, questions, answers),
            }
        for method, log_probs in found.items():
            dtype = None if log_probs is None else log_probs.dtype
            assert dtype == torch.float32, (
                f"{method} returned log-probabilities of {dtype} under autocast, expected torch.float32; call "
                "logits.float() before log_softmax"
            )

    def test_deepcopy_is_equal_and_independent(self, backbone: Backbone) -> None:
        """A copy gives the same outputs, and shares no weights with the original."""
        _perturb(backbone)
        copied = copy.deepcopy(backbone)
        self._assert_same_outputs(backbone, copied, "a copy.deepcopy, which a KL penalty uses as reference model,")
        before = sampled_log_probs(self._sample_images(copied))
        _perturb(backbone)
        difference = max_difference(before, sampled_log_probs(self._sample_images(copied)))
        assert not difference, "copy.deepcopy shares weights with the original model; copy every parameter"

    def test_state_dict_is_complete(self, backbone: Backbone) -> None:
        """A model that loads the state dict gives the same outputs."""
        _perturb(backbone)
        other = self.make()
        other.load_state_dict(backbone.state_dict())
        self._assert_same_outputs(backbone, other, "a model that loaded state_dict()")

    def test_sharded_model_matches_unsharded(self, backbone: Backbone, tmp_path: Path) -> None:
        """FSDP2 over two CPU processes gives the same outputs and gradients."""
        folder = tmp_path / "model"
        backbone.save_pretrained(folder)
        case = ShardingCase(self.prompts, self.questions, self.answers, self.image_sampling, self.answer_sampling)
        kind, rendezvous = type(backbone), f"file://{tmp_path}/rendezvous"
        calls = [partial(_run_sharded, kind, str(folder), case, rendezvous, rank) for rank in range(WORLD_SIZE)]
        where = f"sharded over {WORLD_SIZE} processes"
        try:
            results = run_in_subprocesses(calls, kind, {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, TIMEOUT)
        except TimeoutError:
            raise AssertionError(
                f"the model {where} did not finish within {TIMEOUT} s; every process must call sharded modules equally "
                "often"
            ) from None
        except SubprocessError as error:
            raise AssertionError(f"the model {where} failed: {error}\n\n{error.log}") from None
        unsharded = kind.from_pretrained(str(folder))
        for rank, result in enumerate(results):
            for method, expected in case.outputs(unsharded, rank).items():
                for time in ("before the backward pass", "after the backward pass"):
                    difference = max_difference(result[time][method], expected)
                    assert difference <= self.tolerance, (
                        f"{method} {where} returned values that differ by {difference:.2g} from the unsharded model "
                        f"({time}); do not let outputs depend on the rank"
                    )
        rank_gradients = [case.gradients(unsharded, rank) for rank in range(WORLD_SIZE)]
        for name, gradient in results[0]["gradients"].items():
            expected = torch.stack([one.get(name, torch.zeros_like(gradient)) for one in rank_gradients]).mean(0)
            difference, scale = max_difference(gradient, expected), float(expected.abs().max())
            assert difference <= 1e-3 * max(1.0, scale), (
                f"image_log_probs and answer_log_probs {where} have a gradient of {name!r} that differs by "
                f"{difference:.2g} from the unsharded model"
            )

    def _assert_same_outputs(self, backbone: Backbone, other: Backbone, name: str) -> None:
        images, other_images = self._sample_images(backbone), self._sample_images(other)
        difference = max_difference(sampled_log_probs(images), sampled_log_probs(other_images))
        equal = torch.equal(images.codes, other_images.codes) and difference <= 1e-5
        assert equal, (
            f"{name} samples other images (log-probabilities differ by {difference:.2g} nats); keep all state in "
            "parameters and buffers"
        )
        difference = max_difference(backbone.decode(images), other.decode(images))
        assert difference <= 1e-5, f"{name} decodes the same codes to pixels that differ by {difference:.2g}"
        expected, texts = (list(self._sample_texts(model, with_pixels(model, images))) for model in (backbone, other))
        assert texts == expected, f"{name} answers {texts}, expected {expected}"

    def _sample_texts(self, backbone: Backbone, images: Images) -> Sequence[str]:
        return backbone.sample_answers(images, list(self.questions), self.answer_sampling, make_generator()).text


@dataclass(frozen=True)
class ShardingCase:
    """Inputs of a comparison of the sharded and the unsharded model. Each rank has other prompts and answer lengths.

    Args:
        prompts: Prompts of the images.
        questions: Questions about the images.
        answers: Target answers.
        image_sampling: How images are sampled.
        answer_sampling: How answers are sampled.
    """

    prompts: Sequence[str]
    questions: Sequence[str]
    answers: Sequence[str]
    image_sampling: ImageSampling
    answer_sampling: AnswerSampling

    def outputs(self, backbone: Backbone, rank: int) -> dict[str, Tensor]:
        """What each method returns, by its name. The first call is the first one of the model."""
        images, questions = self._sample_images(backbone, rank), list(self.questions)
        inputs = with_pixels(backbone, images)
        sampling = replace(self.answer_sampling, max_tokens=max(1, self.answer_sampling.max_tokens - rank))
        answers = backbone.sample_answers(inputs, questions, sampling, make_generator(rank))
        assert images.log_probs is not None
        assert answers.log_probs is not None
        with torch.no_grad():
            log_probs, _ = backbone.image_log_probs(self._prompts(rank), images, self.image_sampling)
            answer_log_probs = backbone.answer_log_probs(inputs, questions, answers)
            pixels = backbone.decode(images)
        return {
            "sample_images": torch.cat((images.codes, images.log_probs), 1),
            "image_log_probs": log_probs,
            "decode": pixels,
            "encode": backbone.encode(pixels).codes.float(),
            "sample_answers": torch.cat((answers.ids, answers.log_probs * answers.mask), 1),
            "answer_log_probs": answer_log_probs,
        }

    def gradients(self, backbone: Backbone, rank: int) -> dict[str, Tensor]:
        """Gradient of a loss on images, answers and, where supported, straight-through codes, by parameter."""
        backbone.zero_grad()
        images, questions, prompts = self._sample_images(backbone, rank), list(self.questions), self._prompts(rank)
        answers = backbone.tokenize_answers(list(self.answers))
        log_probs, _ = backbone.image_log_probs(prompts, images, self.image_sampling)
        answer_log_probs = backbone.answer_log_probs(with_pixels(backbone, images), questions, answers)
        loss = -log_probs.mean() - answer_log_probs.sum() / answers.mask.sum()
        if backbone.supports_straight_through:  # two backward passes, as in end-to-end SFT
            relaxed = backbone.straight_through(prompts, images, self.image_sampling, 1.0, None, make_generator(rank))
            assert relaxed.soft is not None
            leaf = relaxed.soft.detach().requires_grad_()
            answer_log_probs = backbone.answer_log_probs(replace(relaxed, soft=leaf), questions, answers)
            (gradient,) = torch.autograd.grad(answer_log_probs.sum(), leaf, retain_graph=True)
            loss = loss - answer_log_probs.mean() - (relaxed.soft * gradient).sum()
        loss.backward()
        finish_backward(backbone)
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        return {name: (g.full_tensor() if hasattr(g, "full_tensor") else g).clone() for name, g in gradients.items()}

    def _prompts(self, rank: int) -> list[str]:
        return [*self.prompts[rank:], *self.prompts[:rank]]

    def _sample_images(self, backbone: Backbone, rank: int) -> Images:
        return backbone.sample_images(self._prompts(rank), self.image_sampling, make_generator(rank))


def _run_sharded(kind: type[Backbone], folder: str, case: ShardingCase, rendezvous: str, rank: int) -> dict[str, Any]:
    """Outputs and gradients of the sharded model on one rank, in a process of its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rendezvous, rank=rank, world_size=WORLD_SIZE)
    try:
        backbone = kind.from_pretrained(folder)
        shard(backbone)
        return {
            "before the backward pass": case.outputs(backbone, rank),
            "gradients": case.gradients(backbone, rank),
            "after the backward pass": case.outputs(backbone, rank),
        }
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def _perturb(backbone: Backbone) -> None:
    """Change every trainable parameter, so that fresh weights are not taken for saved ones."""
    generator = make_generator(7)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.add_(0.05 * noise.to(parameter))


def _changed_tensors(backbone: Backbone, other: Backbone) -> str:
    """Which tensors of two state dicts differ, in words; empty if none does."""
    tensors, others = backbone.state_dict(), other.state_dict()
    names = [n for n in tensors if n not in others or max_difference(tensors[n], others[n]) > 0]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}" if names else ""
