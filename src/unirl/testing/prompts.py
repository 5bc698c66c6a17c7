"""What every source of prompts promises: derive a test class, say how to make one, and run pytest."""

import pickle
import random
from abc import ABC, abstractmethod
from collections import Counter
from typing import ClassVar

import pytest
import torch

from unirl.prompts.base import Prompts
from unirl.testing.checks import same, stir, who
from unirl.testing.elsewhere import in_another_process
from unirl.types import Example, Item


class PromptsConformance(ABC):
    """Checks that a source of prompts keeps the contract; a message says in a sentence what is wrong, and where.

    Example:
        >>> from unirl.prompts.geneval import GenEval
        >>> class TestGenEval(PromptsConformance):
        ...     def make(self):
        ...         return GenEval()
        >>> TestGenEval().test_examples_are_complete()
    """

    draws: ClassVar[int] = 300
    """Training examples looked at."""
    count: ClassVar[int] = 24
    """Held-out examples asked for."""

    @abstractmethod
    def make(self) -> Prompts:
        """A fresh source."""

    def test_a_draw_is_decided_by_seed_and_index(self) -> None:
        prompts = self.make()
        assert isinstance(prompts, Prompts), f"make gave a {type(prompts).__name__}, which is no unirl.prompts.Prompts"
        first = self._drawn(prompts)
        stir(1)
        before = torch.get_rng_state(), random.getstate()
        backwards = [prompts.sample(0, i) for i in reversed(range(self.draws))][::-1]
        untouched = same(before, (torch.get_rng_state(), random.getstate()))
        told = "make a random.Random from both, such as Random(f'{seed}/{index}')"
        where = who(prompts, "draw")
        assert untouched, f"{where} draws from a global generator: {told}"
        at = _differing(first, backwards)
        assert at is None, f"{where}(0, {at}) gave another example when asked again in another order: {told}"
        at = _differing(first, self._drawn(self.make()))
        assert at is None, f"{where}(0, {at}) gives another example when the source is made anew: {told}"

    def test_other_processes_draw_the_same(self) -> None:
        prompts = self.make()
        for thing, what in ((prompts, type(prompts).__name__), (prompts.sample(0, 0), "an example")):
            try:
                pickle.dumps(thing)
            except Exception as error:
                told = f"{what} cannot be pickled, as workers need: {type(error).__name__}: {error}"
                raise AssertionError(told) from error
        drawn, held = in_another_process(prompts, self.draws, self.count)
        told = "a set, hash() or id() decides; sort, or seed random.Random with a string"
        at = _differing(self._drawn(prompts), drawn)
        assert at is None, f"{who(prompts, 'draw')}(0, {at}) gives another example in another process: {told}"
        alike = held == prompts.held_out(self.count)
        assert alike, f"{who(prompts, 'held_out')} gives other examples in another process: {told}"

    def test_examples_are_complete(self) -> None:
        prompts = self.make()
        for i, example in enumerate(self._drawn(prompts)):
            _assert_complete(example, f"{who(prompts, 'draw')}(0, {i})", prompts.categories)
        for i, example in enumerate(prompts.held_out(self.count)):
            _assert_complete(example, f"{who(prompts, 'held_out')}({self.count})[{i}]", prompts.categories)

    def test_other_seeds_draw_others(self) -> None:
        prompts = self.make()
        first, second = self._drawn(prompts), self._drawn(prompts, seed=1)
        if len(set(first)) < 3:
            pytest.skip("it has too few examples to tell")
        assert first != second, f"{who(prompts, 'draw')} gives the same examples for seed 0 and seed 1: it ignores seed"

    def test_large_numbers_work(self) -> None:
        prompts, where = self.make(), who(self.make(), "draw")
        for seed, index in ((0, 10**9), (2**62, 3), (2**62, 2**40)):
            try:
                example = prompts.sample(seed, index)
            except Exception as error:
                raise AssertionError(f"{where}({seed}, {index}) fails: {type(error).__name__}: {error}") from error
            _assert_complete(example, f"{where}({seed}, {index})", prompts.categories)

    def test_examples_come_back_from_a_pickle(self) -> None:
        prompts = self.make()
        example = prompts.sample(0, 0)
        assert pickle.loads(pickle.dumps(example)) == example, f"{who(prompts, 'draw')} gave one that pickle changes"

    def test_held_out_examples_are_never_drawn(self) -> None:
        prompts = self.make()
        held = {_plain(example.prompt) for example in prompts.held_out(10 * self.count)}
        for seed in (0, 1):
            for i, example in enumerate(self._drawn(prompts, seed)):
                assert _plain(example.prompt) not in held, (
                    f"{who(prompts, 'draw')}({seed}, {i}) gave the held-out prompt {example.prompt!r}: what is "
                    "measured with must never be trained on"
                )

    def test_held_out_examples_are_always_the_same(self) -> None:
        prompts, where = self.make(), who(self.make(), "held_out")
        for count in (0, 1, self.count):
            stir(0)
            first = prompts.held_out(count)
            assert isinstance(first, list), f"{where} returned a {type(first).__name__}, expected a list"
            assert len(first) <= count, f"{where}({count}) gave {len(first)} examples; at most {count} were asked for"
            stir(1)
            again = prompts.held_out(count) == first == self.make().held_out(count)
            assert again, f"{where}({count}) gives other examples when asked again: make a random.Random from its seed"

    def test_held_out_examples_are_spread_over_the_categories(self) -> None:
        prompts = self.make()
        counts = Counter(example.category for example in prompts.held_out(self.count))
        pool = Counter(example.category for example in prompts.held_out(20 * self.count))
        for category, available in pool.items():
            got, most = counts[category], max(counts.values(), default=0)
            assert got >= min(most - 1, available), (
                f"{who(prompts, 'held_out')}({self.count}) gave {got} examples of {category!r} and {most} of another "
                "category: spread them evenly, category by turn"
            )

    def _drawn(self, prompts: Prompts, seed: int = 0) -> list[Example]:
        return [prompts.sample(seed, i) for i in range(self.draws)]


def _assert_complete(example: object, where: str, categories: tuple[str, ...]) -> None:
    assert isinstance(example, Example), f"{where} gave a {type(example).__name__}, expected a unirl.types.Example"
    for name in ("prompt", "question", "answer", "category"):
        text = getattr(example, name)
        assert isinstance(text, str), f"{where} gave the {name} {text!r}, expected a string"
        assert text.strip(), f"{where} gave an empty {name}"
    known = not categories or example.category in categories
    assert known, f"{where} gave the category {example.category!r}, which categories leaves out"
    for name in ("objects", "exclude"):
        items = getattr(example, name)
        fine = isinstance(items, tuple) and all(isinstance(item, Item) and item.count > 0 for item in items)
        assert fine, f"{where} gave {name} {items!r}, expected a tuple of unirl.types.Item, each with a count from 1 on"
    for i, item in enumerate(example.objects):
        earlier = item.relation is None or 0 <= item.relation[1] < i
        assert earlier, f"{where} gave objects[{i}] a relation to {item.relation}, which is no earlier object"


def _differing(first: list[Example], second: list[Example]) -> int | None:
    return next((i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]), None)


def _plain(prompt: str) -> str:
    return " ".join(prompt.casefold().split())
