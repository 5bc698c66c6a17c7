"""LightningCLI's parser, with plugin names where class paths stand, and errors that are one sentence."""

import inspect
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn, get_args

import yaml
from jsonargparse import Namespace, get_loader
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from unirl.cli.messages import explain_option, root_message
from unirl.errors import UserError, check_range
from unirl.hooks.arguments import (
    PluginArgument,
    format_value,
    hints_of,
    plugin_argument,
    plugin_arguments,
    resolve,
    resolve_all,
)


class PluginParser(LightningArgumentParser):
    """Parses like its base after replacing registered names by class paths.

    Everything a user writes enters jsonargparse through `parse_args`, `parse_string` (files too) or `parse_object`, and
    the arguments of each plugin are parsed by a parser of this same class. So overriding these three public methods
    covers YAML and command line at any depth, and merging, defaults, help and saved configs stay jsonargparse's own:
    it never sees anything but class paths. What a place takes is known from `add_class_arguments`, public as well.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._places: dict[str, PluginArgument] = {}
        self._filled: set[str] = set()
        # An abbreviation is as often a misspelt option; it must not be guessed at.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_class_arguments(self, theclass: Any, nested_key: str | None = None, *args: Any, **kwargs: Any) -> list[str]:
        """Add a constructor's arguments and remember which of them take plugins."""
        prefix = f"{nested_key}." if nested_key else ""
        self._places |= {f"{prefix}{name}": place for name, place in plugin_arguments(theclass).items()}
        self._filled |= {f"{prefix}{name}" for name in never_null(theclass)}
        return super().add_class_arguments(theclass, nested_key, *args, **kwargs)

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse command-line arguments.

        Raises:
            UserError: they are wrong.
        """
        config = super().parse_args(args and list(self._resolved_argv(args)), *rest, **kwargs)
        check_numbers(config)
        return config

    def parse_object(self, obj: Any, *rest: Any, **kwargs: Any) -> Namespace:
        """Parse nested dictionaries.

        Raises:
            UserError: they are wrong.
        """
        if isinstance(obj, Namespace) and self._places:
            obj = _shallow(obj)
        if isinstance(obj, dict):
            check_null(obj, self._filled)
            obj = resolve_all(obj, self._places)
        return super().parse_object(obj, *rest, **kwargs)

    def parse_path(self, path: Any, *rest: Any, **kwargs: Any) -> Namespace:
        """Parse a config file.

        Raises:
            UserError: it is wrong; the message starts with its name.
        """
        try:
            return super().parse_path(path, *rest, **kwargs)
        except UserError as error:
            raise UserError(f"{os.fspath(path)}: {error}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{os.fspath(path)}: not a text file: {error.reason} at byte {error.start}") from error
        except RecursionError as error:
            raise UserError(f"{os.fspath(path)}: nested too deeply") from error

    def parse_string(self, content: str, *rest: Any, **kwargs: Any) -> Namespace:
        """Parse the text of a config.

        Raises:
            UserError: it is wrong.
        """
        try:
            config = get_loader(self.parser_mode)(content)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"line {mark.line + 1}: " if mark else ""
            raise UserError(f"{where}not valid YAML: {error.problem or error.context}") from error
        except (yaml.YAMLError, ValueError) as error:  # control characters; dates and numbers that are none
            raise UserError(f"not valid YAML: {error}") from error
        if not isinstance(config, dict):
            raise UserError(f"expected options by name, such as 'model: ...', got {content.strip()[:60]!r}")
        check_text(config)
        self._refuse_unknown(config)
        check_null(config, self._filled)
        # Quoted and tagged, for a plain 1e-5 means a number to one loader and a string to another.
        content = yaml.safe_dump(resolve_all(config, self._places), default_style='"', sort_keys=False)
        return super().parse_string(content, *rest, **kwargs)

    def instantiate_classes(self, *args: Any, **kwargs: Any) -> Namespace:
        """Make what was parsed; constructors only read settings, so what they raise is about these.

        Raises:
            UserError: a constructor refused its arguments.
        """
        try:
            return super().instantiate_classes(*args, **kwargs)
        except (MisconfigurationException, ValueError, TypeError, OverflowError) as error:
            raise UserError(f"a part of the run cannot be made: {root_message(str(error))}") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what went wrong instead of printing the usage page.

        Raises:
            UserError: always, but for the parsers of plugin arguments, whose errors their parent parser explains.
        """
        # An error about a subcommand's option comes from the main parser, which does not know the options.
        parser = getattr(ex, "subcommand_parser", None) or self
        message = explain_option(message, parser._options())
        if not self.exit_on_error:
            super().error(message, ex)
        raise UserError(root_message(message)) from ex

    def _options(self) -> list[str]:
        names = {action.dest.removesuffix("+") for action in self._actions if action.option_strings}
        names = {name for name in names if name.rpartition(".")[2] not in ("help", "print_config")}
        groups = {name[: dot.start()] for name in names for dot in re.finditer(r"\.", name)}
        return sorted(names - groups)

    def _refuse_unknown(self, config: dict[str, Any], prefix: str = "") -> None:
        # Checked here, file by file, because jsonargparse checks only the merged config, where the file is forgotten.
        options = self._options()
        for key, value in config.items():
            name = f"{prefix}{key}".removesuffix("+")
            if any(name == option or name.startswith(f"{option}.") for option in options):
                continue
            if not any(option.startswith(f"{name}.") for option in options):
                self.error(f"Option {name!r} is not accepted")
            if isinstance(value, dict):
                self._refuse_unknown(value, f"{name}.")
            elif not isinstance(value, str):  # which may be the path of a file
                raise UserError(f"{name}: expected options by name below it, got {format_value(value)}")

    def _resolved_argv(self, argv: list[str]) -> Iterator[str]:
        waiting: PluginArgument | None = None
        for arg in argv:
            if waiting and not arg.startswith("--"):
                yield _resolve_text(arg, waiting)
                waiting = None
                continue
            waiting = None
            option, equals, value = arg.partition("=")
            place = plugin_argument(option[2:], self._places) if option.startswith("--") else None
            if place and equals:
                yield f"{option}={_resolve_text(value, place)}"
            else:
                waiting = place
                yield arg


