"""A source of prompts that breaks the contract is told so, in words that name the fault."""

import random
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import ClassVar

import pytest

from unirl.prompts import Prompts
from unirl.testing import PromptsConformance
from unirl.types import Example, Item

Faults = Callable[[object], str]


def numbered(number: int) -> Example:
    return Example(f"a photo of {number} cups", "how many ?", f"{number} cups", "few" if number % 2 else "many")


class Numbers(Prompts):
    """Cups by the hundred: a right one, from which the broken ones differ in a line."""

    categories: ClassVar[tuple[str, ...]] = ("few", "many")

    def sample(self, seed: int, index: int) -> Example:
        return numbered(Random(f"{seed}/{index}").randrange(100))

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return [numbered(100 + i) for i in range(count)]


class Chance(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return numbered(random.randrange(100))


class InTurn(Numbers):
    def __init__(self) -> None:
        self.random = Random(0)

    def sample(self, seed: int, index: int) -> Example:
        return numbered(self.random.randrange(100))


class Hashed(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return numbered(hash(f"{seed}/{index}") % 100)


class HashedExam(Numbers):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return list({example.prompt: example for example in {*super().held_out(count, seed)}}.values())


class Unpicklable(Numbers):
    def __init__(self) -> None:
        self.rule = lambda value: value


class Leaking(Numbers):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return [replace(numbered(90 + i), prompt=f"A photo of  {90 + i} CUPS") for i in range(count)]


class NoAnswer(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return replace(super().sample(seed, index), answer=" ")


class NoQuestionHeldOut(Numbers):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return [replace(example, question="") for example in super().held_out(count, seed)]


class NumberForAnswer(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return replace(super().sample(seed, index), answer=3)  # type: ignore[arg-type]


class Undeclared(Numbers):
    categories = ("few",)


class Lists(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return replace(super().sample(seed, index), objects=[Item("cup")])  # type: ignore[arg-type]


class Forward(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return replace(super().sample(seed, index), objects=(Item("cup", relation=("above", 0)),))


class Seedless(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return super().sample(0, index)


class Few(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return [numbered(i % 100) for i in range(seed, seed + 1000)][index]


class TooMany(Numbers):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return super().held_out(count + 1, seed)


class OneSided(Numbers):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return sorted(super().held_out(200, seed), key=lambda example: example.category)[:count]


class OtherExam(Numbers):
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return random.sample(super().held_out(count, seed), count)


class Texts(Numbers):
    def sample(self, seed: int, index: int) -> Example:
        return super().sample(seed, index).prompt  # type: ignore[return-value]


def judged(faults: Faults, kind: type[Prompts], elsewhere: bool = False) -> str:
    """Other processes cost seconds, so only where they matter."""

    class Kit(PromptsConformance):
        draws = 100

        def make(self) -> Prompts:
            return kind()

        if not elsewhere:

            def test_other_processes_draw_the_same(self) -> None:
                pass

    return faults(Kit())


def test_a_right_one_passes(faults: Faults) -> None:
    assert judged(faults, Numbers, elsewhere=True) == ""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Hashed, "Hashed.sample(0, 0) gives another example in another process: a set, hash() or id() decides"),
        (HashedExam, "HashedExam.held_out gives other examples in another process"),
        (Unpicklable, "Unpicklable cannot be pickled, as workers need"),
    ],
)
def test_one_that_is_broken_between_processes_is_told_so(faults: Faults, kind: type[Prompts], message: str) -> None:
    assert message in judged(faults, kind, elsewhere=True)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Chance, "Chance.draw draws from a global generator: make a random.Random from both"),
        (InTurn, "gave another example when asked again in another order"),
        (Leaking, "what is measured with must never be trained on"),
        (NoAnswer, "NoAnswer.sample(0, 0) gave an empty answer"),
        (NoQuestionHeldOut, "NoQuestionHeldOut.held_out(24)[0] gave an empty question"),
        (NumberForAnswer, "NumberForAnswer.sample(0, 0) gave the answer 3, expected a string"),
        (Undeclared, "gave the category 'many', which categories leaves out"),
        (Lists, "Lists.sample(0, 0) gave objects [Item(name='cup'"),
        (Forward, "a relation to ('above', 0), which is no earlier object"),
        (Seedless, "Seedless.draw gives the same examples for seed 0 and seed 1: it ignores seed"),
        (Few, "Few.sample(0, 1000000000) fails: IndexError"),
        (TooMany, "TooMany.held_out(0) gave 1 examples; at most 0 were asked for"),
        (OneSided, "OneSided.held_out(24) gave 0 examples of 'many' and 24 of another category"),
        (OtherExam, "gives other examples when asked again"),
        (Texts, "Texts.sample(0, 0) gave a str, expected a unirl.types.Example"),
    ],
)
def test_a_broken_one_is_told_what_is_wrong(faults: Faults, kind: type[Prompts], message: str) -> None:
    assert message in judged(faults, kind)
