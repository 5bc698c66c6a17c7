"""LightningCLI's parser, with registered names in place of class paths, and errors of one line."""

import inspect
import os
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace, get_loader
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unirl.cli.class_changes import class_changes, default_options, sources_of
from unirl.cli.messages import explain_option, root_message
from unirl.cli.validation import (
    check_keys,
    check_lost_text,
    check_null,
    check_numbers,
    check_text,
    json_as_yaml,
    required_values,
)
from unirl.errors import UserError
from unirl.hooks.arguments import (
    PluginArgument,
    format_value,
    plugin_argument,
    plugin_arguments,
    registered_name,
    resolve,
    resolve_all,
    with_names,
)
from unirl.hooks.configs import option_values

# A default of Lightning's Timer is a member of an enum, which no safe dumper can write.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))
# jsonargparse reads these as numbers, and PyYAML does not: a text "1e-5" must be written with quotes.
_FLOAT = re.compile(r"^(?:[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+|\.[0-9_]+(?:[eE][-+][0-9]+)?)$")
yaml.SafeDumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))

SWITCH = "enabled"
"""Option of a group that can be switched off as a whole."""


class PluginParser(LightningArgumentParser):
    """Replaces registered names by class paths, then parses like its base class.

    All user input enters jsonargparse by `parse_args`, `parse_string` (also for files) or `parse_object`, and the
    arguments of each plugin are parsed by a parser of the same class. Overriding these three public methods therefore
    covers YAML and the command line at any depth. Merging, defaults, help and saved configs are left to jsonargparse,
    which sees class paths only. The types of arguments are known from `add_class_arguments`, which is also public.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._plugin_arguments: dict[str, PluginArgument] = {}
        self._required_values: set[str] = set()
        self._switches: set[str] = set()
        # An abbreviation may be a misspelt option.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_class_arguments(self, theclass: Any, nested_key: str | None = None, *args: Any, **kwargs: Any) -> list[str]:
        """Add the arguments of a constructor, and remember which of them take plugins, and what can be switched off."""
        prefix = f"{nested_key}." if nested_key else ""
        self._plugin_arguments |= {f"{prefix}{name}": one for name, one in plugin_arguments(theclass).items()}
        self._required_values |= {f"{prefix}{name}" for name in required_values(theclass)}
        if nested_key and SWITCH in inspect.signature(theclass).parameters:
            self._switches.add(nested_key)
        return super().add_class_arguments(theclass, nested_key, *args, **kwargs)

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse command-line arguments.

        Raises:
            UserError: an argument is wrong.
        """
        argv = args and list(self._resolve_argv(args))
        config = super().parse_args(argv, *rest, **kwargs)
        check_numbers(config)
        for option, value in option_values(argv or ()):
            command = f"{config.get('subcommand')}." if config.get("subcommand") else ""
            check_lost_text({option: value}, {option: config.get(f"{command}{option.lstrip('-')}", value)})
        if argv and self._plugin_arguments:
            given = sources_of(argv, lambda one: resolve_all(one, self._plugin_arguments))
            defaults = (default_options(action.dest, action.default) for action in self._actions)
            for line in class_changes([*defaults, *given], config, self._class_name):
                rank_zero_info(line)
        return config

    def parse_object(self, obj: Any, *rest: Any, **kwargs: Any) -> Namespace:
        """Parse nested dictionaries.

        Raises:
            UserError: a value is wrong.
        """
        if isinstance(obj, Namespace) and self._plugin_arguments:
            obj = _top_level(obj)
        if isinstance(obj, dict):
            check_null(obj, self._required_values)
            obj = resolve_all(obj, self._plugin_arguments)
        return super().parse_object(obj, *rest, **kwargs)

    def parse_path(self, path: Any, *rest: Any, **kwargs: Any) -> Namespace:
        """Parse a config file.

        Raises:
            UserError: the file is wrong. The message starts with its name.
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
            UserError: the text is not YAML, or a value is wrong.
        """
        content = json_as_yaml(content)
        try:
            config = get_loader(self.parser_mode)(content)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"line {mark.line + 1}: " if mark else ""
            raise UserError(f"{where}not valid YAML: {error.problem or error.context}") from error
        except (yaml.YAMLError, ValueError) as error:  # control characters, invalid dates and numbers
            raise UserError(f"not valid YAML: {error}") from error
        if not isinstance(config, dict):
            raise UserError(f"expected options by name, such as 'model: ...', got {content.strip()[:60]!r}")
        check_text(config)
        check_keys(content)
        # `export: false` is short for `export: {enabled: false}`.
        config = {
            key: {SWITCH: value} if key in self._switches and isinstance(value, bool) else value
            for key, value in config.items()
        }
        self._check_options(config)
        check_null(config, self._required_values)
        # Quoted and tagged, because a plain 1e-5 is a number to one loader and a string to another.
        config = resolve_all(config, self._plugin_arguments)
        parsed = super().parse_string(yaml.safe_dump(config, default_style='"', sort_keys=False), *rest, **kwargs)
        check_lost_text(config, parsed)
        return parsed

    def dump(self, namespace: Any, format: str = "parser_mode", *rest: Any, **kwargs: Any) -> str:
        """Write a config as text, with registered names in place of class paths."""
        if "skip_none" in kwargs:  # Lightning passes it by its old name
            kwargs["skip_unset"] = kwargs.pop("skip_none")
        text = super().dump(namespace, format, *rest, **kwargs)
        if not self._plugin_arguments or format not in ("parser_mode", "yaml") or kwargs.get("with_comments"):
            return text
        header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        config = with_names(yaml.safe_load(text) or {}, self._plugin_arguments)
        return header + yaml.safe_dump(config, sort_keys=False, default_flow_style=False, allow_unicode=True)

    def instantiate_classes(self, cfg: Any, **kwargs: Any) -> Namespace:
        """Make the objects of a config. LightningCLI calls it by this name, which jsonargparse 5 no longer has.

        Raises:
            UserError: a constructor did not accept its arguments.
        """
        try:
            return self.instantiate(cfg, **kwargs)
        except (MisconfigurationException, ValueError, TypeError, OverflowError) as error:
            raise UserError(f"an object of the config cannot be made: {root_message(str(error))}") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error instead of printing the usage page.

        Raises:
            UserError: always, except in parsers of plugin arguments, whose errors their parent parser reports.
        """
        # An error about a subcommand's option comes from the main parser, which does not know the option.
        parser = getattr(ex, "subcommand_parser", None) or self
        message = explain_option(message, parser._options())
        if not self.exit_on_error:
            super().error(message, ex)
        advice = "; give them in a file: --config FILE" if "arguments are required" in message else ""
        reason = root_message(message)
        if module := re.search(r"No module named '(\w+)' \(in \1\.", reason):
            advice = f"; if it is a file, load it with --plugin {module[1]}.py"
        raise UserError(f"{reason}{advice}") from ex

    def _class_name(self, key: str, class_path: str) -> str:
        argument = self._plugin_arguments.get(key)
        return registered_name(argument.kind, class_path) if argument else class_path

    def _options(self) -> list[str]:
        names = {action.dest.removesuffix("+") for action in self._actions if action.option_strings}
        names = {name for name in names if name.rpartition(".")[2] not in ("help", "print_config", "print_shtab")}
        groups = {name[: dot.start()] for name in names for dot in re.finditer(r"\.", name)}
        return sorted(names - groups)

    def _check_options(self, config: dict[str, Any], prefix: str = "") -> None:
        # jsonargparse checks only the merged config, where the name of the file is lost.
        options = self._options()
        for key, value in config.items():
            name = f"{prefix}{key}".removesuffix("+")
            if any(name == option or name.startswith(f"{option}.") for option in options):
                continue
            if not any(option.startswith(f"{name}.") for option in options):
                self.error(f"Option {name!r} is not accepted")
            if isinstance(value, dict):
                self._check_options(value, f"{name}.")
            elif not isinstance(value, str):  # a string may be the path of a config
                raise UserError(f"{name}: expected options by name below it, got {format_value(value)}")

    def _resolve_argv(self, argv: list[str]) -> Iterator[str]:
        pending: PluginArgument | None = None  # the argument whose value comes next
        for arg in self._switched(argv):
            if pending and not arg.startswith("--"):
                yield _resolve_text(arg, pending)
                pending = None
                continue
            pending = None
            option, equals, value = arg.partition("=")
            argument = plugin_argument(option[2:], self._plugin_arguments) if option.startswith("--") else None
            if argument and equals:
                yield f"{option}={_resolve_text(value, argument)}"
            else:
                pending = argument
                yield arg

    def _switched(self, argv: list[str]) -> Iterator[str]:
        """`--export false` and `--export=false` are short for `--export.enabled=false`."""
        words = iter(argv)
        for word in words:
            option, equals, value = word.partition("=")
            if option.removeprefix("--") not in self._switches or not option.startswith("--"):
                yield word
                continue
            value = value if equals else next(words, "")
            yield f"{option}.{SWITCH}={value}" if value.lower() in ("true", "false") else f"{option}={value}"


def _resolve_text(text: str, argument: PluginArgument) -> str:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # jsonargparse reports the error
    resolved = resolve(value, argument)
    return text if resolved == value else yaml.safe_dump(resolved, default_flow_style=True, width=10**9).split("\n")[0]


def _top_level(config: Namespace) -> dict[str, Any]:
    """The top level only; the parsers of plugin arguments handle what is below."""
    return dict(config.items(branches=True, nested=False))
