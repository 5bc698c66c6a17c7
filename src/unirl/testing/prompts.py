"""The conformance class of sources of prompts."""

import os
import pickle
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import pytest

from unirl.prompts.base import Prompts
from unirl.testing.comparison import describe_type, global_rng_state, is_equal, method_name, seed_global_rngs
from unirl.testing.subprocesses import SubprocessError, run_in_subprocesses
from unirl.types import Example, Item
from unirl.unicode import normalize_text

SEEDED = "make a random.Random from both, such as Random(f'{seed}/{index}')"
UNORDERED = "avoid hash(), id() and the order of sets; sort, or seed random.Random with a string"


class PromptsConformance(ABC):
    """Checks the contract of a source of prompts. Derive a test class from it and define `make`.

    A failed check names the method, what it returned and what is expected.

    Example:
        >>> from unirl.prompts.geneval import GenEval
        >>> class TestGenEval(PromptsConformance):
        ...     def make(self):
        ...         return GenEval()
        >>> TestGenEval().test_examples_are_complete()
    """

    num_samples: ClassVar[int] = 300
    """Number of training examples to check."""
    num_held_out: ClassVar[int] = 24
    """Number of held-out examples to request."""

    @abstractmethod
    def make(self) -> Prompts:
        """A new source of prompts."""

    def test_sample_depends_only_on_seed_and_index(self) -> None:
        """Seed and index determine each training example, in any order."""
        prompts = self.make()
        assert isinstance(prompts, Prompts), f"make returned {describe_type(prompts)}, expected a unirl.prompts.Prompts"
        method, examples = method_name(prompts, "sample"), self._samples(prompts)
        seed_global_rngs(1)
        before = global_rng_state()
        repeated = [prompts.sample(0, i) for i in reversed(range(self.num_samples))][::-1]
        assert is_equal(before, global_rng_state()), f"{method} uses global random numbers; {SEEDED}"
        i = _first_difference(examples, repeated)
        assert i is None, f"{method}(0, {i}) returned another example when called in another order; {SEEDED}"
        i = _first_difference(examples, self._samples(self.make()))
        assert i is None, f"{method}(0, {i}) of a second source from make returned another example; {SEEDED}"

    def test_other_processes_give_the_same_examples(self) -> None:
        """A process with another hash seed gives the same examples."""
        prompts = self.make()
        for value, name in ((prompts, type(prompts).__name__), (prompts.sample(0, 0), "an example")):
            try:
                pickle.dumps(value)
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{name} cannot be pickled, which data loader workers need: {cause}") from error
        # Functions of this package would make the process import all of it.
        sample: Callable[[], list[Example]] = partial(list, map(partial(prompts.sample, 0), range(self.num_samples)))
        calls: list[Callable[[], list[Example]]] = [sample, partial(prompts.held_out, self.num_held_out)]
        hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
        try:
            samples, held_out = run_in_subprocesses(calls, type(prompts), {"PYTHONHASHSEED": hash_seed})
        except SubprocessError as error:
            raise AssertionError(f"{type(prompts).__name__} failed in another process: {error}") from None
        i = _first_difference(self._samples(prompts), samples)
        method = method_name(prompts, "sample")
        assert i is None, f"{method}(0, {i}) returned another example in another process; {UNORDERED}"
        method = method_name(prompts, "held_out")
        equal = held_out == prompts.held_out(self.num_held_out)
        assert equal, f"{method} returned other examples in another process; {UNORDERED}"

    def test_examples_are_complete(self) -> None:
        """Each example has a prompt, question, answer and category, and valid objects."""
        prompts = self.make()
        for i, example in enumerate(self._samples(prompts)):
            _assert_complete(example, f"{method_name(prompts, 'sample')}(0, {i})", prompts.categories)
            place: object = prompts.location(example)
            assert place is None or isinstance(place, str), (
                f"{method_name(prompts, 'location')} returned {describe_type(place)}, expected text or None"
            )
        for i, example in enumerate(prompts.held_out(self.num_held_out)):
            call = f"{method_name(prompts, 'held_out')}({self.num_held_out})[{i}]"
            _assert_complete(example, call, prompts.categories)

    def test_seeds_give_different_examples(self) -> None:
        """Another seed gives other training examples."""
        prompts = self.make()
        first, second = self._samples(prompts), self._samples(prompts, seed=1)
        if len(set(first)) < 3:
            pytest.skip("the source has fewer than 3 different examples")
        assert first != second, (
            f"{method_name(prompts, 'sample')} returned equal examples for seeds 0 and 1; use `seed`"
        )

    def test_large_seeds_and_indices_work(self) -> None:
        """Large seeds and indices give complete examples."""
        prompts = self.make()
        for seed, index in ((0, 10**9), (2**62, 3), (2**62, 2**40)):
            call = f"{method_name(prompts, 'sample')}({seed}, {index})"
            try:
                example = prompts.sample(seed, index)
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{call} failed with {cause}; every index from 0 on must work") from error
            _assert_complete(example, call, prompts.categories)

    def test_examples_can_be_pickled(self) -> None:
        """Pickle restores an equal example."""
        prompts = self.make()
        example = prompts.sample(0, 0)
        restored = pickle.loads(pickle.dumps(example))
        assert restored == example, (
            f"{method_name(prompts, 'sample')} returned {example!r}, which pickle restores as "
            f"{restored!r}; they must be equal"
        )

    def test_held_out_prompts_are_never_sampled(self) -> None:
        """No training prompt is a held-out prompt, however they are written."""
        prompts = self.make()
        held_out = {normalize_text(example.prompt) for example in prompts.held_out(10 * self.num_held_out)}
        for seed in (0, 1):
            for i, example in enumerate(self._samples(prompts, seed)):
                assert normalize_text(example.prompt) not in held_out, (
                    f"{method_name(prompts, 'sample')}({seed}, {i}) returned the held-out prompt {example.prompt!r}; "
                    "exclude held-out prompts from training"
                )

    def test_categories_can_be_sampled(self) -> None:
        """Each category of `category_shares` can be asked for; seed and index determine the example."""
        prompts, again = self.make(), self.make()
        shares = prompts.category_shares()
        if not shares:
            pytest.skip("the source does not say which categories it has, so data.sampler: adaptive refuses it")
        _assert_shares(shares, method_name(prompts, "category_shares"), prompts)
        held_out = {normalize_text(example.prompt) for example in prompts.held_out(10 * self.num_held_out)}
        for category in shares:
            for i in range(3):
                call = f"{method_name(prompts, 'sample_category')}(0, {i}, {category!r})"
                seed_global_rngs(i)
                example = prompts.sample_category(0, i, category)
                _assert_complete(example, call, (category,))
                seed_global_rngs(i + 1)
                assert again.sample_category(0, i, category) == example, f"{call} returned two examples; {SEEDED}"
                assert normalize_text(example.prompt) not in held_out, (
                    f"{call} returned the held-out prompt {example.prompt!r}; exclude held-out prompts from training"
                )

    def test_every_sampled_category_has_a_share(self) -> None:
        """`category_shares` names the category of each training example."""
        prompts = self.make()
        if shares := prompts.category_shares():
            for i, example in enumerate(self._samples(prompts)):
                assert example.category in shares, (
                    f"{method_name(prompts, 'sample')}(0, {i}) returned the category {example.category!r}, which "
                    f"{method_name(prompts, 'category_shares')} does not name: {shares}"
                )

    def test_train_examples_are_those_that_are_sampled(self) -> None:
        """A finite list of training examples holds what `sample` returns, and no held-out prompt."""
        prompts = self.make()
        listed, method = list(prompts.train_examples()), method_name(prompts, "train_examples")
        equal = listed == list(self.make().train_examples())
        assert equal, f"{method} of a second source from make returned other examples; {UNORDERED}"
        held_out = {normalize_text(example.prompt) for example in prompts.held_out(10 * self.num_held_out)}
        for i, example in enumerate(listed):
            _assert_complete(example, f"{method}()[{i}]", prompts.categories)
            assert normalize_text(example.prompt) not in held_out, (
                f"{method}()[{i}] is the held-out prompt {example.prompt!r}; leave held-out prompts out"
            )
        for i, example in enumerate(self._samples(prompts) if listed else []):
            assert example in listed, (
                f"{method_name(prompts, 'sample')}(0, {i}) returned {example.prompt!r}, which {method} does not list; "
                "list all training examples, or none"
            )

    def test_held_out_is_deterministic(self) -> None:
        """The held-out examples are a list of at most `count`, the same in every call."""
        prompts = self.make()
        for count in (0, 1, self.num_held_out):
            method = f"{method_name(prompts, 'held_out')}({count})"
            seed_global_rngs(0)
            examples: object = prompts.held_out(count)
            assert isinstance(examples, list), f"{method} returned {describe_type(examples)}, expected a list"
            assert len(examples) <= count, f"{method} returned {len(examples)} examples, expected at most {count}"
            seed_global_rngs(1)
            repeated = prompts.held_out(count) == examples == self.make().held_out(count)
            assert repeated, f"{method} returned other examples in a second call; make a random.Random from its seed"

    def test_held_out_is_balanced_over_categories(self) -> None:
        """Held-out examples are spread evenly over the categories."""
        prompts = self.make()
        counts = Counter(example.category for example in prompts.held_out(self.num_held_out))
        available = Counter(example.category for example in prompts.held_out(20 * self.num_held_out))
        for category, total in available.items():
            count, most = counts[category], max(counts.values(), default=0)
            assert count >= min(most - 1, total), (
                f"{method_name(prompts, 'held_out')}({self.num_held_out}) returned {count} examples of {category!r} "
                f"and {most} of another category; take one of each category in turn"
            )

    def _samples(self, prompts: Prompts, seed: int = 0) -> list[Example]:
        return [prompts.sample(seed, i) for i in range(self.num_samples)]


def _assert_complete(example: object, call: str, categories: tuple[str, ...]) -> None:
    assert isinstance(example, Example), f"{call} returned {describe_type(example)}, expected a unirl.Example"
    for name in ("prompt", "question", "answer", "category"):
        assert getattr(example, name).strip(), f"{call} returned an empty {name}, expected text"
    known = not categories or example.category in categories
    assert known, f"{call} returned the category {example.category!r}, expected one of `categories`: {categories}"
    for name in ("objects", "exclude"):
        items = getattr(example, name)
        valid = isinstance(items, tuple) and all(isinstance(item, Item) for item in items)
        assert valid, f"{call} returned {name} {items!r}, expected a tuple of unirl.Item"


def _assert_shares(shares: object, method: str, prompts: Prompts) -> None:
    assert isinstance(shares, dict), f"{method} returned {describe_type(shares)}, expected a dict"
    valid = all(share > 0 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-6
    assert valid, f"{method} returned {shares}, expected shares above 0 that sum to 1"
    unknown = set(shares) - set(prompts.categories or shares)
    assert not unknown, f"{method} names {sorted(unknown)}, expected some of `categories`: {prompts.categories}"


def _first_difference(first: list[Example], second: list[Example]) -> int | None:
    return next((i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]), None)
