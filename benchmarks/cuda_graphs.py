"""Image generation of Janus on a GPU: by CUDA graphs, by the plain loop, and by transformers' `generate`.

python benchmarks/cuda_graphs.py
"""

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from janus_sizes import GREEDY, SAMPLING, SCALE, Case, make
from measure import Spread, timed
from rich.console import Console
from rich.table import Table
from sizes import SEED
from torch import Tensor

from unirl.backbones.precision import cached_casts

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
WAYS = ("transformers", "loop", "graphs")


@dataclass(frozen=True)
class Row:
    """Results of a group of images.

    Args:
        seconds: To generate the whole group, by way.
        faster: How many times faster the graphs are than transformers, and than the plain loop.
        same_codes: Share of the greedy codes of graphs that are those of the plain loop, and of transformers.
        peak: Memory of the device in GB, by way, with the weights.
    """

    seconds: dict[str, Spread]
    faster: dict[str, Spread]
    same_codes: dict[str, float]
    peak: dict[str, float]


def autocast(precision: str) -> AbstractContextManager[object]:
    """As Lightning computes a step."""
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if precision == "bf16-mixed" else nullcontext()


def generate(case: Case, group: int, way: str, greedy: bool = False) -> Tensor:
    """The codes of a group. (group, N)"""
    if way == "transformers":
        torch.manual_seed(SEED)
        sampling = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0}
        inputs = {key: value.to("cuda") for key, value in case.inputs.items()}
        rows = {} if greedy else {"num_return_sequences": group}
        codes = case.model.generate(**inputs, generation_mode="image", guidance_scale=SCALE, **sampling, **rows)
        return codes.expand(group, -1)
    case.backbone.cuda_graph = way == "graphs"
    generator = torch.Generator("cuda").manual_seed(SEED)
    with cached_casts(torch.device("cuda")):
        return case.backbone.sample_images([case.prompt] * group, GREEDY if greedy else SAMPLING, generator).codes


@torch.no_grad()
def measure(case: Case, group: int, precision: str, repeats: int) -> Row:
    """Compare the codes, which warms up all ways, and time the ways alternately."""
    with autocast(precision):
        ways = WAYS[precision == "bf16-mixed" :]  # transformers' static cache refuses autocast
        greedy = {way: generate(case, group, way, greedy=True) for way in ways}
        same = {way: (greedy["graphs"] == greedy[way]).float().mean().item() for way in ways[:-1]}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        peak = {}
        for _ in range(repeats):
            for way in ways:
                torch.cuda.reset_peak_memory_stats()
                seconds[way].append(timed(synchronized(lambda way=way: generate(case, group, way)))[0])
                peak[way] = torch.cuda.max_memory_allocated() / 1e9
    graphs = seconds["graphs"]
    faster = {
        way: Spread.of([other / own for other, own in zip(seconds[way], graphs, strict=True)]) for way in ways[:-1]
    }
    return Row({way: Spread.of(values) for way, values in seconds.items()}, faster, same, peak)


def synchronized(run: Callable[[], Tensor]) -> Callable[[], None]:
    """Waits for the device before it returns."""

    def waiting() -> None:
        run()
        torch.cuda.synchronize()

    return waiting


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, int], Row]:
    parser = argparse.ArgumentParser(description="Images of Janus by CUDA graphs, the plain loop and transformers")
    parser.add_argument("--size", choices=("tiny", "middle", "1b"), default="1b")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codes", type=int, help="codes of an image, for trials (default: those of the model)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    case = make(options.size, options.codes)
    case.backbone.cuda()
    rows = {}
    for precision in options.precision:
        case.backbone.to(torch.bfloat16 if precision == "bf16-true" else torch.float32)
        for group in options.groups:
            row = rows[precision, group] = measure(case, group, precision, options.repeats)
            print(precision, group, row, flush=True)
    Console(width=120).print(table(rows, case.backbone.num_image_codes))
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {options.repeats} repeats")
    if options.json:
        options.json.write_text(json.dumps({str(key): asdict(row) for key, row in rows.items()}, indent=1))
    return rows


def table(rows: dict[tuple[str, int], Row], codes: int) -> Table:
    """Seconds of a group, milliseconds of a code, ratios."""
    result = Table(title=f"seconds of a group of images, {codes} codes each (of a code, ms)")
    for column in ("precision", "group", *WAYS, "faster than transformers", "than the loop", "same codes", "GB"):
        result.add_column(column)
    for (precision, group), row in rows.items():
        cells = [cell(row.seconds.get(way), "{0.median:.2f}", 1000 / codes) for way in WAYS]
        cells += [cell(row.faster.get(way), "{0.median:.1f} ({0.low:.1f} to {0.high:.1f})") for way in WAYS[:2]]
        same = " / ".join(f"{way} {share:.0%}" for way, share in row.same_codes.items())
        result.add_row(precision, str(group), *cells, same, " / ".join(f"{peak:.1f}" for peak in row.peak.values()))
    return result


def cell(spread: Spread | None, form: str, per_code: float = 0.0) -> str:
    """A spread in words; nothing for a way that does not run."""
    if spread is None:
        return "-"
    return form.format(spread) + (f" ({per_code * spread.median:.1f})" if per_code else "")


if __name__ == "__main__":
    main()
