"""Finds the sentence that matters in what jsonargparse says."""

import argparse
import re
from collections.abc import Iterable
from typing import NoReturn

from unirl.errors import UserError, nearest

_OPTION = re.compile(
    r"(?:Option|(?:Subcommand|Group) '[^']*' does not accept option) '(?P<key>[^']+)'(?: is not accepted)?"
    r"|unrecognized arguments: --(?P<flag>[^\s=]+).*"
)
_MOVED = {"accept": "model.rollout.accept_threshold"}
"""Where an option is now that was elsewhere in an earlier version, whose saved configs go on being used."""
_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_TYPE = re.compile(r"Expected an? (?!dot import)")
_BOILERPLATE = re.compile(
    r"a class path|a dict with|Subclass types expect|Given value|Subtypes:|Errors:|Does not validate|Expected a path"
    r"|Problem with"
)


def explain_option(message: str, options: Iterable[str]) -> str:
    """Name the valid options nearest to the one that a message refuses; other messages are left alone.

    Args:
        message: jsonargparse's.
        options: The dotted names that are valid where it was raised.

    Example:
        >>> explain_option("Option 'model.lrr' is not accepted", ["model.lr", "model.betas", "trainer.devices"])
        "no option 'model.lrr'; nearest: model.lr"
    """
    found = _OPTION.search(message)
    options = list(options)
    if not found or not options:
        return message
    known = ""
    for part in (found["key"] or found["flag"]).split("."):
        tried = f"{known}{part}"
        if not any(option.startswith(f"{tried}.") for option in options):
            break
        known = f"{tried}."
    if part in _MOVED:
        return f"{message[: found.start()]}no option {tried!r}; see {_MOVED[part]}{message[found.end() :]}"
    level = {option.removeprefix(known).split(".")[0] for option in options if option.startswith(known)}
    offer = ", ".join(known + name for name in nearest(part, level).split(", "))
    return f"{message[: found.start()]}no option {tried!r}; nearest: {offer}{message[found.end() :]}"


def root_message(message: str) -> str:
    """The innermost reason in a nested message, with the key it is about, as one line.

    Args:
        message: jsonargparse's, whose nesting shows in the indentation.

    Example:
        >>> cause('Parser key "model.lr":\\n  Expected a <class \\'float\\'>. Got value: abc')
        'model.lr: expected float, got abc'
    """
    lines = [(len(line) - len(line.lstrip(" ")), line.strip(" -")) for line in message.splitlines() if line.strip()]
    reasons = [i for i, (_, text) in enumerate(lines) if not _BOILERPLATE.match(text)]
    if not reasons:
        return " ".join(message.split())
    chosen = max(reasons, key=lambda i: ("no option '" in lines[i][1], lines[i][0], -i))
    above = list(_ancestors(lines, chosen))
    keys = [found[1] for text in above if (found := _KEY.search(text))]
    classes = [found[1] for text in above if (found := _CLASS.search(text))]
    text = _reason(lines, chosen)
    where = ".".join(reversed(keys))
    return (f"{where}: " if where else "") + _plain(text) + (f" (in {classes[0]})" if classes else "")


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
    # Members of a union fail side by side: all of them are allowed.
    same = [line for indent, line in lines if indent == depth and line.startswith("Expected a ")]
    allowed = " or ".join(dict.fromkeys(_TYPE.sub("", line).split(". Got")[0] for line in same))
    given = re.search(r"(?:Got value|Given value): (.*)", "\n".join(line for _, line in lines[chosen:]))
    return f"Expected a {allowed}" + (f". Got value: {given[1]}" if given else "")


def _plain(text: str) -> str:
    text = _KEY.sub("", text).strip(": ")
    text = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", text).replace("NoneType", "null")
    text = re.sub(r"typing\.Literal\[([^\]]*)\]", r"one of \1", text)
    text = re.sub(r"Not a valid subclass of (\w+)", r"expected the name or class path of a \1", text)
    text = re.sub(r"Expected a dot import path string: (.*)", r"no class \1; give its full class path", text)
    text = re.sub(r"(required: |, )(?:fit|validate|test)\.", r"\1", text)
    return text.replace("Expected a ", "expected ").replace(". Got value: ", ", got ")


class CommandParser(argparse.ArgumentParser):
    """argparse's, whose refusals are one line; where a page of usage would be printed, it is named."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.prog.removeprefix('unirl ')}: {message}; see `{self.prog} --help`")
