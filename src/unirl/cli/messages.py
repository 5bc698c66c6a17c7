"""Error messages of the command line: one line that names the option and what is allowed."""

import argparse
import re
import sys
from collections.abc import Iterable
from typing import NoReturn

from unirl.errors import UserError, suggest

_OPTION = re.compile(
    r"(?:Option|(?:Subcommand|Group) '[^']*' does not accept option) '(?P<key>[^']+)'(?: is not accepted)?"
    r"|unrecognized arguments: --(?P<flag>[^\s=]+).*"
)
_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_TYPE = re.compile(r"Expected an? (?!dot import)")
_BOILERPLATE = re.compile(
    r"a class path|a dict with|Subclass types expect|Given value|Subtypes:|Errors:|Does not validate|Expected a path"
    r"|Problem with"
)
# Optimizers and schedulers are callables that make an object: their type and parsed form say nothing to users.
_CALLABLE = re.compile(r"Type typing\.Callable\[.*\] expects a function or a callable class: ")
_GOT_OBJECT = re.compile(r"\. Got value: (?:Namespace|NestedArg)\((?:class_path='([^']+)')?.*\)$", re.MULTILINE)
_NO_CLASS = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'(?:\. Got value: .*)?")


def explain_option(message: str, options: Iterable[str]) -> str:
    """Replace a message about an unknown option by one that names the nearest valid options.

    Args:
        message: jsonargparse's message. Messages about something else are returned unchanged.
        options: The dotted names of the valid options.

    Example:
        >>> explain_option("Option 'data.sed' is not accepted", ["data.seed", "data.prompts", "trainer.devices"])
        "no option 'data.sed'; nearest: data.seed"
    """
    match = _OPTION.search(message)
    options = list(options)
    if not match or not options:
        return message
    known = ""
    for part in (match["key"] or match["flag"]).split("."):
        unknown = f"{known}{part}"
        if not any(option.startswith(f"{unknown}.") for option in options):
            break
        known = f"{unknown}."
    siblings = {option.removeprefix(known).split(".")[0] for option in options if option.startswith(known)}
    offer = suggest(part, siblings, prefix=known)
    return f"{message[: match.start()]}no option {unknown!r}; {offer}{message[match.end() :]}"


def root_message(message: str) -> str:
    r"""The innermost reason in a nested message, with the key that it is about, as one line.

    Args:
        message: jsonargparse's message, nested by indentation.

    Example:
        >>> root_message('Parser key "data.seed":\n  Expected a <class \'int\'>. Got value: abc')
        'data.seed: expected int, got abc'
    """
    message = _GOT_OBJECT.sub(_in_class, _CALLABLE.sub("", message))
    lines = [(len(line) - len(line.lstrip(" ")), line.strip(" -")) for line in message.splitlines() if line.strip()]
    reasons = [i for i, (_, text) in enumerate(lines) if not _BOILERPLATE.match(text)]
    if not reasons:
        return " ".join(message.split())
    chosen = max(reasons, key=lambda i: ("no option '" in lines[i][1], lines[i][0], -i))
    ancestors = list(_ancestors(lines, chosen))
    keys = [match[1] for text in ancestors if (match := _KEY.search(text))]
    classes = [match[1] for text in ancestors if (match := _CLASS.search(text))]
    key = ".".join(reversed(keys))
    prefix, suffix = f"{key}: " if key else "", f" (in {classes[0]})" if classes else ""
    return prefix + _simplify(_reason(lines, chosen)) + suffix


def _in_class(match: re.Match[str]) -> str:
    return f" (in {match[1]})" if match[1] else ""


def _ancestors(lines: list[tuple[int, str]], chosen: int) -> Iterable[str]:
    depth = lines[chosen][0] + 1
    for indent, text in reversed(lines[: chosen + 1]):
        if indent < depth:
            depth = indent
            yield text


def _reason(lines: list[tuple[int, str]], chosen: int) -> str:
    depth, text = lines[chosen]
    if not _TYPE.match(text):
        return text
    rest = [line for _, line in lines[chosen:]]
    # The members of a union fail one after the other at the same depth; all of them are allowed.
    members = [line for indent, line in lines if indent == depth and _TYPE.match(line)]
    types = dict.fromkeys(_TYPE.sub("", line).split(". Got")[0] for line in members)
    allowed = " or ".join(sorted(types, key=lambda one: "NoneType" in one))  # as they are written: null last
    value = re.search(r"(?:Got value|Given value): (.*?)( \(in [\w.]+\))?$", "\n".join(rest), re.MULTILINE)
    return f"Expected a {allowed}" + (f". Got value: {value[1]}{value[2] or ''}" if value else "")


def _simplify(text: str) -> str:
    text = _KEY.sub("", text).strip(": ")
    text = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", text).replace("NoneType", "null")
    text = re.sub(r"typing\.Literal\[([^\]]*)\]", r"one of \1", text)
    text = re.sub(r"Not a valid subclass of (\w+)", r"expected the name or class path of a \1", text)
    text = re.sub(r"Expected a dot import path string: (.*)", r"no class \1; give its full class path", text)
    text = re.sub(r'Unable to load config "(.*)"', r"expected options by name, or the path of a config, got \1", text)
    text = _NO_CLASS.sub(_nearest_classes, text)
    text = re.sub(r"(required: |, )(?:fit|validate|test)\.", r"\1", text)
    return text.replace("Expected a ", "expected ").replace(". Got value: ", ", got ")


def _nearest_classes(match: re.Match[str]) -> str:
    module, name = match[1], match[2]
    members = vars(sys.modules[module]) if module in sys.modules else {}
    classes = [key for key, value in members.items() if isinstance(value, type)]
    hint = f"; {suggest(name, classes)}" if classes else ""
    return f"module {module!r} has no class {name!r}{hint}"


class CommandParser(argparse.ArgumentParser):
    """An `argparse` parser whose errors are one line instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Report an error of the command line.

        Raises:
            UserError: always.
        """
        options = [flag.removeprefix("--") for action in self._actions for flag in action.option_strings]
        message = explain_option(message, options)
        raise UserError(f"{self.prog.removeprefix('unirl ')}: {message}; see `{self.prog} --help`")
