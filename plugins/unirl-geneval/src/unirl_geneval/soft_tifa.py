"""Soft-TIFA, the measure of GenEval2: how probable the correct answers to questions about an image are."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unirl import UserError

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
YES = ("Yes", "yes", " yes", " Yes")
FIELDS = ("prompt", "atom_count", "vqa_list", "skills")


@dataclass(frozen=True)
class Item:
    """A line of GenEval2's file.

    Args:
        prompt: Of the image.
        atom_count: How complex it is.
        questions: Questions about the image.
        answers: The answer to each if the image is correct.
        skills: What each question tests, such as "count".
    """

    prompt: str
    atom_count: int
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    skills: tuple[str, ...]


def variants(question: str, answer: str) -> list[str]:
    """The texts that count as a correct answer.

    Args:
        question: It asks for a number if it begins with "How many", and otherwise for yes.
        answer: The correct answer.

    Example:
        >>> variants("How many cups are in the image?", "two")
        ['two', 'Two', ' two', ' Two', '2', ' 2']
        >>> variants("Is the cup red?", "Yes")
        ['Yes', 'yes', ' yes', ' Yes']
    """
    if not question.startswith("How many"):
        return [*YES]
    digit = str(NUMBERS.index(answer) + 1) if answer in NUMBERS else "other"
    capital = answer.capitalize()
    return [answer, capital, f" {answer}", f" {capital}", digit, f" {digit}"]


def soft_score(logits: Tensor, texts: Sequence[str], encode: Callable[[str], Sequence[int]]) -> float:
    """The probability of the first tokens of some texts.

    A token that several texts begin with counts several times, as in the public code, so the sum may be above 1.

    Args:
        logits: Of the next token.
        texts: What `variants` returns.
        encode: The tokenizer, without special tokens.

    Shapes:
        logits (V,).

    Source: GenEval2 (arXiv 2512.16853), `evaluation.py` of its public code.
    """
    probabilities = logits.float().softmax(-1)
    return sum(probabilities[encode(text)[0]].item() for text in texts)


def arithmetic_mean(scores: Sequence[float]) -> float:
    """Soft-TIFA AM of a prompt."""
    return sum(scores) / len(scores)


def geometric_mean(scores: Sequence[float]) -> float:
    """Soft-TIFA GM of a prompt: 0 if one of the scores is.

    Example:
        >>> geometric_mean([0.25, 1.0]), geometric_mean([0.0, 1.0])
        (0.5, 0.0)
    """
    if min(scores) <= 0:
        return 0.0
    return math.exp(sum(map(math.log, scores)) / len(scores))


def read_items(path: str) -> list[Item]:
    """GenEval2's prompts with their questions.

    Args:
        path: Its jsonl file.

    Raises:
        UserError: the file cannot be read or is empty, a line is not of its form, or a prompt stands twice.
    """
    try:
        content = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, ValueError, RuntimeError) as error:  # also a null byte, or no such user's home
        raise UserError(f"geneval2: cannot read {path[:200]} ({getattr(error, 'strerror', None) or error})") from error
    items: list[Item] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        item = _item(line, f"{path}:{number}")
        if item.prompt in lines:
            raise UserError(
                f"{path}:{number}: the prompt {item.prompt!r} is also in line {lines[item.prompt]}; results are by "
                "prompt, so keep one of them"
            )
        lines[item.prompt] = number
        items.append(item)
    if not items:
        raise UserError(f"geneval2: {path} is empty; it must hold a JSON object with {', '.join(FIELDS)} in each line")
    return items


def _item(line: str, location: str) -> Item:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{location}: not valid JSON ({error}); expected one JSON object per line") from error
    if not isinstance(row, Mapping) or (missing := [name for name in FIELDS if name not in row]):
        lacks = f"the field {missing[0]!r} is missing" if isinstance(row, Mapping) else "it is no JSON object"
        raise UserError(f"{location}: {lacks}; expected an object with {', '.join(FIELDS)}")
    prompt, count, pairs, skills = (row[name] for name in FIELDS)
    if not _is_text(prompt):
        raise UserError(f"{location}: 'prompt' is {prompt!r}, expected text that is not blank")
    if type(count) is not int or count < 1:
        raise UserError(f"{location}: 'atom_count' is {count!r}, expected an integer of 1 or more")
    if not isinstance(pairs, list) or not pairs or not all(_is_pair(pair) for pair in pairs):
        raise UserError(f"{location}: 'vqa_list' must be a list of [question, answer], two texts each")
    if not isinstance(skills, list) or len(skills) != len(pairs) or not all(map(_is_text, skills)):
        raise UserError(f"{location}: 'skills' must be a list of texts, one for each of the {len(pairs)} questions")
    questions, answers = zip(*pairs, strict=True)
    return Item(prompt, count, questions, answers, tuple(skills))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_text, value))
