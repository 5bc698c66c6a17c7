"""Lines on stderr that say which hook was called and what a plugin returned."""

import os
import sys
from collections.abc import Mapping
from reprlib import Repr
from typing import Any

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
