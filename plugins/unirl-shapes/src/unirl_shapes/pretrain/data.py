"""Pre-training data: the tokenizer, prompts with images, and questions about images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from unirl import Example
from unirl_shapes.captions import change_fact
from unirl_shapes.examples import sample_example, words
from unirl_shapes.pretrain.loop import Metrics
from unirl_shapes.questions import with_questions
from unirl_shapes.scenes import Scene, near_miss, random_scene, scene_for
from unirl_shapes.truth import answer
from unirl_shapes.vocabulary import ALL_CATEGORIES, CATEGORIES, COMPLEX, GRID, NUMBERS

CAPTION_NOISE = {"two_object": 0.65, "counting": 0.65, "colors": 0.45, "position": 0.2, "color_attr": 0.2}
"""Share of images whose caption has a wrong fact, as in image-text data from the web."""
GENERATION_WEIGHTS = {"single_object": 0.5, "position": 2.0, "color_attr": 2.0}
"""Relative frequency of categories in generation, otherwise 1. Relations and bindings are the most difficult."""


def text_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of lower-case words: the vocabulary of prompts, questions and answers."""
    vocabulary = {word: i for i, word in enumerate(["<|endoftext|>", "<unk>", *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="\x00")
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token="<unk>")


@dataclass(frozen=True)
class Phase:
    """Content of a training step.

    Args:
        num_generation: Prompts with images.
        num_understanding: Questions about images.
        category_weights: Relative frequency of categories in questions, otherwise 1, and 0 for "complex", of which any
            question of its set is asked. None takes the six of GenEval equally often.
        num_location: Questions about the row and column of an object, which help to learn position.
        generation_weights: Relative frequency of categories in generation, otherwise 1, and 0 for "complex".
        caption_noise: Share of images whose caption has a wrong fact, by category.
    """

    num_generation: int
    num_understanding: int
    category_weights: Mapping[str, float] | None = None
    num_location: int = 0
    generation_weights: Mapping[str, float] = field(default_factory=lambda: GENERATION_WEIGHTS)
    caption_noise: Mapping[str, float] = field(default_factory=lambda: CAPTION_NOISE)


def combined_loss(
    rng: Random,
    phase: Phase,
    understanding_loss: Callable[[Random, Phase], Tensor],
    generation_loss: Callable[[Random, Phase], Tensor],
) -> tuple[Tensor, Metrics]:
    """The sum of the losses of a step, and both for the log.

    Args:
        rng: The only source of randomness.
        phase: Content of the step.
        understanding_loss: Computes the loss of answers; not called in phases without questions.
        generation_loss: Computes the loss of images; not called in phases without generation.
    """
    losses: dict[str, Tensor] = {}
    if phase.num_understanding:
        losses["understanding_loss"] = understanding_loss(rng, phase)
    if phase.num_generation:
        losses["generation_loss"] = generation_loss(rng, phase)
    return torch.stack(list(losses.values())).sum(), {name: loss.item() for name, loss in losses.items()}


def generation_batch(rng: Random, phase: Phase) -> tuple[list[str], list[Scene]]:
    """Prompts and scenes, some of which have additional objects or a wrong fact.

    Args:
        rng: The only source of randomness.
        phase: Size and content of the batch.
    """
    examples = _sample_examples(rng, phase.num_generation, phase.generation_weights)
    noise = phase.caption_noise
    depicted = [change_fact(e, rng) if rng.random() < noise.get(e.category, 0.0) else e for e in examples]
    scenes = [scene_for(e, rng, extras=rng.choice((0, 0, 0, 1, 2))) for e in depicted]
    return [example.prompt for example in examples], scenes


def understanding_batch(rng: Random, phase: Phase) -> tuple[list[Scene], list[str], list[str]]:
    """Scenes that are correct, nearly correct, or random; questions about them; and the true answers.

    Args:
        rng: The only source of randomness.
        phase: Size and content of the batch.
    """
    examples = _sample_examples(rng, phase.num_understanding, phase.category_weights or {})
    scenes = [question_scene(e, rng) for e in examples]
    questions = [_any_question(e, rng) for e in examples]
    answers = [answer(question, scene) for question, scene in zip(questions, scenes, strict=True)]
    for _ in range(phase.num_location):
        scene, question, location = location_question(rng)
        scenes, questions, answers = [*scenes, scene], [*questions, question], [*answers, location]
    return scenes, questions, answers


def _sample_examples(rng: Random, count: int, weights: Mapping[str, float]) -> list[Example]:
    """Examples of the pre-training split, with categories by their weights: "complex" only where it has one."""
    names = ALL_CATEGORIES if weights.get(COMPLEX) else CATEGORIES
    categories = rng.choices(names, [weights.get(name, 1.0) for name in names], k=count)
    return [sample_example(rng, "pretrain", category) for category in categories]


def _any_question(example: Example, rng: Random) -> str:
    """The question of an example; of "complex", any of its set."""
    if example.category != COMPLEX:
        return example.question
    return rng.choice(with_questions(example, rng).questions).text


def location_question(rng: Random) -> tuple[Scene, str, str]:
    """A scene, a question about the location of an object, and its row and column in words.

    Args:
        rng: The only source of randomness.
    """
    example = sample_example(rng, "pretrain", "colors")
    scene = scene_for(example, rng, extras=rng.randrange(6))
    row, column = divmod(scene[0].cell, GRID)
    return scene, f"where is the {scene[0].shape} ?", f"{NUMBERS[row]} {NUMBERS[column]}"


def question_scene(example: Example, rng: Random) -> Scene:
    """A scene to ask a question about: as often correct as nearly correct, with up to four additional objects.

    Args:
        example: An example of the shapes world.
        rng: The only source of randomness.
    """
    uniform, extras = rng.random(), rng.choice((0, 0, 1, 2, 3, 4))
    if uniform < 0.4:
        return scene_for(example, rng, extras)
    return near_miss(example, rng, extras) if uniform < 0.8 else random_scene(rng, rng.randint(0, 9))
