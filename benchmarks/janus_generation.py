"""Image generation by transformers, UniRL, and UniRL compiled: alternately, in one process, on the same weights."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from janus_sizes import GREEDY, SAMPLING, SCALE, Case
from measure import Spread, timed
from sizes import SEED
from torch import Tensor, nn

from unirl.backbones.mixins import SamplingStep

STEPS = 8


@dataclass(frozen=True)
class Generation:
    """Results of a group. Each ratio compares runs that follow each other, so a busy machine slows both.

    Args:
        seconds: To generate the whole group: transformers, UniRL, and UniRL compiled if requested.
        faster: How many times faster than transformers UniRL is, and compiled.
        compiling: Seconds of the first compiled run.
        same_codes: Whether all greedy codes of transformers and UniRL are equal.
        step: Seconds of UniRL, including the pass over the prompt, divided by the number of codes.
        products: Seconds of the linear layers of a step alone: the lower bound.
        attention: Seconds of the attention of a step alone, halfway through the codes.
    """

    seconds: list[Spread]
    faster: list[Spread]
    compiling: float | None
    same_codes: bool
    step: float
    products: float
    attention: float


@torch.no_grad()
def measure(case: Case, group: int, repeats: int, compiled: bool) -> Generation:
    """Measure a group. The codes are compared first, which also warms up both ways."""
    same = torch.equal(generate_plainly(case, group, False), generate(case, group, GREEDY))
    compiling = timed(lambda: generate(case, group, SAMPLING, True))[0] if compiled else None
    ways: list[Callable[[], Tensor]] = [
        lambda: generate_plainly(case, group, True),
        lambda: generate(case, group, SAMPLING),
        lambda: generate(case, group, SAMPLING, True),
    ]
    ways = ways if compiled else ways[:2]
    runs = [[timed(way)[0] for way in ways] for _ in range(repeats)]
    faster = [Spread.of([row[0] / row[i] for row in runs]) for i in range(1, len(ways))]
    seconds = [Spread.of(list(column)) for column in zip(*runs, strict=True)]
    step = seconds[1].median / case.backbone.num_image_codes
    return Generation(seconds, faster, compiling, same, step, products(case, group), attention(case, group))


def generate_plainly(case: Case, group: int, sample: bool) -> Tensor:
    """transformers' codes. (group, N)"""
    torch.manual_seed(SEED)
    options = {"generation_mode": "image", "guidance_scale": SCALE}
    if sample:
        options |= {"do_sample": True, "top_k": 0, "num_return_sequences": group}
        return case.model.generate(**case.inputs, **options)
    codes = case.model.generate(**case.inputs, **options, do_sample=False)
    return codes.expand(group, -1)  # greedy images of a group are equal


def generate(case: Case, group: int, sampling: object, compiled: bool = False) -> Tensor:
    """UniRL's codes, from the text of the prompt. (group, N)"""
    case.backbone.compiled = compiled
    return case.backbone.sample_images([case.prompt] * group, sampling, torch.Generator().manual_seed(SEED)).codes


def products(case: Case, group: int) -> float:
    """Seconds of the matrix products of a step alone: rows of twice the group, and of the group for the codes."""
    parts, head = case.backbone.transformer.base_model, case.backbone.transformer.base_model.generation_head
    both = [m for part in (parts.language_model.layers, head.proj_out) for m in part.modules()]
    once = [*head.vision_head.modules(), *parts.generation_aligner.modules()]
    work = [(m, 2 * group) for m in both] + [(m, group) for m in once]
    linear = [(m, torch.randn(rows, m.in_features)) for m, rows in work if isinstance(m, nn.Linear)]
    return seconds_of(lambda: [module(rows) for module, rows in linear])


def attention(case: Case, group: int) -> float:
    """Seconds of the attention of a step alone, with half of the codes generated."""
    prefix = case.backbone.prompt_prefix([case.prompt] * group, SAMPLING.guidance)
    row = SamplingStep(case.backbone, prefix, SAMPLING).decoder
    length = row.start + case.backbone.num_image_codes // 2
    query = torch.randn(2 * group, row.heads, 1, row.keys[0].shape[-1])
    pairs = [(k[:, :, :length], v[:, :, :length]) for k, v in zip(row.keys, row.values, strict=True)]
    return seconds_of(lambda: [F.scaled_dot_product_attention(query, *pair, enable_gqa=True) for pair in pairs])


def seconds_of(run: Callable[[], object]) -> float:
    """Median over runs, after a warmup run."""
    run()
    return median(timed(run)[0] for _ in range(STEPS))
