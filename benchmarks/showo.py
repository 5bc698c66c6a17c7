"""Speed of generation and answering with Show-o, as a ratio to a plain loop on the same weights in the same process.

python benchmarks/showo.py --size both --repeats 5 --json results.json
"""

import argparse
import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from measure import Measured, Spread, measure
from rich.console import Console
from rich.table import Table
from sizes import ANSWERS, GUIDANCE, STEPS, TOKENS, make
from work import SIDE


def main(arguments: Sequence[str] | None = None) -> dict[str, Measured]:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes = ("tiny", "middle") if options.size == "both" else (options.size,)
    results = {size: measure(make(size), options.repeats) for size in sizes}
    width = max(Console().width, 100)  # in a file, 80 columns would cut names
    Console(width=width).print(results_table(results, options.repeats))
    if options.json:
        options.json.write_text(json.dumps(report(results, options.repeats), indent=1) + "\n", encoding="utf-8")
    return results


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="UniRL's Show-o against a plain loop, same weights, same process")
    parser.add_argument("--size", choices=("tiny", "middle", "both"), default="both")
    parser.add_argument("--repeats", type=int, default=5, help="alternations of plain loop and UniRL")
    parser.add_argument("--threads", type=int, help="of torch; default: as torch chooses")
    parser.add_argument("--json", type=Path, help="where to save the numbers")
    return parser.parse_args(arguments)


def results_table(results: dict[str, Measured], repeats: int) -> Table:
    title = f"{torch.get_num_threads()} threads, medians of {repeats} alternations (smallest to largest)"
    table = Table(title=title)
    for column in ("size", "measure", "plain loop", "UniRL", "faster"):
        table.add_column(column, no_wrap=True)
    for size, result in results.items():
        table.add_row(size, "guided denoising step", *map(seconds, result.step), times(result.step_ratio))
        name = f"{ANSWERS} answers of {TOKENS} tokens"
        table.add_row(size, name, *map(seconds, result.answers), times(result.answers_ratio))
        table.add_row(size, f"float32 FLOP/s, of a {SIDE}³ matmul", *map(share, result.busy), "")
        table.add_row(size, "largest logit difference", "", f"{result.logits_difference:.1e}", "")
        table.add_row(size, "same answers", "", "yes" if result.same_answers else "NO", "")
        table.add_section()
    return table


def report(results: dict[str, Measured], repeats: int) -> dict[str, object]:
    """All figures of the table, and the environment in which they were measured."""
    settings = {"repeats": repeats, "threads": torch.get_num_threads(), "steps": STEPS, "guidance": GUIDANCE}
    where = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.platform()}
    return settings | where | {"sizes": {size: dataclasses.asdict(result) for size, result in results.items()}}


def seconds(spread: Spread) -> str:
    return f"{spread.median:.3g} s"


def share(spread: Spread) -> str:
    return f"{spread.median:.0%}"


def times(spread: Spread) -> str:
    return f"{spread.median:.3g} times ({spread.low:.3g} to {spread.high:.3g})"


if __name__ == "__main__":
    main()