def _resolve_text(text: str, place: PluginArgument) -> str:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # jsonargparse says what is wrong with it
    resolved = resolve(value, place)
    return text if resolved == value else yaml.safe_dump(resolved, default_flow_style=True, width=10**9).split("\n")[0]


def _shallow(config: Namespace) -> dict[str, Any]:
    """The top level only: what is below belongs to the parsers of plugin arguments."""
    return dict(config.items(branches=True, nested=False))


MANY = 10**9
LIMITS: Mapping[str, tuple[float, float]] = {
    "seed_everything": (0, 2**32 - 1),
    "trainer.devices": (-1, 1024),
    "trainer.num_nodes": (1, 10_000),
    "trainer.max_epochs": (-1, MANY),
    "trainer.min_epochs": (0, MANY),
    "trainer.max_steps": (-1, MANY),
    "trainer.min_steps": (0, MANY),
    "trainer.limit_train_batches": (0, MANY),
    "trainer.limit_val_batches": (0, MANY),
    "trainer.limit_test_batches": (0, MANY),
    "trainer.overfit_batches": (0, MANY),
    "trainer.fast_dev_run": (0, MANY),
    "trainer.val_check_interval": (1e-9, MANY),
    "trainer.check_val_every_n_epoch": (1, MANY),
    "trainer.num_sanity_val_steps": (-1, MANY),
    "trainer.log_every_n_steps": (0, MANY),
    "trainer.accumulate_grad_batches": (1, 1_000_000),
    "trainer.gradient_clip_val": (0, MANY),
    "trainer.reload_dataloaders_every_n_epochs": (0, MANY),
    "guards.zero_variance_patience": (0, MANY),
    "guards.zero_accepted_patience": (0, MANY),
    "guards.max_logprob_gap": (0, MANY),
    "guards.min_diversity": (0, 1),
    "guards.max_reward_rise": (0, MANY),
    "guards.max_accuracy_drop": (0, 1),
    "images.count": (1, 1000),
    "images.columns": (1, 100),
}
"""By dotted name below the subcommand: least and most. Who is not asked is asked by its own constructor."""


def check_numbers(config: Namespace) -> None:
    """Refuse numbers that would fail later, or take a machine down; and a run that has no folder.

    Args:
        config: As parsed, with its subcommand.

    Raises:
        UserError: for the first.
    """
    command = config.get("subcommand")
    for option, (low, high) in LIMITS.items() if command else ():
        value = config.get(f"{command}.{option}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            owner, _, name = option.rpartition(".")
            check_range(low, high, owner or "config", **{name: value})
    folder = f"{command}.trainer.default_root_dir"
    if command and folder in config and config.get(folder) is None:
        raise UserError("trainer.default_root_dir: null is no folder; give one, or leave the option out for 'runs'")


def check_text(value: object) -> None:
    """Refuse null bytes anywhere in a config: no file and no folder can be called so.

    Args:
        value: As loaded, of any depth.

    Raises:
        UserError: there is one.
    """
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"a null byte in {value[:60]!r}; take it out")
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_text(part)


def never_null(owner: Any) -> set[str]:
    """The arguments of a class that cannot be None, for which jsonargparse nevertheless lets null pass.

    Args:
        owner: The class. Constructors of its bases count, for `**kwargs` passes their arguments on.
    """
    found: set[str] = set()
    for base in reversed(owner.__mro__) if inspect.isclass(owner) else []:
        if inspect.isfunction(function := vars(base).get("__init__")):
            defaults, hints = inspect.signature(function).parameters, hints_of(function)
            takers = {name for name, hint in hints.items() if hint in (Any, None) or type(None) in get_args(hint)}
            found = (found - takers) | {
                n for n in {*hints} - takers if n in defaults and defaults[n].default is not None
            }
    return found


def check_null(config: Mapping[str, Any], filled: Collection[str], prefix: str = "") -> None:
    """Refuse null where a value must be; keys may be nested or dotted.

    Args:
        config: As loaded from YAML.
        filled: Dotted names of arguments that cannot be None.
        prefix: The dotted key of `config` itself, with its last dot.

    Raises:
        UserError: for the first null.
    """
    for key, value in config.items():
        name = f"{prefix}{key}"
        if value is None and name in filled:
            raise UserError(f"{name}: null says nothing here; give a value, or leave the option out for its default")
        if isinstance(value, Mapping):
            check_null(value, filled, f"{name}.")
