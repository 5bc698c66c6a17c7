"""What `unirl sample` asks about its images: questions and answers from options or from a source of prompts."""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from unirl.errors import UserError
from unirl.examples import check_characters
from unirl.hooks.host import load
from unirl.prompts import JsonLines, Prompts
from unirl.prompts.jsonl import read_examples
from unirl.training.best_of import check_expected, is_question_set
from unirl.types import Example

_AROUND = re.compile("^[\\s\ufeff\u200b]+|[\\s\ufeff\u200b]+$")
"""White space around a prompt, and the marks that editors put at the beginning of a file."""
_TWO_SOURCES = "--prompts {} has questions and answers; leave out --question and --answer"


def requested_examples(options: argparse.Namespace) -> list[Example]:
    """The prompts with the questions about them and the expected answers, as far as they are given.

    Args:
        options: Arguments of `unirl sample`.

    Returns:
        An example for each prompt; its question is empty where nothing is asked, its answer where none is expected.

    Raises:
        UserError: the options contradict each other, a file of prompts cannot be read, or `--best-of` has no expected
            answer to decide by.
    """
    for name, value in {"best-of": options.best_of, "n": options.n, "batch-size": options.batch_size}.items():
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: it must be at least 1")
    examples = _examples(options)
    check_expected(examples)
    if options.best_of is not None and not all(example.question and example.answer for example in examples):
        raise UserError(
            f"--best-of {options.best_of}: the model decides by the probability of the expected answer; give "
            "--question and --answer, or with --prompts the source that has the prompt"
        )
    return examples


def _examples(options: argparse.Namespace) -> list[Example]:
    if options.prompt is None:
        examples = _read(options.prompts)
    else:
        _check_texts("prompt", options.prompt)
        examples = [Example(prompt, "", "", "sample") for prompt in options.prompt]
        if options.prompts is not None:
            source = _source(options.prompts)
            if options.question or options.answer:
                raise UserError(_TWO_SOURCES.format(options.prompts))
            examples = [_find(source, options.prompts, prompt) for prompt in options.prompt]
    if not options.question and not options.answer:
        return examples
    if any(example.question for example in examples):
        raise UserError(_TWO_SOURCES.format(options.prompts))
    if not options.question:
        raise UserError("--answer: to which question? Give --question, too")
    questions, answers = (_for_each(name, getattr(options, name), len(examples)) for name in ("question", "answer"))
    return [
        replace(example, question=question, answer=answer)
        for example, question, answer in zip(examples, questions, answers, strict=True)
    ]


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


def _for_each(name: str, values: list[str] | None, count: int) -> list[str]:
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


def _read(name: str | None) -> list[Example]:
    """All prompts of a file."""
    if name is None:
        raise UserError("there is no prompt; give --prompt, or --prompts with a .jsonl or .txt file")
    if name.endswith(".txt"):
        return [Example(prompt, "", "", "sample") for prompt in _read_lines(name)]
    if not name.endswith(".jsonl"):
        _refuse_file(name)
        _source(name)
        raise UserError(f"--prompts {name}: give --prompt, too; only a .jsonl or .txt file is sampled as a whole")
    examples = list(read_examples(name, requires_question=False).values())
    for field in ("question", "answer"):
        given = sum(bool(getattr(example, field)) for example in examples)
        if given not in (0, len(examples)):
            raise UserError(f"--prompts {name}: {given} of {len(examples)} lines have a {field}; give all one, or none")
    return examples


def _read_lines(path: str) -> list[str]:
    try:
        content = Path(path).expanduser().read_bytes()
        lines = [_AROUND.sub("", line) for line in content.decode("utf-8").split("\n")]
    except OSError as error:
        raise UserError(f"cannot read the prompts file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        place = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{place}: not UTF-8; save the file as UTF-8") from error
    if not any(lines):
        raise UserError(f"the prompts file {path} is empty; write one prompt per line")
    for number, line in enumerate(lines, start=1):
        try:
            check_characters(line, "the prompt")
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from None
    return [line for line in lines if line]


def _refuse_file(name: str) -> None:
    path = Path(name).expanduser()
    if path.exists():
        what = "a folder" if path.is_dir() else "a file of another name"
        raise UserError(
            f"--prompts {name}: it is {what}; a file of prompts is .jsonl, or .txt with one prompt per line"
        )


def _source(name: str) -> Prompts:
    if name.endswith(".jsonl"):
        return JsonLines(name)
    if name.endswith(".txt"):
        raise UserError(f"--prompts {name}: a text file has no questions about --prompt; leave out one of the two")
    _refuse_file(name)
    source: Prompts = load("prompts", name)
    return source


def _find(source: Prompts, name: str, prompt: str) -> Example:
    example = source.find(prompt)
    if example is None:
        raise UserError(f"--prompts {name}: {prompt!r} is none of its prompts; give --question and --answer instead")
    return example
