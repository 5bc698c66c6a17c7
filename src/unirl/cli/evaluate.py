"""`unirl evaluate`: a benchmark's images by any checkpoint, judged, with a score that comes again."""

import shutil
from dataclasses import replace
from importlib import import_module

from unirl.cli.show import MAX_WIDTH, option_table
from unirl.hooks.inspect import read

USAGE = """usage: unirl evaluate --benchmark NAME --out FOLDER [--checkpoint FOLDER|ID] [options]
       unirl evaluate --benchmark NAME --out FOLDER --judge-only    judge the images that are in FOLDER
       unirl evaluate --compare A B                                 A, B: folders of results, or several by commas
"""


def main(argv: list[str]) -> None:
    """Evaluate a model on a benchmark, or compare two evaluations.

    Args:
        argv: Arguments after `unirl evaluate`.

    Raises:
        UserError: an argument is wrong, or the evaluation cannot be made.
    """
    if {"-h", "--help"} & set(argv):
        print(_help())
        return
    module = import_module("unirl.cli.benchmark_run")  # imports torch
    is_comparison = "--compare" in [word.partition("=")[0] for word in argv]
    (module.run_comparison if is_comparison else module.run)(argv)


def _help() -> str:
    parameters = read("unirl.cli.benchmark_run:Options").parameters
    options = [replace(one, name=f"--{one.name.replace('_', '-')}") for one in parameters]
    return "\n".join([USAGE, *option_table(options, min(MAX_WIDTH, shutil.get_terminal_size().columns))])
