"""Sets of questions about an image of the shapes world, in the words that its models were pre-trained on."""

from dataclasses import replace
from random import Random

from unirl import Example, Question
from unirl_shapes.examples import colors, counting, is_held_out, single_object
from unirl_shapes.vocabulary import COLORS, DIRECTIONS, NUMBERS, SHAPES, counted

ABSENT = "none"
"""The answer to a question about a shape that is not there."""


def with_questions(example: Example, rng: Random) -> Example:
    """An example with more questions: is each shape there, how many, which color, and is another shape there, too.

    The question of the example stays the first one. All have choices: what models of the world answer about other
    scenes, for two colors the swapped ones among them. The question about another shape is right where it is *not*
    there, so that the answer is not always the name of a shape; it is stricter than the judge, which permits others.

    About a training example no question is asked that belongs to a held-out family.

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
    may_ask = [shape for shape in SHAPES if is_held_out(example) or not is_held_out(single_object(shape))]
    names = list(dict.fromkeys(item.name for item in example.objects))
    questions: list[Question] = []
    first: dict[str, int] = {}
    for name in names:
        if name in may_ask and example.category != "single_object":
            questions.append(_question(single_object(name), rng))
            first[name] = len(questions)
    for detail in _details(example):
        if is_held_out(example) or not is_held_out(detail):
            name = detail.objects[0].name
            questions.append(_question(detail, rng, (first[name],) if name in first else ()))
    if others := [shape for shape in may_ask if shape not in names]:
        other = rng.choice(others)
        questions.append(Question(single_object(other).question, ABSENT, (other, ABSENT)))
    main = _question(example, rng, tuple(first.values()) if example.category in _NEEDS_THE_SHAPES else ())
    return replace(example, questions=(main, *questions))


_NEEDS_THE_SHAPES = ("counting", "colors", "position", "color_attr")
"""Categories whose question presupposes that the shapes are there."""


def _details(example: Example) -> list[Example]:
    """What else an example says about single shapes."""
    if example.category == "colors":
        return [counting(example.objects[0].name, 1)]
    if example.category == "color_attr":
        return [colors(item.name, item.color) for item in example.objects if item.color]
    return []


def _question(example: Example, rng: Random, requires: tuple[int, ...] = ()) -> Question:
    return Question(example.question, example.answer, tuple(_choices(example, rng)), requires)


def _choices(example: Example, rng: Random) -> list[str]:
    """The answer to the question of an example, and answers that are correct for other images."""
    names = [item.name for item in example.objects]
    if example.category == "single_object":
        return [names[0], ABSENT]
    if example.category == "two_object":
        return [example.answer, *names, ABSENT]
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
