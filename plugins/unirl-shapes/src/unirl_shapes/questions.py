"""Sets of questions about an image of the shapes world, in the words that its models were pre-trained on."""

from dataclasses import replace
from itertools import combinations, pairwise
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
    A complex example is also asked for its place, some of its colors and numbers, and for the contrary of a negation or
    comparison, which is "no".

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
    for detail in _details(example, rng):
        if is_held_out(example) or not is_held_out(detail):
            required = tuple(first[item.name] for item in detail.objects if item.name in first)
            questions.append(_question(detail, rng, required))
    questions += [
        Question(asked.question, answer, tuple(_choices(asked, rng)))
        for asked, answer in _contrary(example)
        if is_held_out(example) or not is_held_out(asked)
    ]
    absent = [item.name for item in example.exclude]
    if others := [shape for shape in may_ask if shape not in (*names, *absent)]:
        other = rng.choice(others)
        questions.append(Question(single_object(other).question, ABSENT, (other, ABSENT)))
    main = _question(example, rng, tuple(first.values()) if example.category in _NEEDS_THE_SHAPES else ())
    return replace(example, questions=(main, *questions))


_NUM_DETAILS = 3
"""Questions about colors and numbers of a complex example. All would be up to eight, and each costs an answer."""
_NEEDS_THE_SHAPES = ("counting", "colors", "position", "color_attr")
"""Categories whose question presupposes that the shapes are there."""


def _details(example: Example, rng: Random) -> list[Example]:
    """What else an example says about single shapes; of "complex", the place and some colors and numbers."""
    objects, colored = example.objects, [item for item in example.objects if item.color]
    if example.category == "colors":
        return [counting(objects[0].name, 1)]
    if example.category not in ("color_attr", COMPLEX):
        return []
    details = [colors(item.name, item.color or "") for item in colored]
    if example.category == "color_attr" or len(objects) == 1:
        return details
    details += [color_attr(a.name, a.color or "", b.name, b.color or "") for a, b in pairwise(colored)]
    if example.exclude:
        details += [counting(item.name, item.count) for item in objects]
    places = [
        position(item.name, item.relation[0], objects[item.relation[1]].name) for item in objects if item.relation
    ]
    return places + rng.sample(details, min(_NUM_DETAILS, len(details)))


def _contrary(example: Example) -> list[tuple[Example, str]]:
    """Examples whose questions have another answer than their own about an image of a complex example, and that answer.

    What must not be there is asked for alone and with what must; comparisons and negations are turned round.
    """
    if example.category != COMPLEX:
        return []
    if comparison_of(example):
        more, fewer = (item.name for item in example.objects)
        return [(comparison(fewer, more), "no")]
    name = example.objects[0].name
    absent = [item.name for item in example.exclude if item.count == 1]
    return [
        pair
        for other in absent
        for pair in (
            (single_object(other), ABSENT),
            (two_object(name, other), name),
            (negation(other, name), "no"),
        )
    ]


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
