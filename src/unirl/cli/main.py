"""The `unirl` command. It imports nothing heavy before it knows the subcommand, so that `unirl --help` is fast."""

import gc
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from unirl import __version__
from unirl.errors import UserError, suggest
from unirl.hooks.host import plugin_options, reproducible_options
from unirl.hooks.options import HELP
from unirl.hooks.requirements import resolve_requirements
from unirl.output import drop_after_closed_pipe, escape_unknown_characters, plain_warnings

COMMANDS = {
    "fit": ("train a model by self-improvement", "unirl.cli.train:fit"),
    "validate": ("evaluate a model on held-out prompts", "unirl.cli.train:validate"),
    "test": ("evaluate a trained model", "unirl.cli.train:test"),
    "evaluate": ("score a model on a benchmark, or compare two", "unirl.cli.evaluate:main"),
    "export": ("write the model of a checkpoint in its public format", "unirl.cli.export:main"),
    "sample": ("generate images from prompts and ask about them", "unirl.cli.sample:main"),
    "doctor": ("check whether fit would start, and what it needs", "unirl.cli.doctor:main"),
    "plugins": ("list plugins, or show one with its options", "unirl.cli.plugins:main"),
    "new": ("create a plugin package", "unirl.cli.new:main"),
}
"""Each subcommand with its description and the function that takes its arguments."""
RUN_COMMANDS = ("fit", "validate", "test")
"""Subcommands that take configs, whose requirements are checked before torch is imported."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand. A `UserError` becomes one line on stderr.

    Args:
        argv: Arguments after `unirl`. Defaults to those of the process.

    Raises:
        SystemExit: code 2 after a user error, 130 after an interrupt.

    Example:
        >>> main(["--version"])
        unirl 0.1.0
    """
    escape_unknown_characters()
    drop_after_closed_pipe()
    try:
        with plugin_options(sys.argv[1:] if argv is None else argv) as rest:
            _dispatch(rest)
    except UserError as error:
        _exit(f"error: {error}", 2)
    except KeyboardInterrupt:
        _exit("interrupted", 130)
    except SystemExit as error:
        # Lightning turns an interrupt into exit code 1.
        if isinstance(error.__context__, KeyboardInterrupt):
            _exit("interrupted", 130)
        raise


def _dispatch(argv: list[str]) -> None:
    if (page := _page(argv)) is not None:
        print(page)
        return
    command, arguments = argv[0], argv[1:]
    if command in RUN_COMMANDS:
        arguments = resolve_requirements(arguments)  # before the import of torch
        if not any(argument.partition("=")[0].endswith(".help") for argument in arguments):
            # Last, over those of the configs, and saved in the config of the run.
            arguments = [*arguments, f"--plugin_options={reproducible_options()}"]
    _function(command)(arguments)


def _page(argv: list[str]) -> str | None:
    """The text that the arguments ask for, where it needs no import of the command."""
    if not argv or argv[0] in ("-h", "--help"):
        return _help()
    if argv[0] == "--version":
        return f"unirl {__version__}"
    if argv[0] in (*RUN_COMMANDS, "doctor") and not {"-h", "--help"}.isdisjoint(argv):
        from unirl.cli.run_options import help_page  # noqa: PLC0415 - griffe takes 50 ms to import

        return help_page(argv[0], argv[1:])
    return None


def _function(command: str) -> Callable[[list[str]], None]:
    if command not in COMMANDS:
        raise UserError(f"no command {command!r}; {suggest(command, COMMANDS)}; see `unirl --help`")
    module, _, function = COMMANDS[command][1].partition(":")
    collects = gc.isenabled()
    gc.disable()  # what is imported stays; looking for garbage in it takes a tenth of the time
    try:
        called = getattr(import_module(module), function)
    finally:
        if collects:
            gc.enable()
    plain_warnings()  # after the import of Lightning
    return called


def _help() -> str:
    lines = [f"  {name:<10}{description}" for name, (description, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: unirl COMMAND [options]",
            "",
            *lines,
            "",
            "unirl fit --config FILE [--config OVERLAY] [--model.optimizer.lr 1e-5] [--trainer.max_steps 100] ...",
            "unirl fit --help lists its options, unirl plugins show NAME those of a plugin.",
            "",
            HELP,
        ]
    )


def _exit(message: str, code: int) -> None:
    print(f"unirl: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code) from None  # without the traceback of the cause
