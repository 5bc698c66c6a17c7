"""The accuracy of answers about given images."""

import math
from collections.abc import Sequence
from typing import Any

from unirl.judges import Judge
from unirl.types import Example
from unirl.unicode import fold

YES, NO = "yes", "no"


def accuracies(judge: Judge, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, Any]:
    """The share of correct answers, and of yes/no questions precision, recall and F1 of "yes".

    Args:
        judge: Says which answers are correct.
        examples: With the right answers.
        answers: One for each.

    Returns:
        "accuracy" by category, with "overall", the mean over categories; "standard_error" of each; "questions", their
        numbers; "yes_no" where there are such questions; and "answers", all of them.

    Source: Li et al. 2023 (POPE, arXiv 2305.10355) for the metrics of yes/no questions.

    Example:
        >>> from unirl_shapes.judge import ShapesJudge
        >>> examples = [Example("", "is there a cup ?", "yes"), Example("", "is there a ring ?", "no")]
        >>> accuracies(ShapesJudge(), examples, ["Yes", "yes"])["accuracy"]["overall"]
        0.5
    """
    correct = [judge.accepts_answer(example, text) for example, text in zip(examples, answers, strict=True)]
    by_category: dict[str, list[bool]] = {}
    for example, right in zip(examples, correct, strict=True):
        by_category.setdefault(example.category, []).append(right)
    shares = {name: sum(values) / len(values) for name, values in by_category.items()}
    variances = {name: share * (1 - share) / len(by_category[name]) for name, share in shares.items()}
    errors = {name: math.sqrt(variance) for name, variance in variances.items()}
    count = len(shares)
    result: dict[str, Any] = {
        "accuracy": shares | {"overall": math.fsum(shares.values()) / count},
        "standard_error": errors | {"overall": math.sqrt(math.fsum(variances.values())) / count},
        "questions": {name: len(values) for name, values in by_category.items()},
    }
    asked = [(fold(e.answer), first_word(text)) for e, text in zip(examples, answers, strict=True)]
    closed = [pair for pair in asked if pair[0] in (YES, NO)]
    if closed:
        result["yes_no"] = yes_no_metrics(closed)
    result["answers"] = [
        {"question": e.question, "category": e.category, "expected": e.answer, "answer": text, "correct": right}
        for e, text, right in zip(examples, answers, correct, strict=True)
    ]
    return result


def first_word(text: str) -> str:
    """The first word of a text in lower case, without punctuation.

    Args:
        text: An answer.

    Example:
        >>> first_word("Yes, there is.")
        'yes'
    """
    words = fold(text).split()
    return words[0].strip(".,;:!?\"'") if words else ""


def yes_no_metrics(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 of "yes", the share of "yes", and that of answers that are neither.

    Args:
        pairs: The right answer, "yes" or "no", and the first word of the given one.

    Example:
        >>> yes_no_metrics([("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes")])["f1"]
        0.5
    """
    true_yes = sum(pair == (YES, YES) for pair in pairs)
    said_yes, is_yes = sum(said == YES for _, said in pairs), sum(right == YES for right, _ in pairs)
    precision, recall = true_yes / max(1, said_yes), true_yes / max(1, is_yes)
    return {
        "accuracy": sum(right == said for right, said in pairs) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if true_yes else 0.0,
        "yes_share": said_yes / len(pairs),
        "neither_share": sum(said not in (YES, NO) for _, said in pairs) / len(pairs),
    }
