"""The questions of `unirl sample`, and the choice of the best of several images by the model's own verdict."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import torch
from torch import Tensor

from unirl.backbones import Backbone
from unirl.errors import UserError
from unirl.hooks.host import load
from unirl.prompts import JsonLines, Prompts
from unirl.rewards import Likelihood, Questions
from unirl.types import AnswerSampling, Example, ImageSampling, question_rows

SEARCHED = 10_000
"""Training examples of a source among which a prompt is searched, if they are not a finite list."""
HELD_OUT = 1_000
"""Held-out examples among which it is searched."""


@dataclass(frozen=True)
class Candidates:
    """One image for each example.

    Args:
        pixels: The images.
        answers: The model's answers about them; empty texts where it was not asked.
        scores: Its probability of the expected answer, or the score of all questions where there are several. None
            where no answer is expected.

    Shapes:
        pixels (B, 3, H, W), scores (B,).
    """

    pixels: Tensor
    answers: Sequence[str]
    scores: Tensor | None = None


def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    examples: Sequence[Example],
    sampling: ImageSampling,
    generator: torch.Generator,
) -> Candidates:
    """Generate an image for each prompt, ask about it, and score it by the model's own verdict.

    That is the probability of the right answer, or the reward `questions` where an example has several questions.

    Args:
        backbone: The model.
        prompts: The prompts.
        examples: The question and the expected answer for each of them; none where nothing is asked, and no answer
            where none is expected.
        sampling: How images are generated.
        generator: The only source of randomness.
    """
    images = backbone.sample_images(prompts, sampling, generator)
    pixels = backbone.decode(images).detach()
    if not examples:
        return Candidates(pixels, [""] * len(prompts))
    images, questions = replace(images, pixels=pixels), question_rows(examples)
    answers = backbone.sample_answers(images, [question.text for question in questions], AnswerSampling())
    first = answers[:: len(questions) // len(examples)]
    if not all(example.answer for example in examples):
        return Candidates(pixels, first.text)
    likelihood, reward = Likelihood(), Questions()
    likelihood.attach(backbone)
    reward.attach(backbone)
    scores, sets = likelihood.score(examples, images, first), [_is_set(example) for example in examples]
    if any(sets):
        chosen = torch.tensor(sets, device=scores.device)
        rows = chosen.repeat_interleave(len(questions) // len(examples))
        asked = [example for example, is_set in zip(examples, sets, strict=True) if is_set]
        scores = scores.masked_scatter(chosen, reward.score(asked, images[chosen], answers[rows]))
    return Candidates(pixels, first.text, scores)


def _is_set(example: Example) -> bool:
    return len(example.questions) > 1 or bool(example.questions[0].choices)


def best_of(sample: Callable[[], Candidates], count: int) -> tuple[Candidates, Tensor | None]:
    """Sample several times, and keep the image of the highest score for each example; of equals the first.

    Args:
        sample: Returns new candidates for the same examples.
        count: How often. Only the best so far are held in memory.

    Returns:
        The best, and the scores of all; None without scores.

    Shapes:
        returns scores (count, B).

    Example:
        >>> scores = iter([torch.tensor([0.2, 0.9]), torch.tensor([0.3, 0.1])])
        >>> best, _ = best_of(lambda: Candidates(torch.rand(2, 3, 8, 8), ["a", "b"], next(scores)), 2)
        >>> best.scores
        tensor([0.3000, 0.9000])
    """
    best = sample()
    if best.scores is None:
        return best, None
    scores = [best.scores]
    for _ in range(count - 1):
        new = sample()
        assert best.scores is not None
        assert new.scores is not None
        better = new.scores > best.scores
        answers = [n if b else o for n, o, b in zip(new.answers, best.answers, better.tolist(), strict=True)]
        pixels = torch.where(better.view(-1, 1, 1, 1), new.pixels, best.pixels)
        best = replace(best, pixels=pixels, answers=answers, scores=torch.maximum(new.scores, best.scores))
        scores.append(new.scores)
    return best, torch.stack(scores)


def requested_examples(options: argparse.Namespace) -> list[Example] | None:
    """The prompts with the questions about them and the expected answers, as far as they are given.

    Args:
        options: Arguments of `unirl sample`.

    Returns:
        An example for each prompt, whose answer is empty where none is expected. None where nothing is asked.

    Raises:
        UserError: the options contradict each other, or `--best-of` has no expected answer to decide by.
    """
    if options.best_of is not None and options.best_of < 1:
        raise UserError(f"--best-of {options.best_of}: it must be at least 1")
    if options.prompts is not None:
        if options.question or options.answer:
            raise UserError(f"--prompts {options.prompts} has questions and answers; leave out --question and --answer")
        source = _source(options.prompts)
        return [_find(source, options.prompts, prompt) for prompt in options.prompt]
    if options.answer and not options.question:
        raise UserError("--answer: to which question? Give --question, too")
    if options.best_of is not None and not (options.question and options.answer):
        raise UserError(
            f"--best-of {options.best_of}: the model decides by the probability of the expected answer; give "
            "--question and --answer, or with --prompts the source that has the prompt"
        )
    if not options.question:
        return None
    questions, answers = (_for_each(options, name) for name in ("question", "answer"))
    return [Example(*texts, "sample") for texts in zip(options.prompt, questions, answers, strict=True)]


def report(examples: Sequence[Example], scores: Tensor | None) -> Iterator[str]:
    """The probabilities of the expected answers, or the scores of sets of questions, a line for each image.

    Args:
        examples: One for each image.
        scores: As `best_of` returns them.

    Shapes:
        scores (count, B).

    Example:
        >>> list(report([Example("two cups", "how many ?", "two", "counting")], torch.tensor([[0.25], [0.5]])))
        ["'two cups': probability of 'two' 0.50, the best of 0.25, 0.50"]
    """
    columns = [] if scores is None else scores.T.tolist()
    for example, values in zip(examples, columns, strict=bool(columns)):
        others = f", the best of {', '.join(f'{value:.2f}' for value in values)}" if len(values) > 1 else ""
        several = f"score of {len(example.questions)} questions"
        what = several if _is_set(example) else f"probability of {example.answer!r}"
        yield f"{example.prompt!r}: {what} {max(values):.2f}{others}"


def _for_each(options: argparse.Namespace, name: str) -> list[str]:
    values, count = getattr(options, name) or [], len(options.prompt)
    if not values:
        return [""] * count
    if not all(value.strip() for value in values):
        raise UserError(f"--{name} is empty; give a text, or leave it out")
    if len(values) not in (1, count):
        raise UserError(f"--{name} is given {len(values)} times for {count} prompts; give one, or one for each prompt")
    return values if len(values) == count else values * count


def _source(name: str) -> Prompts:
    if name.endswith(".jsonl"):
        return JsonLines(name)
    source: Prompts = load("prompts", name)
    return source


def _find(source: Prompts, name: str, prompt: str) -> Example:
    listed = source.train_examples()
    sampled = () if listed else (source.sample(0, index) for index in range(SEARCHED))
    for example in chain(listed, source.held_out(HELD_OUT), islice(sampled, SEARCHED)):
        if example.prompt.casefold().split() == prompt.casefold().split():
            return example
    where = "its prompts" if listed else f"its held-out prompts and the first {SEARCHED:,} of training"
    raise UserError(f"--prompts {name}: {prompt!r} is not among {where}; give --question and --answer instead")
