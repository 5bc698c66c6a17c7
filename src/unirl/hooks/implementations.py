"""A plugin's hook implementations: found and checked before pluggy registers them, and printed by `--trace-hooks`."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from reprlib import Repr
from typing import Any

import pluggy

import unirl
from unirl.errors import UserError, suggest
from unirl.hooks import PROJECT, specs


def implementations(plugin: object) -> dict[str, pluggy.HookImpl]:
    """The hook implementations of a plugin, by hook.

    pluggy accepts misspelt hooks until it is asked to check them and ignores functions without `hookimpl`, and its
    errors do not name the hooks and arguments that exist. These are checked here.

    Args:
        plugin: A module or any object.

    Raises:
        UserError: a hook or an argument does not exist, or a function lacks `@hookimpl`.
    """
    hooks = specs.specifications()
    for hook in hooks:
        _check_marked(plugin, hook)
    manager = pluggy.PluginManager(PROJECT)  # without specifications, it accepts all implementations
    manager.register(plugin)
    found = {caller.name: caller.get_hookimpls()[0] for caller in manager.get_hookcallers(plugin) or ()}
    for hook, implementation in found.items():
        if hook in hooks:
            _check_arguments(hook, implementation, list(inspect.signature(hooks[hook]).parameters))
        elif not implementation.optionalhook:
            raise UserError(f"unirl {unirl.__version__} has no hook {hook!r}; {suggest(hook, hooks, 1)}")
    return {hook: implementation for hook, implementation in found.items() if hook in hooks}


def _check_marked(plugin: object, hook: str) -> None:
    # `getattr` would run the properties of a callback.
    attribute = inspect.getattr_static(plugin, hook, None)
    function = getattr(attribute, "__func__", attribute)
    marks = f"{PROJECT}_impl", f"{PROJECT}_spec"
    if inspect.isfunction(function) and not any(hasattr(one, mark) for one in (attribute, function) for mark in marks):
        raise UserError(f"{hook!r} is not marked as a hook; write @hookimpl above it (from unirl import hookimpl)")


def _check_arguments(hook: str, implementation: pluggy.HookImpl, allowed: list[str]) -> None:
    unknown = next((name for name in implementation.argnames if name not in allowed), None)
    if unknown is not None:
        version, names = unirl.__version__, ", ".join(allowed)
        raise UserError(f"{hook} of unirl {version} has no argument {unknown!r}; its arguments are: {names}")


# --- tracing ---


class Traced:
    """Holds hook implementations that print their calls, for pluggy to register."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(functions)


def traced(found: Mapping[str, pluggy.HookImpl], plugin_name: str) -> Traced:
    """An object to register with pluggy instead of a plugin, whose hook implementations print their calls.

    pluggy's own monitoring (`add_hookcall_monitoring`, `enable_tracing`) sees only the combined result of all plugins.

    Args:
        found: The plugin's implementations by hook.
        plugin_name: The name to print.
    """
    return Traced({hook: _traced(hook, one, plugin_name) for hook, one in found.items()})


def _traced(hook: str, implementation: pluggy.HookImpl, plugin_name: str) -> Callable[..., Any]:
    function: Any = implementation.function

    @wraps(function)  # pluggy reads the argument names from the wrapped function
    def call(*values: Any) -> Any:
        return log(values, function(*values))

    @wraps(function)
    def call_wrapper(*values: Any) -> Any:
        return log(values, (yield from function(*values)))

    def log(values: tuple[Any, ...], result: Any) -> Any:
        print_call(hook, plugin_name, dict(zip(implementation.argnames, values, strict=True)), result)
        return result

    made: Any = call_wrapper if implementation.wrapper or implementation.hookwrapper else call
    setattr(made, f"{PROJECT}_impl", implementation.opts)
    return made


def print_call(hook: str, plugin_name: str, arguments: Mapping[str, Any], result: object) -> None:
    """Print a hook call to stderr.

    Args:
        hook: The hook.
        plugin_name: The plugin whose implementation was called.
        arguments: The arguments by name.
        result: What it returned. For a registering hook, what it registered is printed instead.
    """
    rank = os.environ.get("LOCAL_RANK")
    prefix = f"trace [rank {rank}]" if rank else "trace"
    shown = ", ".join(name if name == "register" else f"{name}={summarize(value)}" for name, value in arguments.items())
    outcome = str(arguments["register"]) if "register" in arguments and result is None else summarize(result)
    print(f"{prefix} {hook}({shown})  {plugin_name}  -> {outcome}", file=sys.stderr, flush=True)


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 60


def summarize(value: object) -> str:
    """A short text for a value: shape and range of a tensor, type of a dataclass, else a truncated `repr`.

    Args:
        value: Any value.

    Example:
        >>> summarize({"generation": 0.5})
        "{'generation': 0.5}"
    """
    shape = getattr(value, "shape", None)
    if shape is None:
        # The repr of a dataclass may contain whole images.
        return type(value).__name__ if hasattr(value, "__dataclass_fields__") else " ".join(_REPR.repr(value).split())
    tensor: Any = value
    try:
        value_range = f", {float(tensor.min()):.3g} to {float(tensor.max()):.3g}"
    except (AttributeError, TypeError, ValueError, RuntimeError):  # empty, or not numeric
        value_range = ""
    return f"{type(value).__name__} {tuple(shape)}{value_range}"
