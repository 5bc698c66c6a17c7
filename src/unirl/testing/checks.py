"""What several conformance classes ask: are two values the same, what does an object hold, does chance matter?"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def same(first: object, second: object) -> bool:
    """Whether two values are equal to the last bit, tensors and dataclasses included; NaN equals NaN.

    Example:
        >>> same({"a": torch.ones(2)}, {"a": torch.ones(2)}), same(torch.ones(2), torch.zeros(2))
        (True, False)
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        alike = first.shape == second.shape and first.dtype == second.dtype
        return alike and torch.equal(first.nan_to_num(), second.nan_to_num())
    if is_dataclass(first) and type(first) is type(second):
        return all(same(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return first == second


def held_modules(thing: object, skip: Sequence[type] = ()) -> Iterator[nn.Module]:
    """The modules that an object is or holds, in its attributes and in containers and plain objects among them.

    Args:
        thing: Where to look.
        skip: Classes whose objects are left out.

    Example:
        >>> [type(m).__name__ for m in held_modules({"a": [nn.Linear(1, 1)]})]
        ['Linear']
    """
    seen: dict[int, object] = {}  # kept alive, lest another object takes over the number

    def inside(value: Any) -> Iterator[nn.Module]:
        if id(value) in seen or isinstance(value, (*skip, str, Tensor, type, ModuleType)):
            return
        seen[id(value)] = value
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, Mapping):
            yield from chain.from_iterable(map(inside, list(value.values())))
        elif isinstance(value, list | tuple | set | frozenset):
            yield from chain.from_iterable(map(inside, list(value)))
        else:
            yield from inside(dict(getattr(value, "__dict__", {})))

    return inside(thing)


def stir(seed: int) -> None:
    """Put the global generators of Python and torch elsewhere: what is counted must not notice."""
    random.seed(seed)
    torch.manual_seed(seed)


def who(thing: object, method: str) -> str:
    """How messages name a method, such as "Keyword.score"."""
    return f"{type(thing).__name__}.{method}"
