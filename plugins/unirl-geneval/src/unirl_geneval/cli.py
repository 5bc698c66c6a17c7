"""The command `unirl-geneval`: converting GenEval's detector."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from unirl import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command. Errors of the user are printed in one line.

    Args:
        argv: Arguments. Defaults to those of the process.
    """
    try:
        options = _parser().parse_args(argv)
        options.run(options)
    except UserError as error:
        print(f"unirl-geneval: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unirl-geneval", description="GenEval for unirl.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    convert = commands.add_parser("convert", help="mmdet's checkpoint of Mask2Former, as transformers reads it")
    convert.add_argument("checkpoint", type=Path, metavar="CHECKPOINT.pth", help="of mmdet 2.x")
    convert.add_argument("out", type=Path, metavar="OUT", help="the folder that is written")
    convert.set_defaults(run=_convert)
    return parser


def _convert(options: argparse.Namespace) -> None:
    from unirl_geneval.mmdet import convert  # noqa: PLC0415 - torch stays out of --help

    convert(options.checkpoint, options.out)
    print(f"wrote {options.out}; use it by --model.judge geneval --model.judge.detector {options.out}")
