"""Drawing by transformers' `generate`, by UniRL, and by UniRL compiled: alternately, in one process, same weights."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from janus_sizes import GREEDY, SAMPLING, SCALE, Case
from measure import Spread, timed
from sizes import SEED
from torch import Tensor, nn

from unirl.backbones.janus.modeling import Step
from unirl.sampling.packing import packed

STEPS = 8


@dataclass(frozen=True)
class Drawing:
    """A group's results; each ratio compares neighbours in time, so a busy machine slows both.

    Args:
        seconds: Of a drawing of the whole group: transformers, UniRL, and UniRL compiled, if asked for.
        faster: How many times faster than transformers UniRL is, and compiled.
        compiling: Seconds of the first compiled drawing.
        same_codes: Whether greedy codes of transformers and UniRL agree, all of them.
        step: Seconds of UniRL's drawing, the prompt's text included, divided by its codes.
        products: Seconds that a step's linear layers take alone, their weights packed as for drawing: the floor.
        attention: Seconds that a step's attention takes alone, halfway through the drawing.
    """

    seconds: list[Spread]
    faster: list[Spread]
    compiling: float | None
    same_codes: bool
    step: float
    products: float
    attention: float


@torch.no_grad()
def measure(case: Case, group: int, repeats: int, compiled: bool) -> Drawing:
    """Everything about a group; the check of the codes comes first and warms both ways up."""
    same = torch.equal(generate(case, group, False), draw(case, group, GREEDY))
    compiling = timed(lambda: draw(case, group, SAMPLING, True))[0] if compiled else None
    ways: list[Callable[[], Tensor]] = [
        lambda: generate(case, group, True),
        lambda: draw(case, group, SAMPLING),
        lambda: draw(case, group, SAMPLING, True),
    ]
    ways = ways if compiled else ways[:2]
    runs = [[timed(way)[0] for way in ways] for _ in range(repeats)]
    faster = [Spread.of([row[0] / row[i] for row in runs]) for i in range(1, len(ways))]
    seconds = [Spread.of(list(column)) for column in zip(*runs, strict=True)]
    step = seconds[1].median / case.backbone.length
    return Drawing(seconds, faster, compiling, same, step, products(case, group), attention(case, group))


def generate(case: Case, group: int, sample: bool) -> Tensor:
    """transformers' codes. (group, N)"""
    torch.manual_seed(SEED)
    options = {"generation_mode": "image", "guidance_scale": SCALE}
    if sample:
        options |= {"do_sample": True, "top_k": 0, "num_return_sequences": group}
        return case.model.generate(**case.inputs, **options)
    return case.model.generate(**case.inputs, **options, do_sample=False).expand(group, -1)  # all alike: drawn once


def draw(case: Case, group: int, sampling: object, compiled: bool = False) -> Tensor:
    """UniRL's codes, the prompt's text as the start. (group, N)"""
    case.backbone.compiled = compiled
    return case.backbone.sample_images([case.prompt] * group, sampling, torch.Generator().manual_seed(SEED)).codes


def products(case: Case, group: int) -> float:
    """Seconds of all matrix products of a step, and of nothing else: rows of twice the group, half for the codes."""
    parts, head = case.backbone.transformer.parts, case.backbone.transformer.parts.generation_head
    both = [m for part in (parts.language_model.layers, head.proj_out) for m in part.modules()]
    once = [*head.vision_head.modules(), *parts.generation_aligner.modules()]
    work = [(m, 2 * group) for m in both] + [(m, group) for m in once]
    linear = [(m, torch.randn(rows, m.in_features)) for m, rows in work if isinstance(m, nn.Linear)]
    with packed(case.backbone.transformer):
        return seconds_of(lambda: [module(rows) for module, rows in linear])


def attention(case: Case, group: int) -> float:
    """Seconds of a step's attention alone, half of the codes drawn."""
    prefix = case.backbone.prompt_prefix([case.prompt] * group, SAMPLING.guidance)
    row = Step(case.backbone.transformer, prefix, SAMPLING, case.backbone.length).next_row
    seen = row.start + case.backbone.length // 2
    query = torch.randn(2 * group, row.heads, 1, row.keys[0].shape[-1])
    pairs = [(k[:, :, :seen], v[:, :, :seen]) for k, v in zip(row.keys, row.values, strict=True)]
    return seconds_of(lambda: [F.scaled_dot_product_attention(query, *pair, enable_gqa=True) for pair in pairs])


def seconds_of(run: Callable[[], object]) -> float:
    """Median of some runs, after one that warms up."""
    run()
    return median(timed(run)[0] for _ in range(STEPS))
