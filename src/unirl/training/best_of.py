"""Images with answers about them, and the best of several by the model's own verdict."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones import Backbone
from unirl.errors import UserError, check_range, check_temperature
from unirl.functional.seeding import PerImageGenerator, generator_for
from unirl.rewards import Likelihood, Questions
from unirl.training.config import check_image_sampling
from unirl.training.lengths import LengthWarnings
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, question_rows


@dataclass(frozen=True)
class Samples:
    """An image for each example, and what the model says about it.

    Args:
        images: The images, with pixels.
        answers: The answers to the first question about each; None where nothing is asked.
        scores: The model's probability of the expected answer, or the reward `questions` where an example has several
            questions or choices. None where no answer is expected.
        all_scores: The scores of all N images of each example.

    Shapes:
        B images and answers, scores (B,), all_scores (N, B).
    """

    images: Images
    answers: Answers | None = None
    scores: Tensor | None = None
    all_scores: Tensor | None = None


@torch.no_grad()
def sample(
    backbone: Backbone,
    examples: Sequence[Example | str],
    best_of: int = 1,
    image_sampling: ImageSampling | None = None,
    answer_sampling: AnswerSampling | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    indices: Sequence[int] | None = None,
) -> Samples:
    """Generate an image for each example, ask about it, and score it by the model's own verdict.

    Texts that are longer than the model reads or writes are warned of.

    Args:
        backbone: The model. It is built if it is not yet.
        examples: Prompts, or examples. An empty question is not asked, and an empty answer is not expected; either all
            examples have one, or none.
        best_of: N, the images of each example, of which the one with the highest score is kept; of equals the first.
        image_sampling: How images are generated. Defaults to `backbone.sampling_config`, as the model was measured.
        answer_sampling: How questions are answered; the same default.
        generator: The only source of randomness.
        seed: Instead of `generator`: image k of a prompt, with its answers, is sampled by (seed, prompt, k), and does
            not depend on the other examples. With `best_of`, it is the best of the images k N to k N + N - 1.
        indices: k of each example. Defaults to 0, 1, ... for the examples of each prompt.

    Raises:
        UserError: a setting is out of range, some examples have a question or an answer and others have none, an
            expected answer cannot be compared, `best_of` has no expected answer to decide by, or both `generator` and
            `seed` are given.

    Example:
        >>> from unirl.testing import TinyBackbone
        >>> examples = [Example("one cup", "how many ?", "one"), Example("two cups", "how many ?", "two")]
        >>> samples = sample(TinyBackbone(), examples, best_of=3)
        >>> len(samples.images), len(samples.answers), tuple(samples.all_scores.shape)
        (2, 2, (3, 2))
    """
    requested = [Example(example) if isinstance(example, str) else example for example in examples]
    check_range(1, 1_000_000, "sample", best_of=best_of)
    _check_complete(requested)
    check_expected(requested)
    backbone.build()
    config = backbone.sampling_config
    image_sampling = config.image_sampling if image_sampling is None else image_sampling
    answer_sampling = config.answer_sampling if answer_sampling is None else answer_sampling
    check_image_sampling("sample", backbone, image_sampling)
    check_range(1, 10_000, "sample: answers", max_tokens=answer_sampling.max_tokens)
    check_temperature("sample: answers", answer_sampling.temperature)
    generators = _generators(backbone, requested, best_of, generator, seed, indices)
    LengthWarnings(backbone).warn(requested, answer_sampling.max_tokens, "prompts", "max_tokens")
    was_training = backbone.training
    backbone.eval()
    best = _sample(backbone, requested, image_sampling, answer_sampling, *generators(0))
    if best.scores is None and best_of > 1:
        raise UserError(f"best_of {best_of}: the model decides by expected answers; give each example one")
    all_scores = [] if best.scores is None else [best.scores]
    for candidate in range(1, best_of):
        new = _sample(backbone, requested, image_sampling, answer_sampling, *generators(candidate))
        best = _better(new, best)
        assert new.scores is not None
        all_scores.append(new.scores)
    backbone.train(was_training)
    return replace(best, all_scores=torch.stack(all_scores) if all_scores else None)


def _check_complete(examples: Sequence[Example]) -> None:
    for name in ("question", "answer"):
        given = sum(bool(getattr(example, name)) for example in examples)
        if given not in (0, len(examples)):
            raise UserError(f"sample: {given} of {len(examples)} examples have a {name}; give it to all, or to none")


_Generators = Callable[[int], tuple[torch.Generator | None, torch.Generator | None]]


def _generators(
    backbone: Backbone,
    examples: Sequence[Example],
    best_of: int,
    generator: torch.Generator | None,
    seed: int | None,
    indices: Sequence[int] | None,
) -> _Generators:
    """What the images and the answers of each candidate are drawn from."""
    if seed is None:
        if indices is not None:
            raise UserError("sample: indices without a seed have no meaning; give a seed, too")
        return lambda candidate: (generator, generator)
    if generator is not None:
        raise UserError("sample: generator and seed are both given; give one of them")
    numbers = number_images(examples) if indices is None else indices
    if len(numbers) != len(examples):
        raise UserError(f"sample: {len(numbers)} indices for {len(examples)} examples; give one for each")
    device = next(backbone.parameters()).device
    num_questions = len(question_rows(examples)) // len(examples)

    def seeded(candidate: int) -> tuple[torch.Generator, torch.Generator]:
        names = [
            (seed, example.prompt, number * best_of + candidate)
            for example, number in zip(examples, numbers, strict=True)
        ]
        of_answers = [(*name, "answer", i) for name in names for i in range(num_questions)]
        return (
            PerImageGenerator(generator_for(device, *name) for name in names),
            PerImageGenerator(generator_for(device, *name) for name in of_answers),
        )

    return seeded


def number_images(examples: Sequence[Example]) -> list[int]:
    """The number of each example among those of the same prompt, from 0.

    Args:
        examples: Any examples.

    Example:
        >>> number_images([Example("a cup"), Example("a ring"), Example("a cup")])
        [0, 0, 1]
    """
    seen: Counter[str] = Counter()
    numbers = []
    for example in examples:
        numbers.append(seen[example.prompt])
        seen[example.prompt] += 1
    return numbers


def _sample(
    backbone: Backbone,
    examples: Sequence[Example],
    image_sampling: ImageSampling,
    answer_sampling: AnswerSampling,
    image_generator: torch.Generator | None,
    answer_generator: torch.Generator | None,
) -> Samples:
    images = backbone.sample_images([example.prompt for example in examples], image_sampling, image_generator)
    images = replace(images, pixels=_decode(backbone, images, image_generator))
    if not all(example.question for example in examples):
        return Samples(images)
    questions = question_rows(examples)
    answers = backbone.sample_answers(images, [q.text for q in questions], answer_sampling, answer_generator)
    first = answers[:: len(questions) // len(examples)]
    if not all(example.answer for example in examples):
        return Samples(images, first)
    return Samples(images, first, _score(backbone, examples, images, answers))


def _decode(backbone: Backbone, images: Images, generator: torch.Generator | None) -> Tensor:
    """Pixels; of images that do not depend on their batch one by one, since convolutions round by the batch size."""
    if not isinstance(generator, PerImageGenerator):
        return backbone.decode(images)
    return torch.cat([backbone.decode(images[i : i + 1]) for i in range(len(images))])


def check_expected(examples: Sequence[Example]) -> None:
    """Refuse expected answers that cannot be compared with what the model says.

    Args:
        examples: What is sampled. Nothing is compared where one has no question or no answer.

    Raises:
        UserError: for the first one.
    """
    likelihood, questions = Likelihood(), Questions()
    is_compared = all(example.question and example.answer for example in examples)
    for example in examples if is_compared else ():
        try:
            (questions if is_question_set(example) else likelihood).check_example(example)
        except UserError as error:
            raise UserError(f"prompt {example.prompt!r}: {error}; correct it, or leave out what is expected") from error


def _score(backbone: Backbone, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
    """The probability of the expected answer, or the reward `questions` where there is more than that; (B,)."""
    likelihood, reward = Likelihood(), Questions()
    likelihood.attach(backbone)
    reward.attach(backbone)
    sets, k = [is_question_set(example) for example in examples], len(answers) // len(examples)
    scores = likelihood.score(examples, images, answers[::k])
    if any(sets):
        chosen = torch.tensor(sets, device=scores.device)
        asked = [example for example, is_set in zip(examples, sets, strict=True) if is_set]
        scores = scores.masked_scatter(
            chosen, reward.score(asked, images[chosen], answers[chosen.repeat_interleave(k)])
        )
    return scores


def is_question_set(example: Example) -> bool:
    """Whether an example is scored by all its questions, and not by the probability of the expected answer.

    Args:
        example: Any example.
    """
    return len(example.questions) > 1 or bool(example.questions[0].choices)


def _better(new: Samples, best: Samples) -> Samples:
    """For each example the sample of the higher score; of equals `best`."""
    assert new.scores is not None
    assert best.scores is not None
    is_new = new.scores > best.scores
    answers = None
    if new.answers is not None and best.answers is not None:
        answers = _select_answers(is_new, new.answers, best.answers)
    images = _select_images(is_new, new.images, best.images)
    return Samples(images, answers, torch.maximum(new.scores, best.scores))


def _select_images(is_new: Tensor, new: Images, old: Images) -> Images:
    names = [f.name for f in fields(Images) if f.name != "memory"]
    tensors = {name: (getattr(new, name), getattr(old, name)) for name in names}
    chosen: dict[str, Any] = {name: n if n is None else _select(is_new, n, o) for name, (n, o) in tensors.items()}
    memory = {name: _select(is_new, new.memory[name], value) for name, value in old.memory.items()}
    return replace(old, **chosen, memory=memory)


def _select_answers(is_new: Tensor, new: Answers, old: Answers) -> Answers:
    length = max(new.ids.shape[1], old.ids.shape[1])
    ids, mask, log_probs = (
        None if n is None or o is None else _select(is_new, *(F.pad(x, (0, length - x.shape[1])) for x in (n, o)))
        for n, o in ((new.ids, old.ids), (new.mask, old.mask), (new.log_probs, old.log_probs))
    )
    assert ids is not None
    assert mask is not None
    text = [n if chosen else o for n, o, chosen in zip(new.text, old.text, is_new.tolist(), strict=True)]
    return Answers(ids, mask, text, log_probs)


def _select(is_new: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(is_new.view(-1, *[1] * (new.ndim - 1)), new, old)
