"""Fixed values to test plugins with: examples of all six GenEval categories, images, answers and rollouts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import torch

from unirl.functional.seeding import generator_for
from unirl.types import Answers, Example, Images, Item, Question, Rollout, question_rows

RING, CROSS, RED_CIRCLE = Item("ring"), Item("cross"), Item("circle", color="red")
EXAMPLES = (
    Example("a photo of a ring", "what is it ?", "ring", "single_object", (RING,)),
    Example("a photo of a ring and a cross", "what do you see ?", "ring and cross", "two_object", (RING, CROSS)),
    Example(
        "a photo of three circles",
        "how many circles do you see ?",
        "three circles",
        "counting",
        (Item("circle", 3),),
        (Item("circle", 4),),
    ),
    Example("a photo of a red circle", "what color is the circle ?", "red", "colors", (RED_CIRCLE,)),
    Example(
        "a photo of a cross above a ring",
        "where is the cross from the ring ?",
        "above",
        "position",
        (RING, Item("cross", relation=("above", 0))),
    ),
    Example(
        "a photo of a red circle and a blue square",
        "what color are the circle and the square ?",
        "red and blue",
        "color_attr",
        (RED_CIRCLE, Item("square", color="blue")),
    ),
)
"""One example of each of GenEval's categories."""
CIRCLE = Question("do you see a circle ?", "circle", ("circle", "none"))
QUESTION_SETS = (
    Example(
        "a photo of a red circle",
        category="colors",
        objects=(RED_CIRCLE,),
        questions=(
            CIRCLE,
            Question("what color is the circle ?", "red", ("red", "blue", "green"), requires=(0,)),
            Question("how many circles do you see ?", "one circle", requires=(0,)),
        ),
    ),
    Example("a photo of a ring", "what is it ?", "ring", "single_object", (RING,)),
    Example("a photo of a circle", category="single_object", objects=(Item("circle"),), questions=(CIRCLE,)),
)
"""Examples with three questions and with one, open ones and ones with choices."""
EDGE_CASE_TEXTS = (
    "",
    " \n\t",
    "?!... ;,",
    "three " * 2000,
    "a" * 5000,
    "三つの赤い円 🟥 ö\u200b",
    "None",
    "{'answer': 1}",
)
"""Answers that a model may give early in training: empty, blank, very long, or in other scripts."""


def make_images(
    count: int, pixels: bool = True, image_size: int = 64, num_codes: int = 16, codebook_size: int = 64
) -> Images:
    """Random images with codes, actions and log-probabilities, the same in every call.

    Args:
        count: Number of images.
        pixels: Whether the images have pixels.
        image_size: Height and width in pixels.
        num_codes: Codes of an image.
        codebook_size: Number of different codes.

    Shapes:
        codes, actions and log_probs (count, num_codes), pixels (count, 3, image_size, image_size).

    Example:
        >>> make_images(2).pixels.shape
        torch.Size([2, 3, 64, 64])
    """
    generator = generator_for("cpu", "sample images")
    codes = torch.randint(codebook_size, (count, num_codes), generator=generator)
    values = torch.rand(count, 3, image_size, image_size, generator=generator, dtype=torch.float32) if pixels else None
    return Images(codes, values, codes.clone(), -torch.rand(count, num_codes, generator=generator, dtype=torch.float32))


def make_answers(texts: Sequence[str]) -> Answers:
    """Answers with given texts, one token per word and an end-of-text token. Equal texts have equal tokens.

    Args:
        texts: The text of each answer.

    Shapes:
        ids, mask and log_probs (B, T).

    Example:
        >>> make_answers(["three circles", ""]).mask.sum(1).tolist()
        [3, 1]
    """
    rows = [[crc32(word.encode()) % 999 + 1 for word in text.split()] + [0] for text in texts]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
    return Answers(ids, mask, list(texts), -(ids % 7 + 1) / 10 * mask)


def make_answer_texts(examples: Sequence[Example]) -> list[str]:
    """Texts of answers to some examples: correct, wrong, partly correct and correct in other words, in turn.

    Example:
        >>> make_answer_texts(EXAMPLES[:2])
        ['ring', 'two green dogs']
    """
    templates = ("{}", "two green dogs", "{} and a dog", "I see {}", "red")
    return [templates[i % len(templates)].format(example.answer) for i, example in enumerate(examples)]


def make_question_sets(count: int) -> tuple[list[Example], Answers]:
    """Examples with sets of questions, and answers to all of them: three rows for each example.

    Args:
        count: Number of examples.

    Example:
        >>> examples, answers = make_question_sets(2)
        >>> [len(example.questions) for example in examples], answers.mask.any(1).tolist()
        ([3, 1], [True, True, True, True, False, False])
    """
    examples = [QUESTION_SETS[i % len(QUESTION_SETS)] for i in range(count)]
    rows = question_rows(examples, 3)
    templates = ("{}", "two green dogs", "I see {}", "red")
    answers = make_answers([templates[i % len(templates)].format(question.answer) for i, question in enumerate(rows)])
    asked = torch.tensor([[i < len(example.questions)] for example in examples for i in range(3)])
    return examples, replace(answers, mask=answers.mask & asked)


def make_rollout(scores: Sequence[float], group_size: int, **fields: Any) -> Rollout:
    """A rollout with given scores and random images. Samples with a score of 1 or more are accepted.

    Args:
        scores: Score of each sample; their number is a multiple of `group_size`.
        group_size: Samples of each prompt.
        fields: Other fields of the rollout, or other values of those set here.

    Example:
        >>> make_rollout([1.0, 0.0, 0.5, 0.5], 2).prompts
        ['a photo of a ring', 'a photo of a ring', 'a photo of a ring and a cross', 'a photo of a ring and a cross']
    """
    examples = [EXAMPLES[i // group_size % len(EXAMPLES)] for i in range(len(scores))]
    values = torch.tensor(scores, dtype=torch.float32)
    defaults: dict[str, Any] = {
        "examples": examples,
        "images": make_images(len(scores)),
        "answers": make_answers(make_answer_texts(examples)),
        "scores": values,
        "score_parts": {"sample": values},
        "accepted": values >= 1,
        "group_size": group_size,
    }
    return Rollout(**defaults | fields)
