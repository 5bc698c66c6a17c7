"""Training examples: a prompt, and questions about the image with their correct answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import ClassVar

from unirl.errors import UserError
from unirl.unicode import normalize_text

_UNUSABLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Lone surrogates and control characters other than white space."""


@dataclass(frozen=True)
class Item:
    """A kind of object that an image must show, or must not show: an entry of GenEval's `include` or `exclude`.

    Args:
        name: Class of the object, in the singular, such as "circle".
        count: Number of objects of this class.
        color: Color of all of them. None allows any color.
        relation: `(relation, index)`: where it is as seen from the item number `index`, which comes earlier in the
            list. The relation is "left of", "right of", "above" or "below".

    Raises:
        UserError: name or color is no text that can be used, see `check_characters`; or the count is below 0.

    Example:
        >>> dog, cup = Item("dog"), Item("cup", color="red", relation=("left of", 0))  # a red cup left of a dog
        >>> Example("a red cup left of a dog", "Where is the cup?", "left", "position", (dog, cup)).objects[1].name
        'cup'
    """

    name: str
    count: int = 1
    color: str | None = None
    relation: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        check_characters(self.name, "the name of an object")
        if self.color is not None:
            check_characters(self.color, f"the color of {self.name!r}")
        if self.count < 0:
            raise UserError(f"the count of {self.name!r} is {self.count}; it must be 0 or more")


@dataclass(frozen=True)
class Question:
    """A question about an image, and the answer that is correct if the image is.

    Args:
        text: The question.
        answer: The correct answer.
        choices: All answers that are possible, the correct one among them. Empty for an open question.
        requires: Indices of the questions of the example that must be answered correctly first: where there is no cup,
            no color of it is correct.

    Raises:
        UserError: a text cannot be used, see `check_characters`.

    Example:
        >>> Question("What color is the cup?", "red", choices=("red", "blue", "green"), requires=(0,)).answer
        'red'
    """

    text: str
    answer: str
    choices: tuple[str, ...] = ()
    requires: tuple[int, ...] = ()
    _is_derived: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, text in (("question", self.text), ("answer", self.answer), *(("choice", c) for c in self.choices)):
            check_characters(text, f"the {name}")


@dataclass(frozen=True)
class Example:
    """A prompt, questions about the generated image, and the answers that are correct if the image is.

    Most examples have one question: give `question` and `answer`. Or give `questions`, whose first is the main one: it
    is also `question` and `answer`. Either way, `questions` has all of them.

    Rewards score text against the answers and `objects`. Judges decide by `objects` and `exclude`.

    Args:
        prompt: Prompt of the image.
        question: Question about the image.
        answer: Correct answer about a correct image.
        category: Name under which results are reported, such as "counting".
        objects: What the image must show.
        exclude: What the image must not show: `count` or more objects of the class make it wrong.
        questions: All questions about the image.

    Raises:
        UserError: a text cannot be used, see `check_characters`; a question of `questions` has an empty text, choices
            without the correct answer, or a requirement that cannot be met; `question` and `answer` are not those of
            the first one; or a relation of `objects` does not refer to an earlier one.

    Example:
        >>> example = Example(
        ...     "a photo of two cups", "How many cups are in the picture?", "two cups", "counting",
        ...     objects=(Item("cup", 2),), exclude=(Item("cup", 3),),
        ... )
        >>> example.objects[0].count, example.questions
        (2, (Question(text='How many cups are in the picture?', answer='two cups', choices=(), requires=()),))
        >>> questions = Question("Is there a cup?", "yes"), Question("Which color is it?", "red", requires=(0,))
        >>> Example("a photo of a red cup", category="colors", questions=questions).answer
        'yes'
    """

    prompt: str
    question: str = ""
    answer: str = ""
    category: str = "prompts"
    objects: tuple[Item, ...] = ()
    exclude: tuple[Item, ...] = ()
    questions: tuple[Question, ...] = ()

    def __post_init__(self) -> None:
        for name in ("prompt", "category"):
            check_characters(getattr(self, name), f"the {name}")
        if self.category == "overall":
            raise UserError(
                f"prompt {self.prompt!r}: the category 'overall' is the name of the mean over all categories; give it "
                "another name"
            )
        for index, item in enumerate(self.objects):
            if item.relation is not None and not 0 <= item.relation[1] < index:
                raise UserError(
                    f"prompt {self.prompt!r}: objects[{index}] has the relation {item.relation}; its number must be "
                    "that of an earlier object, from 0"
                )
        # `dataclasses.replace` gives all fields: a question that was made from the others is made anew.
        if not self.questions or (len(self.questions) == 1 and self.questions[0]._is_derived):
            question = Question(self.question, self.answer)
            object.__setattr__(question, "_is_derived", True)
            object.__setattr__(self, "questions", (question,))
            return
        problem = _find_invalid_question(self.questions) or self._find_mismatch()
        if problem is not None:
            raise UserError(f"prompt {self.prompt!r}: {problem}")
        object.__setattr__(self, "question", self.questions[0].text)
        object.__setattr__(self, "answer", self.questions[0].answer)

    def _find_mismatch(self) -> str | None:
        given, first = (self.question, self.answer), (self.questions[0].text, self.questions[0].answer)
        if given in (("", ""), first):
            return None
        return (
            f"'question' and 'answer' are {given[0]!r} and {given[1]!r}, and questions[0] has {first[0]!r} and "
            f"{first[1]!r}; leave the first two out, or give the same"
        )


