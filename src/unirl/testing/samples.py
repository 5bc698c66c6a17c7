"""Small ready-made values to test a plugin with: examples of all six categories, pictures, answers, a rollout."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import torch

from unirl.functional.seeding import generator_for
from unirl.types import Answers, Example, Images, Item, Rollout

RING, CROSS, RED = Item("ring"), Item("cross"), Item("circle", color="red")
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
    Example("a photo of a red circle", "what color is the circle ?", "red", "colors", (RED,)),
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
        (RED, Item("square", color="blue")),
    ),
)
"""One example of each of GenEval's categories."""
ODD_TEXTS = ("", " \n\t", "?!... ;,", "three " * 2000, "a" * 5000, "三つの赤い円 🟥 ö\u200b", "None", "{'answer': 1}")
"""What a model says before it has learnt to answer."""


def sample_images(count: int, pixels: bool = True, side: int = 64, codes: int = 16, kinds: int = 64) -> Images:
    """Pictures of noise with codes, decisions and their log-probabilities; the same ones in every call.

    Args:
        count: How many.
        pixels: Whether they are decoded.
        side: Height and width.
        codes: Codes of a picture.
        kinds: How many codes there are to choose from.

    Shapes:
        codes and actions (count, codes), pixels (count, 3, side, side), log_probs (count, codes).

    Example:
        >>> sample_images(2).pixels.shape
        torch.Size([2, 3, 64, 64])
    """
    generator = generator_for("cpu", "sample images")
    drawn = torch.randint(kinds, (count, codes), generator=generator)
    seen = torch.rand(count, 3, side, side, generator=generator) if pixels else None
    return Images(drawn, seen, drawn.clone(), -torch.rand(count, codes, generator=generator))


def sample_answers(texts: Sequence[str]) -> Answers:
    """Answers of these texts, a token a word and one for the end; equal texts have equal tokens.

    Args:
        texts: What was said.

    Shapes:
        ids, mask and log_probs (B, T).

    Example:
        >>> sample_answers(["three circles", ""]).mask.sum(1).tolist()
        [3, 1]
    """
    rows = [[crc32(word.encode()) % 999 + 1 for word in text.split()] + [0] for text in texts]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
    return Answers(ids, mask, list(texts), -(ids % 7 + 1) / 10 * mask)


def sample_texts(examples: Sequence[Example]) -> list[str]:
    """Answers to some examples: right, wrong, half right and right in other words, by turns.

    Example:
        >>> sample_texts(EXAMPLES[:2])
        ['ring', 'two green dogs']
    """
    ways = ("{}", "two green dogs", "{} and a dog", "I see {}", "red")
    return [ways[i % len(ways)].format(example.answer) for i, example in enumerate(examples)]


def sample_rollout(scores: Sequence[float], group_size: int, **more: Any) -> Rollout:
    """A scored rollout of noise, one prompt after the other; 1 and more is accepted.

    Args:
        scores: What each sample earned; a multiple of `group_size` of them.
        group_size: Drawings of each prompt.
        more: Other fields of the rollout, or other values of these.

    Example:
        >>> sample_rollout([1.0, 0.0, 0.5, 0.5], 2).prompts
        ['a photo of a ring', 'a photo of a ring', 'a photo of a ring and a cross', 'a photo of a ring and a cross']
    """
    examples = [EXAMPLES[i // group_size % len(EXAMPLES)] for i in range(len(scores))]
    earned = torch.tensor(scores)
    values: dict[str, Any] = {
        "examples": examples,
        "images": sample_images(len(scores)),
        "answers": sample_answers(sample_texts(examples)),
        "scores": earned,
        "score_parts": {"sample": earned},
        "accepted": earned >= 1,
        "group_size": group_size,
    }
    return Rollout(**values | more)
