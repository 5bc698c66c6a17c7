"""What `unirl sample` asks about its images: questions and answers from options or from a source of prompts."""

import argparse
from collections.abc import Iterator, Sequence

from torch import Tensor

from unirl.errors import UserError
from unirl.hooks.host import load
from unirl.prompts import JsonLines, Prompts
from unirl.training.best_of import check_expected, is_question_set
from unirl.types import Example


def requested_examples(options: argparse.Namespace) -> list[Example]:
    """The prompts with the questions about them and the expected answers, as far as they are given.

    Args:
        options: Arguments of `unirl sample`.

    Returns:
        An example for each prompt; its question is empty where nothing is asked, its answer where none is expected.

    Raises:
        UserError: the options contradict each other, or `--best-of` has no expected answer to decide by.
    """
    if options.best_of is not None and options.best_of < 1:
        raise UserError(f"--best-of {options.best_of}: it must be at least 1")
    _check_texts("prompt", options.prompt)
    if options.prompts is not None:
        if options.question or options.answer:
            raise UserError(f"--prompts {options.prompts} has questions and answers; leave out --question and --answer")
        source = _source(options.prompts)
        found = [_find(source, options.prompts, prompt) for prompt in options.prompt]
        check_expected(found)
        return found
    if options.answer and not options.question:
        raise UserError("--answer: to which question? Give --question, too")
    if options.best_of is not None and not (options.question and options.answer):
        raise UserError(
            f"--best-of {options.best_of}: the model decides by the probability of the expected answer; give "
            "--question and --answer, or with --prompts the source that has the prompt"
        )
    questions, answers = (_for_each(options, name) for name in ("question", "answer"))
    return [Example(*texts, "sample") for texts in zip(options.prompt, questions, answers, strict=True)]


def report(examples: Sequence[Example], all_scores: Tensor | None) -> Iterator[str]:
    """The probabilities of the expected answers, or the scores of sets of questions, a line for each image.

    Args:
        examples: One for each image.
        all_scores: As `Samples` has them.

    Shapes:
        all_scores (N, B).

    Example:
        >>> import torch
        >>> list(report([Example("two cups", "how many ?", "two", "counting")], torch.tensor([[0.25], [0.5]])))
        ["'two cups': probability of 'two' 0.50, the best of 0.25, 0.50"]
    """
    columns = [] if all_scores is None else all_scores.T.tolist()
    for example, values in zip(examples, columns, strict=bool(columns)):
        others = f", the best of {', '.join(f'{value:.2f}' for value in values)}" if len(values) > 1 else ""
        several = f"score of {len(example.questions)} questions"
        what = several if is_question_set(example) else f"probability of {example.answer!r}"
        yield f"{example.prompt!r}: {what} {max(values):.2f}{others}"


def _for_each(options: argparse.Namespace, name: str) -> list[str]:
    values, count = getattr(options, name) or [], len(options.prompt)
    if not values:
        return [""] * count
    _check_texts(name, values)
    if len(values) not in (1, count):
        raise UserError(f"--{name} is given {len(values)} times for {count} prompts; give one, or one for each prompt")
    return values if len(values) == count else values * count


def _check_texts(name: str, values: Sequence[str]) -> None:
    if not all(value.strip() for value in values):
        advice = "give a text" if name == "prompt" else "give a text, or leave it out"
        raise UserError(f"--{name} is empty; {advice}")


def _source(name: str) -> Prompts:
    if name.endswith(".jsonl"):
        return JsonLines(name)
    source: Prompts = load("prompts", name)
    return source


def _find(source: Prompts, name: str, prompt: str) -> Example:
    example = source.find(prompt)
    if example is None:
        raise UserError(f"--prompts {name}: {prompt!r} is none of its prompts; give --question and --answer instead")
    return example
