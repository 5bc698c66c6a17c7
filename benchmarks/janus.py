"""Janus's drawing against transformers' `generate`, and its scoring against transformers' `forward`.

python benchmarks/janus.py --size both --repeats 3 --json results.json
"""

import argparse
import dataclasses
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import janus_drawing
import janus_scoring
import torch
import transformers
from janus_drawing import Drawing
from janus_scoring import Scoring
from janus_sizes import SAMPLING, make
from janus_tables import drawing_table, parts_table, scoring_table
from rich.console import Console


@dataclass
class Measured:
    """One size's results, by size of group.

    Args:
        drawing: Both ways of drawing.
        scoring: Each way of scoring that did not run out of memory.
    """

    drawing: dict[int, Drawing] = field(default_factory=dict)
    scoring: dict[int, dict[str, Scoring]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> dict[str, Measured]:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    console = Console(width=max(Console().width, 120))  # where the output is a file, 80 columns would cut names
    results = {}
    for size in ("tiny", "middle") if options.size == "both" else (options.size,):
        found = results[size] = Measured()
        if options.only != "scoring":
            found.drawing = draw(size, options)
            console.print(drawing_table(size, found.drawing, options.repeats))
            console.print(parts_table(size, found.drawing))
        if options.only != "drawing":
            found.scoring = score(size, options)
            console.print(scoring_table(size, found.scoring, options.repeats))
    if options.json:
        options.json.write_text(json.dumps(report(results, options), indent=1) + "\n", encoding="utf-8")
    return results


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="UniRL's Janus against transformers' own, on the same weights")
    parser.add_argument("--size", choices=("tiny", "middle", "both"), default="both")
    parser.add_argument("--repeats", type=int, default=3, help="alternations of all ways")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="pictures of one prompt")
    parser.add_argument("--only", choices=("drawing", "scoring"), help="default: both")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled step")
    parser.add_argument("--codes", type=int, help="of a picture: fewer than the size has, for trials")
    parser.add_argument("--json", type=Path, help="where to save the numbers")
    return parser.parse_args(arguments)


def draw(size: str, options: argparse.Namespace) -> dict[int, Drawing]:
    """Every group in this process; its model is gone when scoring begins."""
    case, compiled = make(size, options.codes), not options.no_compile
    return {group: janus_drawing.measure(case, group, options.repeats, compiled) for group in options.groups}


def score(size: str, options: argparse.Namespace) -> dict[int, dict[str, Scoring]]:
    """Every group in processes of its own."""
    given = (options.repeats, options.threads)
    return {group: janus_scoring.measure(size, options.codes, group, *given) for group in options.groups}


def report(results: dict[str, Measured], options: argparse.Namespace) -> dict[str, object]:
    """Everything the tables say and what it was measured on, for machines."""
    settings = {"repeats": options.repeats, "threads": options.threads, "codes": options.codes}
    where = {"python": platform.python_version(), "machine": platform.platform()}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    sizes = {size: dataclasses.asdict(result) for size, result in results.items()}
    return settings | dataclasses.asdict(SAMPLING) | versions | where | {"sizes": sizes}


if __name__ == "__main__":
    main()
