"""Comparisons, random state and messages that the conformance classes share."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def is_equal(first: object, second: object) -> bool:
    """Whether two values are equal bit for bit, including tensors, dataclasses and containers. NaN equals NaN.

    Example:
        >>> is_equal({"a": torch.ones(2)}, {"a": torch.ones(2)}), is_equal(torch.ones(2), torch.zeros(2))
        (True, False)
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        comparable = first.shape == second.shape and first.dtype == second.dtype
        return comparable and torch.equal(first.nan_to_num(), second.nan_to_num())
    if is_dataclass(first) and type(first) is type(second):
        return all(is_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(is_equal(a, b) for a, b in zip(first, second, strict=True))
    return first == second


def max_difference(first: Tensor, second: Tensor) -> float:
    """Largest absolute difference of two tensors; infinite where shapes differ or a number is NaN.

    Example:
        >>> max_difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
        0.5
    """
    if first.shape != second.shape:
        return float("inf")
    difference = (first.detach().double() - second.detach().double()).abs()
    return float(difference.nan_to_num(nan=float("inf")).max()) if difference.numel() else 0.0


def find_modules(value: object, skip: Sequence[type] = ()) -> Iterator[nn.Module]:
    """The modules that an object is or holds, in its attributes, in containers and in the objects in them.

    Args:
        value: The object to search.
        skip: Classes whose instances are not searched.

    Example:
        >>> [type(module).__name__ for module in find_modules({"a": [nn.Linear(1, 1)]})]
        ['Linear']
    """
    visited: dict[int, object] = {}  # holds references, so that no id is reused during the search

    def visit(value: Any) -> Iterator[nn.Module]:
        if id(value) in visited or isinstance(value, (*skip, str, Tensor, type, ModuleType)):
            return
        visited[id(value)] = value
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, Mapping):
            yield from chain.from_iterable(map(visit, list(value.values())))
        elif isinstance(value, list | tuple | set | frozenset):
            yield from chain.from_iterable(map(visit, list(value)))
        else:
            yield from visit(dict(getattr(value, "__dict__", {})))

    return visit(value)


def make_generator(seed: int = 0) -> torch.Generator:
    """A CPU generator with a seed."""
    return torch.Generator().manual_seed(seed)


def seed_global_rngs(seed: int) -> None:
    """Seed the global generators of Python and PyTorch, which must have no effect on a plugin."""
    random.seed(seed)
    torch.manual_seed(seed)


def global_rng_state() -> tuple[Tensor, object]:
    """State of the global generators of PyTorch and Python."""
    return torch.get_rng_state(), random.getstate()


def call_without_global_rng(method: str, call: Callable[[], T], seed: int = 1) -> T:
    """Call a function and assert that it does not use the global generators of PyTorch and Python.

    Args:
        method: Name of the method in messages.
        call: The function.
        seed: Seed of the global generators, which must have no effect.
    """
    python_state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            seed_global_rngs(seed)
            torch_before, python_before = global_rng_state()
            result = call()
            torch_after, python_after = global_rng_state()
        advice = "take every random number from the `generator` argument"
        assert is_equal(torch_before, torch_after), f"{method} uses PyTorch's global random numbers; {advice}"
        assert python_before == python_after, f"{method} uses Python's global random numbers; {advice}"
    finally:
        random.setstate(python_state)
    return result


def method_name(instance: object, method: str) -> str:
    """Name of a method in messages, such as "Keyword.score"."""
    return f"{type(instance).__name__}.{method}"


def describe_type(value: object) -> str:
    """Type of a value in messages: "None", "a list"."""
    return "None" if value is None else f"a {type(value).__name__}"
