"""Janus's generation against transformers' `generate`, and its scoring against transformers' `forward`.

python benchmarks/janus.py --size both --repeats 3 --json results.json
"""

import argparse
import dataclasses
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import janus_generation
import janus_scoring
import torch
import transformers
from janus_generation import Generation
from janus_scoring import Scoring
from janus_sizes import SAMPLING, make
from janus_tables import generation_table, parts_table, scoring_table
from rich.console import Console


@dataclass
class Measured:
    """Results of a model size, by group size.

    Args:
        generation: Both ways of generation.
        scoring: Each way of scoring that did not run out of memory.
    """

    generation: dict[int, Generation] = field(default_factory=dict)
    scoring: dict[int, dict[str, Scoring]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> dict[str, Measured]:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    console = Console(width=max(Console().width, 120))  # in a file, 80 columns would cut names
    results = {}
    for size in ("tiny", "middle") if options.size == "both" else (options.size,):
        measured = results[size] = Measured()
        if options.only != "scoring":
            measured.generation = generate(size, options)
            console.print(generation_table(size, measured.generation, options.repeats))
            console.print(parts_table(size, measured.generation))
        if options.only != "generation":
            measured.scoring = score(size, options)
            console.print(scoring_table(size, measured.scoring, options.repeats))
    if options.json:
        options.json.write_text(json.dumps(report(results, options), indent=1) + "\n", encoding="utf-8")
    return results


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="UniRL's Janus against transformers' on the same weights")
    parser.add_argument("--size", choices=("tiny", "middle", "both"), default="both")
    parser.add_argument("--repeats", type=int, default=3, help="alternations of all ways")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="images of one prompt")
    parser.add_argument("--only", choices=("generation", "scoring"), help="default: both")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled step")
    parser.add_argument("--codes", type=int, help="of an image: fewer than the size has, for trials")
    parser.add_argument("--json", type=Path, help="where to save the numbers")
    return parser.parse_args(arguments)


def generate(size: str, options: argparse.Namespace) -> dict[int, Generation]:
    """Measure every group in this process. Its model is freed before scoring begins."""
    case, compiled = make(size, options.codes), not options.no_compile
    return {group: janus_generation.measure(case, group, options.repeats, compiled) for group in options.groups}


def score(size: str, options: argparse.Namespace) -> dict[int, dict[str, Scoring]]:
    """Measure every group in separate processes."""
    settings = (options.repeats, options.threads)
    return {group: janus_scoring.measure(size, options.codes, group, *settings) for group in options.groups}


def report(results: dict[str, Measured], options: argparse.Namespace) -> dict[str, object]:
    """All figures of the tables, and the environment in which they were measured."""
    settings = {"repeats": options.repeats, "threads": options.threads, "codes": options.codes}
    where = {"python": platform.python_version(), "machine": platform.platform()}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    sizes = {size: dataclasses.asdict(result) for size, result in results.items()}
    return settings | dataclasses.asdict(SAMPLING) | versions | where | {"sizes": sizes}


if __name__ == "__main__":
    main()
