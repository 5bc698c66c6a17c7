"""The accuracy of answers about given images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unirl.judges import Judge
from unirl.judges.answer_words import NO, YES, answer_words, yes_or_no
from unirl.types import Example
from unirl.unicode import normalize_text

MAX_NEITHER = 0.2
"""Share of answers to yes/no questions that are neither, from which on it is said."""
MIN_ANSWERS = 8
"""Answers from which on it is no chance that they are all the same."""


def accuracies(
    judge: Judge, examples: Sequence[Example], answers: Sequence[str], images: Sequence[str] | None = None
) -> dict[str, Any]:
    """The share of correct answers, and of yes/no questions precision, recall and F1 of "yes".

    Args:
        judge: Says which answers are correct.
        examples: With the right answers.
        answers: One for each.
        images: What each question is about, as the path of a file. None leaves them out.

    Returns:
        "accuracy" by category, with "overall", the mean over categories; "standard_error" of each, over questions, None
        where it rests on one question; "questions", their numbers; "yes_no" where there are such questions; and
        "answers", all of them.

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
    variances = {name: _variance(share, len(by_category[name])) for name, share in shares.items()}
    result: dict[str, Any] = {
        "accuracy": shares | {"overall": math.fsum(shares.values()) / len(shares)},
        "standard_error": {name: _root(variance) for name, variance in variances.items()}
        | {"overall": _root(math.fsum(variances.values()) / len(shares) ** 2)},
        "questions": {name: len(values) for name, values in by_category.items()},
    }
    closed = [
        (words[0], words[0] if is_right else yes_or_no(text))
        for example, text, is_right in zip(examples, answers, correct, strict=True)
        if (words := answer_words(example.answer)) in ([YES], [NO])
    ]
    if closed:
        result["yes_no"] = yes_no_metrics(closed)
    result["answers"] = [
        ({} if images is None else {"image": images[i]})
        | {
            "question": example.question,
            "category": example.category,
            "expected": example.answer,
            "answer": text,
            "correct": is_right,
        }
        for i, (example, text, is_right) in enumerate(zip(examples, answers, correct, strict=True))
    ]
    return result


def answer_doubts(understanding: Mapping[str, Any]) -> list[str]:
    """Sentences about what makes accuracies doubtful: answers that are neither yes nor no, or all the same.

    Args:
        understanding: Of `accuracies`.

    Example:
        >>> answer_doubts({"yes_no": {"neither_share": 0.75, "yes_share": 0.25}, "answers": []})[0][:46]
        '75 % of the answers to yes/no questions are ne'
    """
    neither, texts = understanding.get("yes_no", {}).get("neither_share", 0.0), understanding["answers"]
    sentences = []
    if neither >= MAX_NEITHER:
        sentences.append(
            f"{100 * neither:.0f} % of the answers to yes/no questions are neither yes nor no, and count as wrong: "
            'look at them; "choices": ["yes", "no"] has the model choose'
        )
    given = {normalize_text(one["answer"]) for one in texts}
    expected = {normalize_text(one["expected"]) for one in texts}
    if len(given) == 1 < len(expected) and len(texts) >= MIN_ANSWERS:
        sentences.append(f"all {len(texts)} answers are {texts[0]['answer']!r}: the model may not see the images")
    return sentences


def _variance(share: float, count: int) -> float:
    """Of the mean of right and wrong answers, by the jackknife; infinite for one answer."""
    return share * (1 - share) / (count - 1) if count > 1 else math.inf


def _root(variance: float) -> float | None:
    return math.sqrt(variance) if math.isfinite(variance) else None


def yes_no_metrics(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 of "yes", the share of "yes", and that of answers that are neither.

    Args:
        pairs: The right answer, "yes" or "no", and the given one, which may be neither.

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
