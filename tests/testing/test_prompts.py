"""PromptsConformance detects errors in a source of prompts and describes them."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar

from unirl.prompts import Prompts
from unirl.testing import PromptsConformance
from unirl.types import Example, Item

Failures = Callable[[object], str]


def cups(number: int) -> Example:
    return Example(f"a photo of {number} cups", "how many ?", f"{number} cups", "few" if number % 2 else "many")


class Cups(Prompts):
    """Correct: up to 100 cups."""

    categories: ClassVar[tuple[str, ...]] = ("few", "many")

    def sample(self, seed: int, index: int) -> Example:
        return cups(Random(f"{seed}/{index}").randrange(100))

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return [cups(100 + i) for i in range(count)]


class GlobalRng(Cups):
    def sample(self, seed: int, index: int) -> Example:
        return cups(random.randrange(100))


class Stateful(Cups):
    def __init__(self) -> None:
        self.random = Random(0)

    def sample(self, seed: int, index: int) -> Example:
        return cups(self.random.randrange(100))


class HashedSample(Cups):
    def sample(self, seed: int, index: int) -> Example:
        return cups(hash(f"{seed}/{index}"))


class UnorderedHeldOut(Cups):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return list({example.prompt: example for example in {*super().held_out(count, seed)}}.values())


class Unpicklable(Cups):
    def __init__(self) -> None:
        self.rule = lambda value: value


class HeldOutInTraining(Cups):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return [replace(cups(90 + i), prompt=f"A photo of  {90 + i} CUPS") for i in range(count)]


class NoAnswer(Cups):
    def sample(self, seed: int, index: int) -> Example:
        return replace(super().sample(seed, index), answer=" ")


class NoQuestionHeldOut(Cups):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return [replace(example, question="") for example in super().held_out(count, seed)]


class UndeclaredCategory(Cups):
    categories = ("few",)


class ListOfObjects(Cups):
    def sample(self, seed: int, index: int) -> Example:
        return replace(super().sample(seed, index), objects=[Item("cup")])  # type: ignore[arg-type]


class NumberAsLocation(Cups):
    def location(self, example: Example) -> str | None:
        return 3  # type: ignore[return-value]


class IgnoredSeed(Cups):
    def sample(self, seed: int, index: int) -> Example:
        return super().sample(0, index)


class FiniteIndices(Cups):
    def sample(self, seed: int, index: int) -> Example:
        return [cups(i % 100) for i in range(seed, seed + 1000)][index]


class TooManyHeldOut(Cups):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return super().held_out(count + 1, seed)


class OneCategory(Cups):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return sorted(super().held_out(200, seed), key=lambda example: example.category)[:count]


class ShuffledHeldOut(Cups):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return random.sample(super().held_out(count, seed), count)


class TextOnly(Cups):
    def sample(self, seed: int, index: int) -> Example:
        return super().sample(seed, index).prompt  # type: ignore[return-value]


@dataclass(frozen=True)
class ReducedExample(Example):
    """Loses its question when it is pickled."""

    def __reduce__(self) -> Any:
        return ReducedExample, (self.prompt, "what ?", self.answer, self.category)


class ChangedByPickle(Cups):
    def sample(self, seed: int, index: int) -> Example:
        example = super().sample(seed, index)
        return ReducedExample(example.prompt, example.question, example.answer, example.category)


class GlobalRngCategory(Cups):
    def sample_category(self, seed: int, index: int, category: str) -> Example:
        return cups(2 * random.randrange(10) + (category == "few"))


class IgnoredCategory(Cups):
    def sample_category(self, seed: int, index: int, category: str) -> Example:
        return self.sample(seed, index)


class HeldOutCategory(Cups):
    def sample_category(self, seed: int, index: int, category: str) -> Example:
        return cups(100 + 2 * index + (category == "few"))


class MissingCategory(Cups):
    categories = ("few", "many", "none")


class SharesAboveOne(Cups):
    def category_shares(self) -> dict[str, float]:
        return {"few": 1.0, "many": 1.0}


class UndeclaredShare(Cups):
    def category_shares(self) -> dict[str, float]:
        return {"few": 0.5, "lots": 0.5}


class SharesOfOneCategory(Cups):
    def category_shares(self) -> dict[str, float]:
        return {"few": 1.0}


class ShortList(Cups):
    def train_examples(self) -> list[Example]:
        return [cups(i) for i in range(50)]


class HeldOutInList(Cups):
    def train_examples(self) -> list[Example]:
        return [cups(i) for i in range(101)]


class UnorderedList(Cups):
    def train_examples(self) -> list[Example]:
        return random.sample([cups(i) for i in range(100)], 100)


PROCESS_CASES: tuple[type[Prompts], ...] = (Cups, HashedSample, UnorderedHeldOut, Unpicklable)

CASES: list[tuple[type[Prompts], str]] = [
    (HashedSample, "HashedSample.sample(0, 0) returned another example in another process; avoid hash()"),
    (UnorderedHeldOut, "UnorderedHeldOut.held_out returned other examples in another process"),
    (Unpicklable, "Unpicklable cannot be pickled, which data loader workers need"),
    (GlobalRng, "GlobalRng.sample uses global random numbers; make a random.Random from both"),
    (Stateful, "returned another example when called in another order"),
    (HeldOutInTraining, "exclude held-out prompts from training"),
    (NoAnswer, "NoAnswer.sample(0, 0) returned an empty answer"),
    (NoQuestionHeldOut, "NoQuestionHeldOut.held_out(24)[0] returned an empty question"),
    (UndeclaredCategory, "returned the category 'many', expected one of `categories`"),
    (ListOfObjects, "ListOfObjects.sample(0, 0) returned objects [Item(name='cup'"),
    (NumberAsLocation, "NumberAsLocation.location returned a int, expected text or None"),
    (IgnoredSeed, "IgnoredSeed.sample returned equal examples for seeds 0 and 1"),
    (FiniteIndices, "FiniteIndices.sample(0, 1000000000) failed with IndexError"),
    (TooManyHeldOut, "TooManyHeldOut.held_out(0) returned 1 examples, expected at most 0"),
    (OneCategory, "OneCategory.held_out(24) returned 0 examples of 'many' and 24 of another category"),
    (ShuffledHeldOut, "ShuffledHeldOut.held_out(24) returned other examples in a second call"),
    (GlobalRngCategory, "GlobalRngCategory.sample_category(0, 0, 'few') returned two examples"),
    (IgnoredCategory, "returned the category 'many', expected one of `categories`: ('few',)"),
    (HeldOutCategory, "HeldOutCategory.sample_category(0, 0, 'few') returned the held-out prompt"),
    (MissingCategory, "MissingCategory: no training example of the category 'none' was found"),
    (SharesAboveOne, "{'few': 1.0, 'many': 1.0}, expected shares above 0 that sum to 1"),
    (UndeclaredShare, "UndeclaredShare.category_shares names ['lots'], expected some of `categories`"),
    (SharesOfOneCategory, "the category 'many', which SharesOfOneCategory.category_shares does not name"),
    (ShortList, "which ShortList.train_examples does not list"),
    (HeldOutInList, "HeldOutInList.train_examples()[100] is the held-out prompt"),
    (UnorderedList, "UnorderedList.train_examples of a second source from make returned other examples"),
    (TextOnly, "TextOnly.sample(0, 0) returned a str, expected a unirl.Example"),
    (ChangedByPickle, "ChangedByPickle.sample returned ReducedExample("),
]


def failures_of(failures: Failures, kind: type[Prompts]) -> str:
    class Conformance(PromptsConformance):
        num_samples = 100

        def make(self) -> Prompts:
            return kind()

        if kind not in PROCESS_CASES:  # a process takes seconds

            def test_other_processes_give_the_same_examples(self) -> None:
                pass

    return failures(Conformance())


def test_checks_pass_for_a_correct_implementation(failures: Failures) -> None:
    assert failures_of(failures, Cups) == ""


def test_each_check_detects_errors(failures: Failures) -> None:
    messages = {kind: failures_of(failures, kind) for kind, _ in CASES}
    missed = [f"{message!r} is not in:\n{messages[kind]}" for kind, message in CASES if message not in messages[kind]]
    assert not missed, "\n\n".join(missed)
    failed = set(re.findall(r"^(test_\w+):", "\n".join(messages.values()), re.MULTILINE))
    checks = {name for name in dir(PromptsConformance) if name.startswith("test_")}
    assert failed == checks, f"no case fails {checks - failed}"
