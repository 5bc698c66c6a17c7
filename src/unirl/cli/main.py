"""The `unirl` command. Imports nothing heavy before it knows what to run, so that `unirl --help` is quick."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from unirl import __version__
from unirl.errors import UserError, nearest
from unirl.hooks.host import with_switches
from unirl.hooks.options import HELP
from unirl.hooks.requirements import resolve_requirements

COMMANDS = {
    "fit": ("let a model improve itself", "unirl.cli.train:fit"),
    "validate": ("measure it on held-out prompts", "unirl.cli.train:validate"),
    "test": ("measure it once more, at the end", "unirl.cli.train:test"),
    "export": ("write the model of a checkpoint in its public format", "unirl.cli.export:main"),
    "sample": ("draw a prompt and ask about the drawing", "unirl.cli.sample:main"),
    "doctor": ("say whether a fit would start, and what it needs", "unirl.cli.doctor:main"),
    "plugins": ("list what is installed, and what is broken", "unirl.cli.plugins:main"),
    "new": ("write a plugin package to start from", "unirl.cli.new:main"),
}
"""Each subcommand, what it does, and the function that takes its arguments."""
RUNS = ("fit", "validate", "test")
"""Those that take configs, whose requirements are checked before torch is imported."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; what the user did wrong becomes one line on stderr.

    Args:
        argv: Arguments after `unirl`; the process's own by default.

    Raises:
        SystemExit: 2 after a user's mistake, 130 after an interrupt.

    Example:
        >>> main(["--version"])
        unirl 0.1.0
    """
    try:
        with with_switches(sys.argv[1:] if argv is None else argv) as rest:
            _dispatch(rest)
    except UserError as error:
        _stop(f"error: {error}", 2)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except SystemExit as error:
        # Lightning turns an interrupt into exit code 1.
        if isinstance(error.__context__, KeyboardInterrupt):
            _stop("interrupted", 130)
        raise


def _dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
    elif argv[0] == "--version":
        print(f"unirl {__version__}")
    else:
        arguments = (
            resolve_requirements(argv[1:]) if argv[0] in RUNS else argv[1:]
        )  # before the command's module imports torch
        _command(argv[0])(arguments)


def _command(name: str) -> Callable[[list[str]], None]:
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}; nearest: {nearest(name, COMMANDS)}; 'unirl --help' lists them all")
    module, _, function = COMMANDS[name][1].partition(":")
    return getattr(import_module(module), function)


def _help() -> str:
    lines = [f"  {name:<10}{text}" for name, (text, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: unirl COMMAND [options]",
            "",
            *lines,
            "",
            "unirl fit --config FILE [--config OVERLAY] [--model.lr 1e-5] [--trainer.max_steps 100] ...",
            "unirl fit --help lists every option; unirl fit --model.backbone.help NAME those of a plugin.",
            "",
            HELP,
        ]
    )


def _stop(message: str, code: int) -> None:
    print(f"unirl: {' '.join(message.split())}", file=sys.stderr)
    # The cause has been told; its traceback would only bury it.
    raise SystemExit(code) from None
