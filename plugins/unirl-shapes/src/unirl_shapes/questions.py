"""Sets of questions about an image of the shapes world, in the words that its models were pre-trained on."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from random import Random

from unirl import Example, Question
from unirl_shapes.complex_examples import comparison, comparison_of, negation
from unirl_shapes.examples import color_attr, colors, counting, is_held_out, position, single_object, two_object
from unirl_shapes.vocabulary import COLORS, COMPLEX, DIRECTIONS, NUMBERS, SHAPES, counted

ABSENT = "none"
"""The answer to a question about a shape that is not there."""
_YES_OR_NO = ("yes", "no")


def with_questions(example: Example, rng: Random) -> Example:
    """An example with more questions: is each shape there, how many, which color, and is another shape there, too.

    The question of the example stays the first one. All have choices: what models of the world answer about other
    scenes, for two colors the swapped ones among them. The question about another shape is right where it is *not*
    there, so that the answer is not always the name of a shape; it is stricter than the judge, which permits others.
    A complex example is asked for all its facts, also for what must not be there, which is "none"; and for the contrary
    of a negation or comparison, which is "no".

    About a training example no question is asked that belongs to a held-out family. Another one takes its place where
    there is one: for the color of a diamond that of two shapes.

    Args:
        example: An example of the shapes world with one question.
        rng: Chooses the other shape and the choices.

    Example:
        >>> for question in with_questions(colors("circle", "red"), Random(0)).questions:
        ...     print(question.text, question.answer, question.requires)
        what color is the circle ? red (1,)
        do you see a circle ? circle ()
        how many circles do you see ? one circle (1,)
        do you see a triangle ? none ()
    """
    held_out = is_held_out(example)
    names = list(dict.fromkeys(item.name for item in example.objects))
    questions: list[Question] = []
    first: dict[str, int] = {}
    for name in names:
        if thing := _first_allowed(_things(example, name), held_out):
            questions.append(_question(thing, rng))
            first[name] = len(questions)
    for alternatives in _details(example):
        if detail := _first_allowed(alternatives, held_out):
            required = tuple(first[item.name] for item in detail.objects if item.name in first)
            questions.append(_question(detail, rng, required))
    for contrary, answer in _contrary(example):
        if asked := _first_allowed([contrary], held_out):
            questions.append(Question(asked.question, answer, tuple(_choices(asked, rng))))
    named = {*names, *(item.name for item in example.exclude)}
    may_ask = [shape for shape in SHAPES if held_out or not is_held_out(single_object(shape))]
    if others := [shape for shape in may_ask if shape not in named]:
        other = rng.choice(others)
        questions.append(Question(single_object(other).question, ABSENT, (other, ABSENT)))
    main = _question(example, rng, tuple(first.values()) if example.category in _NEEDS_THE_SHAPES else ())
    return replace(example, questions=(main, *questions))


_NEEDS_THE_SHAPES = ("counting", "colors", "position", "color_attr")
"""Categories whose question presupposes that the shapes are there."""


def _first_allowed(alternatives: Sequence[Example], held_out: bool) -> Example | None:
    """The first example whose question may be asked, about a held-out example or a training one."""
    return next((asked for asked in alternatives if held_out or not is_held_out(asked)), None)


def _things(example: Example, name: str) -> list[Example]:
    """Ways to ask whether a shape is there: where a complex example needs an exact number, how many of it."""
    if example.category == "single_object":
        return []
    exact = [item for item in example.exclude if item.name == name and example.category == COMPLEX]
    return [*(counting(name, item.count - 1) for item in exact), single_object(name)]


def _details(example: Example) -> list[list[Example]]:
    """What else an example says about single shapes, and each in several ways where there are some."""
    objects, colored = example.objects, [item for item in example.objects if item.color]
    if example.category == "colors":
        return [[counting(objects[0].name, 1)]]
    if example.category not in ("color_attr", COMPLEX):
        return []
    details = []
    for item in colored:
        pairs = [color_attr(item.name, item.color or "", a.name, a.color or "") for a in colored if a != item]
        details.append([colors(item.name, item.color or ""), *(pairs if example.category == COMPLEX else [])])
    if example.category == COMPLEX:
        related = [(item.name, *item.relation) for item in objects if item.relation]
        details += [[position(name, relation, objects[index].name)] for name, relation, index in related]
    return details


def _contrary(example: Example) -> list[tuple[Example, str]]:
    """Examples whose questions have another answer than their own about an image of a complex example, and that answer.

    What must not be there is asked for, alone and with what must; comparisons and negations are turned round.
    """
    if example.category != COMPLEX:
        return []
    name = example.objects[0].name
    if comparison_of(example):
        return [(comparison(example.objects[1].name, name), "no")]
    questions: list[tuple[Example, str]] = []
    for absent in (item.name for item in example.exclude if item.count == 1):
        questions += [(single_object(absent), ABSENT), (two_object(name, absent), name), (negation(absent, name), "no")]
    return questions


def _question(example: Example, rng: Random, requires: tuple[int, ...] = ()) -> Question:
    return Question(example.question, example.answer, tuple(_choices(example, rng)), requires)


def _choices(example: Example, rng: Random) -> list[str]:
    """The answer to the question of an example, and answers that are correct for other images."""
    if example.category == COMPLEX:
        return _complex_choices(example)
    names = [item.name for item in example.objects]
    if example.category in ("single_object", "two_object"):
        return list(dict.fromkeys((example.answer, *names, ABSENT)))
    if example.category == "counting":
        return [counted(names[0], number) for number in range(len(NUMBERS) + 2)]
    if example.category == "position":
        return list(DIRECTIONS)
    if example.category == "colors":
        return [*COLORS, ABSENT, "many"]
    one, two = example.answer.split(" and ")
    third = rng.choice([color for color in COLORS if color not in (one, two)])
    pairs = ((one, two), (two, one), (one, one), (two, two), (one, third), (third, two))
    return [f"{a} and {b}" for a, b in pairs]


def _complex_choices(example: Example) -> list[str]:
    """Yes or no, or each part of the three shapes that are asked for."""
    if example.answer in _YES_OR_NO:
        return list(_YES_OR_NO)
    names = example.answer.split(" and ")
    return [" and ".join(part) for size in (3, 2, 1) for part in combinations(names, size)] + [ABSENT]
