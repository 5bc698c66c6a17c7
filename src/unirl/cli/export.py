"""`unirl export`: the model in a checkpoint, in its own public format."""

import argparse
from pathlib import Path

from unirl.cli.messages import CommandParser
from unirl.errors import UserError


def main(argv: list[str]) -> None:
    """Write a folder that `from_pretrained` loads, from a checkpoint of a run.

    Args:
        argv: Arguments after `unirl export`.

    Raises:
        UserError: the checkpoint or its config is missing or broken, or the folder has something in it.
    """
    options = _options(argv)
    out, ckpt = Path(options.out), Path(options.ckpt)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {options.out!r} is not empty, and nothing is overwritten; name another folder")
    if not ckpt.exists():
        raise UserError(f"--ckpt {options.ckpt!r}: nothing is there; give a .ckpt file or a sharded folder")

    from unirl.checkpoint.export import export  # noqa: PLC0415 - torch stays out of --help

    export(ckpt, Path(options.config) if options.config else _config_of(ckpt), out)
    print(f"wrote {out}")


def _options(argv: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="unirl export", description="A checkpoint's model in its public format.")
    parser.add_argument("--ckpt", required=True, help="a .ckpt file, or the folder of a sharded checkpoint")
    parser.add_argument("--out", required=True, help="the folder to write; it must be new or empty")
    parser.add_argument("--config", help="of the run (default: config.yaml of the run's folder, above the checkpoint)")
    return parser.parse_args(argv)


def _config_of(ckpt: Path) -> Path:
    for folder in list(ckpt.resolve().parents)[:3]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise UserError(f"no config.yaml beside or above {ckpt}; name the run's with --config")
