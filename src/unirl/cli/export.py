"""`unirl export`: writes the model of a checkpoint in its own public format."""

import argparse
from pathlib import Path

from unirl.cli.messages import CommandParser
from unirl.errors import UserError


def main(argv: list[str]) -> None:
    """Write a folder that `from_pretrained` loads, from a checkpoint of a run.

    Args:
        argv: Arguments after `unirl export`.

    Raises:
        UserError: the checkpoint or its config is missing or broken, or the output folder is not empty.
    """
    options = _parse(argv)
    out, ckpt = Path(options.out), Path(options.ckpt)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {options.out!r} is not an empty folder; nothing is overwritten, name another folder")

    from unirl.checkpoint.export import export  # noqa: PLC0415 - `--help` needs no torch
    from unirl.checkpoint.resume import missing_message, no_checkpoint_message  # noqa: PLC0415

    if message := missing_message(ckpt, "--ckpt") or no_checkpoint_message(ckpt, "--ckpt"):
        raise UserError(message)
    export(ckpt, Path(options.config) if options.config else _find_config(ckpt), out)
    print(f"wrote {out}")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="unirl export", description="Write the model of a checkpoint in its public format.")
    parser.add_argument("--ckpt", required=True, help="a .ckpt file, or the folder of a sharded checkpoint")
    parser.add_argument("--out", required=True, help="the folder to write, new or empty")
    parser.add_argument("--config", help="config of the run (default: config.yaml in a folder above the checkpoint)")
    return parser.parse_args(argv)


def _find_config(ckpt: Path) -> Path:
    for folder in list(ckpt.resolve().parents)[:3]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise UserError(f"found no config.yaml in the folders above {ckpt}; name the config of the run with --config")
