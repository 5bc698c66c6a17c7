"""bf16-mixed beside float32: the ratio of the first update, and how often weights are cast for an image code.

    python benchmarks/precision.py

Samples under autocast, as a rollout does, and scores the samples by the same weights, as the first update does: all
at once, and one at a time, where other kernels round otherwise. The ratio of both probabilities is 1 in exact
arithmetic. The models are those of the embedded world, trained in float32.
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.lora import LoRA, select_trainable
from unirl.backbones.precision import cached_casts, cast_frozen_weights
from unirl.backbones.showo import Showo
from unirl.types import AnswerSampling, Images, ImageSampling
from unirl_shapes.prompts import ShapesPrompts

CPU, CHECKPOINTS = torch.device("cpu"), "unirl_shapes:checkpoints/"
SAMPLING = {"showo": ImageSampling(steps=12, guidance=1.0), "janus": ImageSampling(guidance=1.0)}
ANSWERS = AnswerSampling(max_tokens=12)


@dataclass(frozen=True)
class Gaps:
    """|ratio - 1| over all decisions of a kind."""

    median: float
    p99: float
    largest: float
    count: int

    @classmethod
    def of(cls, scored: Tensor, sampled: Tensor) -> "Gaps":
        gaps = ((scored - sampled).exp() - 1).abs().double()
        return cls(gaps.median().item(), gaps.quantile(0.99).item(), gaps.max().item(), gaps.numel())


class WeightCasts(TorchDispatchMode):
    """Counts the casts of weights to 16 bit, and their elements."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.weights = {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
        self.count = self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_cast = func is torch.ops.aten._to_copy.default and result.dtype == torch.bfloat16
        if is_cast and args[0].untyped_storage().data_ptr() in self.weights:
            self.count, self.elements = self.count + 1, self.elements + result.numel()
        return result


def build(kind: str, lora: bool = False, bf16: bool = True) -> Backbone:
    """A built model whose weights are held as a run of that precision does."""
    backbone = (Showo if kind == "showo" else Janus)(f"{CHECKPOINTS}{kind}")
    backbone.build()
    select_trainable(backbone, lora=LoRA() if lora else None)
    if bf16:
        cast_frozen_weights(backbone, torch.bfloat16)
    return backbone.train()


def autocast(bf16: bool = True) -> torch.autocast:
    """What Lightning enters for `bf16-mixed`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False)


def gaps(kind: str, bf16: bool = True, lora: bool = False, prompts: int = 24) -> dict[str, Gaps]:
    """The gaps of images and of answers, scored at once and one by one.

    Args:
        kind: "showo" or "janus".
        bf16: Under autocast, or in float32.
        lora: Whether adapters are trained.
        prompts: Images and answers.
    """
    backbone, sampling = build(kind, lora, bf16), SAMPLING[kind]
    examples = [ShapesPrompts().sample(0, i) for i in range(prompts)]
    texts, questions = [e.prompt for e in examples], [e.question for e in examples]
    generator = torch.Generator().manual_seed(0)
    with autocast(bf16):
        with torch.no_grad(), cached_casts(CPU):
            images = backbone.sample_images(texts, sampling, generator)
            if backbone.understands_pixels:
                images = Images(images.codes, backbone.decode(images), images.actions, images.log_probs, images.memory)
            answers = backbone.sample_answers(images, questions, ANSWERS, generator)
        assert images.log_probs is not None
        assert answers.log_probs is not None
        found = {}
        for name, size in (("at once", prompts), ("one by one", 1)):
            parts = [slice(i, i + size) for i in range(0, prompts, size)]
            image = torch.cat([backbone.image_log_probs(texts[p], images[p], sampling)[0] for p in parts])
            answer = torch.cat([backbone.answer_log_probs(images[p], questions[p], answers[p]) for p in parts])
            found[f"images {name}"] = Gaps.of(image.detach(), images.log_probs)
            found[f"answers {name}"] = Gaps.of(answer.detach()[answers.mask], answers.log_probs[answers.mask])
    return found


def casts(kind: str, lora: bool, cached: bool) -> tuple[float, float]:
    """Casts of weights, and weights cast, for each code (Janus) or denoising step (Show-o) of a group of 4.

    Args:
        kind: "showo" or "janus".
        lora: Whether adapters are trained.
        cached: As a run does it, or with float32 weights that are cast at each use.
    """
    backbone, sampling = build(kind, lora, bf16=cached), SAMPLING[kind]
    around: Callable[..., Any] = cached_casts if cached else nullcontext
    with torch.no_grad(), autocast(), around(CPU), WeightCasts(backbone) as counter:
        images = backbone.sample_images(["a photo of a ring"] * 4, sampling, torch.Generator().manual_seed(0))
    steps = sampling.steps if kind == "showo" else images.codes.shape[1]
    return counter.count / steps, counter.elements / steps


def main(arguments: list[str] | None = None) -> dict[tuple[str, ...], Any]:
    """Print both tables; returns their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=24, help="images and answers of each model")
    options = parser.parse_args(arguments)
    found: dict[tuple[str, ...], Any] = {}
    print(f"{'|ratio - 1|':<40}{'median':>10}{'99 %':>10}{'largest':>10}{'decisions':>11}")
    for kind in SAMPLING:
        for precision in ("32-true", "bf16-mixed"):
            for name, one in gaps(kind, precision != "32-true", prompts=options.prompts).items():
                found[kind, precision, name] = one
                row = f"{one.median:>10.1e}{one.p99:>10.1e}{one.largest:>10.1e}{one.count:>11}"
                print(f"{f'{kind}, {precision}, {name}':<40}{row}")
    print(f"\n{'weights cast for a code or step':<36}{'casts':>10}{'elements':>14}")
    for kind in SAMPLING:
        for lora in (False, True):
            for cached in (False, True):
                count, elements = found[kind, str(lora), str(cached)] = casts(kind, lora, cached)
                name = f"{kind}, {'LoRA' if lora else 'all weights'}, {'as fit' if cached else 'at each use'}"
                print(f"{name:<36}{count:>10.2f}{elements:>14,.0f}")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
