"""What a plugin implements, checked against the specifications and ready for pluggy."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from reprlib import Repr
from typing import Any

import unirl
from unirl.errors import UserError, nearest
from unirl.hooks import PROJECT, renamed, specs

MARK = f"{PROJECT}_impl"
"""The attribute in which `hookimpl` leaves its options."""


class Adapter:
    """Holds a plugin's checked functions, for pluggy to find."""


def specifications() -> dict[str, Callable[..., Any]]:
    """Every hook there is, by name."""
    return {name: value for name, value in vars(specs).items() if name.startswith(f"{PROJECT}_")}


def implementations(plugin: object, who: str, trace: bool = False) -> Adapter:
    """What a plugin implements, under the names of today, with the arguments of today.

    pluggy passes over a function without `hookimpl`, takes misspelt hooks until it is asked, and knows no renamed
    ones. So every function is checked here, and pluggy gets wrappers that take what the specification says.

    Args:
        plugin: A module or any object.
        who: Its name, for messages.
        trace: Whether to print every call.

    Raises:
        UserError: a hook or an argument that does not exist, or a function that lacks `@hookimpl`.
    """
    hooks = specifications()
    found = Adapter()
    for name, function, options in _marked(plugin):
        hook = renamed.current(options.get("specname") or name, renamed.HOOKS, "hook", who)
        if hook in hooks:
            passed = _arguments(hook, function, hooks[hook], who)
            setattr(found, hook, _wrapper(hook, function, options, passed, who if trace else ""))
        elif not options.get("optionalhook"):
            offer = nearest(hook, hooks, 1)
            raise UserError(f"unirl {unirl.__version__} has no hook {hook!r}; nearest: {offer}")
    return found


def _marked(plugin: object) -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    known = {*specifications(), *(change.old for change in renamed.HOOKS)}
    for name in dir(plugin):
        # Not getattr, which would run the properties of a callback.
        raw = inspect.getattr_static(plugin, name, None)
        function = getattr(raw, "__func__", raw)
        if not inspect.isfunction(function):
            continue
        options = getattr(function, MARK, None)
        if options is not None:
            yield name, getattr(plugin, name), options
        elif name in known and not hasattr(function, f"{PROJECT}_spec"):
            raise UserError(f"{name!r} is not marked: write @hookimpl above it (from unirl import hookimpl)")


def _arguments(hook: str, function: Callable[..., Any], specified: Callable[..., Any], who: str) -> dict[str, str]:
    """The implementation's arguments, and what each is called today."""
    allowed = list(inspect.signature(specified).parameters)
    passed = {}
    for own, parameter in inspect.signature(function).parameters.items():
        today = renamed.current(own, renamed.ARGUMENTS.get(hook, ()), f"argument of {hook}", who)
        if today in allowed:
            passed[own] = today
        elif parameter.default is parameter.empty and parameter.kind in (0, 1, 3):
            raise UserError(f"{hook} of unirl {unirl.__version__} has no argument {own!r}; it has {', '.join(allowed)}")
    return passed


def _wrapper(
    hook: str, function: Callable[..., Any], options: dict[str, Any], passed: dict[str, str], traced_as: str
) -> Callable[..., Any]:
    specified = specifications()[hook]
    names = list(inspect.signature(specified).parameters)

    def given(values: tuple[Any, ...]) -> dict[str, Any]:
        today = dict(zip(names, values, strict=True))
        return {own: today[name] for own, name in passed.items()}

    def told(values: tuple[Any, ...], result: Any) -> Any:
        if traced_as:
            tell(hook, traced_as, given(values), result)
        return result

    def call(*values: Any) -> Any:
        return told(values, function(**given(values)))

    def around(*values: Any) -> Any:
        return told(values, (yield from function(**given(values))))

    wrapper: Any = around if options.get("wrapper") or options.get("hookwrapper") else call
    wrapper.__wrapped__ = specified  # where pluggy reads which arguments to pass
    setattr(wrapper, MARK, {**options, "specname": hook})
    return wrapper


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def tell(hook: str, who: str, given: Mapping[str, Any], result: object) -> None:
    """Print one call.

    Args:
        hook: What was called.
        who: Whose implementation.
        given: The arguments it took.
        result: What it returned.
    """
    rank = os.environ.get("LOCAL_RANK")
    process = f" [rank {rank}]" if rank else ""
    taken = ", ".join(name if name == "register" else f"{name}={describe(value)}" for name, value in given.items())
    # What a registering hook is for is what it registers; it returns nothing.
    said = str(given["register"]) if "register" in given and result is None else describe(result)
    print(f"trace{process} {hook}({taken})  {who}  -> {said}", file=sys.stderr, flush=True)


def describe(value: object) -> str:
    """A value in a few words: a tensor by its shape and range, anything long cut.

    Args:
        value: Any.

    Example:
        >>> describe({"drawing": 0.5})
        "{'drawing': 0.5}"
    """
    shape = getattr(value, "shape", None)
    if shape is None:
        # What holds pictures would print them.
        return type(value).__name__ if hasattr(value, "__dataclass_fields__") else " ".join(_SHORT.repr(value).split())
    numbers: Any = value
    try:
        span = f", {float(numbers.min()):.3g} to {float(numbers.max()):.3g}"
    except (AttributeError, TypeError, ValueError, RuntimeError):  # nothing in it, or nothing that is a number
        span = ""
    return f"{type(value).__name__} {tuple(shape)}{span}"