def check_characters(text: object, name: str) -> None:
    r"""Refuse what tokenizers, logs and files cannot take: no text, lone surrogates, control characters.

    Line feeds, tabs and other white space are text.

    Args:
        text: A prompt, question, answer or name.
        name: What it is, for the message.

    Raises:
        UserError: with the place of the character.

    Example:
        >>> check_characters("a photo of one cup", "the prompt")
        >>> check_characters("a \x1b[31mred cup", "the prompt")
        Traceback (most recent call last):
            ...
        unirl.errors.UserError: the prompt 'a \x1b[31mred cup' has the control character U+001B at position 3; remove it
    """
    if not isinstance(text, str):
        raise UserError(f"{name} is {text!r}; it must be text")
    if text.isprintable():  # most texts are, and this is fast
        return
    if (found := _UNUSABLE.search(text)) is None:
        return
    code = ord(found[0])
    what, advice = "control character", "remove it"
    if code > 0xFF:  # bytes of a command line that are not UTF-8 become surrogates, too
        what, advice = "lone surrogate", "half of an emoji, or a byte that is not UTF-8: write it whole, or remove it"
    start = max(0, found.start() - 30)
    shown = text if len(text) <= 80 else f"...{text[start : start + 60]}..."
    raise UserError(f"{name} {shown!r} has the {what} U+{code:04X} at position {found.start() + 1}; {advice}")


def _find_invalid_question(questions: Sequence[Question]) -> str | None:
    """What is wrong with a set of questions, if anything."""
    problems = (
        f"questions[{index}] {problem}"
        for index, question in enumerate(questions)
        for problem in (_find_invalid_text(question), _find_invalid_requirement(question, index, len(questions)))
        if problem is not None
    )
    return next(problems, None) or _find_circle(questions)


def _find_invalid_text(question: Question) -> str | None:
    for name, text in (("text", question.text), ("answer", question.answer)):
        if not text.strip():
            return f"has an empty {name} ({text!r}); write one"
    choices = question.choices
    normalized = [normalize_text(choice) for choice in choices]
    if any(not choice.strip() for choice in choices):
        return f"has an empty choice in {list(choices)}; remove it"
    if len(set(normalized)) < len(choices):
        return f"has a choice twice in {list(choices)}; keep one of them"
    if choices and normalize_text(question.answer) not in normalized:
        return f"has the answer {question.answer!r}, which is not among its choices {list(choices)}; add it to them"
    if len(choices) == 1:
        return f"has the one choice {choices[0]!r}; give two or more, or none for an open question"
    return None


def _find_invalid_requirement(question: Question, index: int, count: int) -> str | None:
    for required in question.requires:
        if required == index:
            return f"requires itself ({required}); remove that"
        if not 0 <= required < count:
            return f"requires question {required}, and there are {count}, numbered from 0; take one of 0 to {count - 1}"
    return None


def _find_circle(questions: Sequence[Question]) -> str | None:
    try:
        list(TopologicalSorter({i: question.requires for i, question in enumerate(questions)}).static_order())
    except CycleError as error:
        circle = " -> ".join(str(index) for index in error.args[1])
        return f"questions require each other in a circle ({circle}); remove one of these requirements"
    return None


def question_rows(examples: Sequence[Example], num_questions: int | None = None) -> list[Question]:
    """The question of each of B x k rows, image-major; the first one again where an example has fewer than k.

    Args:
        examples: B examples.
        num_questions: k. Defaults to the largest number of questions of an example.

    Example:
        >>> two = Example("a cup", questions=(Question("is there a cup ?", "yes"), Question("how many ?", "one")))
        >>> [question.answer for question in question_rows([two, Example("a ring", "what is it ?", "ring")])]
        ['yes', 'one', 'ring', 'ring']
    """
    k = max((len(example.questions) for example in examples), default=1) if num_questions is None else num_questions
    return [e.questions[i] if i < len(e.questions) else e.questions[0] for e in examples for i in range(k)]
