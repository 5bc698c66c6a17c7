"""Sets of questions about what a GenEval-style prompt asks for."""

from dataclasses import replace
from random import Random

from unirl.prompts.vocabulary import COLORS, COUNTS, EXTRA, RELATIONS, be, many, one
from unirl.prompts.words import NUMBERS
from unirl.types import Example, Item, Question

YES_OR_NO = ("yes", "no")
_NUM_COLORS = 4
"""Choices of a question about a color."""


def with_questions(example: Example, rng: Random) -> Example:
    """An example with more questions: is each object there, how many, which color, where, and is there something else.

    The question of the example stays the first one; about numbers and single colors it gets choices. The choices of a
    color hold the colors of the other objects, so that swapped colors are wrong; those of a number are its neighbors.
    "Is there a Z in the picture?" asks about an object that the prompt does not name, and the answer is "no", so that
    "yes" is not always right.

    Args:
        example: An example of the vocabulary with one question.
        rng: Chooses the other object and the choices.

    Example:
        >>> from unirl.prompts.vocabulary import colors
        >>> for question in with_questions(colors("cup", "red"), Random(0)).questions:
        ...     print(question.text, "|", question.answer, question.requires)
        What color is the cup? | red (1,)
        Is there a cup in the picture? Answer yes or no. | yes ()
        Is there a wrench in the picture? Answer yes or no. | no ()
    """
    objects = example.objects
    present = [_presence(item.name, "yes") for item in objects]
    details = [question for i in range(len(objects)) for question in _details(example, i, rng)]
    other = rng.choice([name for name in EXTRA if name not in [item.name for item in objects]])
    return replace(example, questions=(_main(example, rng), *present, *details, _presence(other, "no")))


def _main(example: Example, rng: Random) -> Question:
    """The question of the example. That of object i of the prompt, whether it is there, has the number 1 + i."""
    first = example.objects[0]
    if example.category == "counting":
        return Question(example.question, example.answer, _counts(first), requires=(1,))
    if example.category == "colors":
        return Question(example.question, example.answer, _colors(example, 0, rng), requires=(1,))
    return Question(example.question, example.answer)


def _presence(name: str, answer: str) -> Question:
    return Question(f"Is there {one(name)} in the picture? Answer yes or no.", answer, YES_OR_NO)


def _details(example: Example, index: int, rng: Random) -> list[Question]:
    """Questions about the color and the place of an object that the main question does not ask for alone."""
    item, questions = example.objects[index], []
    if example.category == "color_attr" and item.color:
        choices = _colors(example, index, rng)
        questions.append(Question(f"What color {be(item.name)} the {item.name}?", item.color, choices, (1 + index,)))
    if item.relation is not None:
        relation, target = item.relation
        name = example.objects[target].name
        text = f"{be(item.name).capitalize()} the {item.name} left of, right of, above or below the {name}?"
        questions.append(Question(text, relation, RELATIONS, (1 + target, 1 + index)))
    return questions


def _colors(example: Example, index: int, rng: Random) -> tuple[str, ...]:
    """The color of an object, those of the other objects, and further ones, in the order of `COLORS`."""
    own = example.objects[index].color
    hard = {item.color for item in example.objects if item.color}
    others = [color for color in COLORS if color not in hard]
    chosen = hard | {own} | set(rng.sample(others, _NUM_COLORS - len(hard)))
    return tuple(color for color in COLORS if color in chosen)


def _counts(item: Item) -> tuple[str, ...]:
    """All numbers of the prompts and their neighbors."""
    return tuple(
        f"{NUMBERS[count]} {many(item.name)}" if count > 1 else f"one {_singular(item.name)}"
        for count in range(min(COUNTS) - 1, max(COUNTS) + 2)
    )


def _singular(name: str) -> str:
    return one(name).split(maxsplit=1)[1]
