"""What the world's models are taught: their words, what to draw, and what is asked about which scenes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from unirl.types import Example
from unirl_shapes.captions import carelessly
from unirl_shapes.examples import draw_example, true_answer, words
from unirl_shapes.pretrain.runner import Metrics
from unirl_shapes.scenes import Scene, clutter, near_miss, scene_for
from unirl_shapes.vocabulary import CATEGORIES, GRID, NUMBERS

CARELESS = {"two_object": 0.65, "counting": 0.65, "colors": 0.45, "position": 0.2, "color_attr": 0.2}
"""Share of drawings whose caption gets a fact wrong, as those of pictures in the web do."""
PRACTICE = {"single_object": 0.5, "position": 2.0, "color_attr": 2.0}
"""How often each category is drawn; the others count 1. Relations and bindings are the last to be learnt."""


def text_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, lower case: the vocabulary of the world's prompts, questions and answers."""
    vocabulary = {word: i for i, word in enumerate(["<|endoftext|>", "<unk>", *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="\x00")
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token="<unk>")


@dataclass(frozen=True)
class Phase:
    """What a step of training is made of.

    Args:
        drawn: Prompts with renderings.
        seen: Questions about renderings.
        asked: How often each category is asked about; None asks about all alike.
        located: Questions in which row and column a thing stands, which prepare those about position.
    """

    drawn: int
    seen: int
    asked: Mapping[str, float] | None = None
    located: int = 0


def both_losses(
    rng: Random, phase: Phase, seeing: Callable[[Random, Phase], Tensor], drawing: Callable[[Random, Phase], Tensor]
) -> tuple[Tensor, Metrics]:
    """What a step minimises: the loss of seeing and, where the phase has any, of drawing; and both for the log."""
    see = seeing(rng, phase)
    if not phase.drawn:
        return see, {"seeing_loss": see.item()}
    draw = drawing(rng, phase)
    return draw + see, {"drawing_loss": draw.item(), "seeing_loss": see.item()}


def drawing_lesson(rng: Random, count: int) -> tuple[list[str], list[Scene]]:
    """Prompts and scenes that fit them, often with things that do not matter.

    Args:
        rng: Where chance comes from.
        count: How many.
    """
    examples = _drawn(rng, count, PRACTICE)
    shown = [carelessly(e, rng) if rng.random() < CARELESS.get(e.category, 0.0) else e for e in examples]
    scenes = [scene_for(e, rng, extras=rng.choice((0, 0, 0, 1, 2))) for e in shown]
    return [example.prompt for example in examples], scenes


def seeing_lesson(rng: Random, phase: Phase) -> tuple[list[Scene], list[str], list[str]]:
    """Scenes that fit, nearly fit, or have nothing to do with a question; the questions; and the true answers.

    Args:
        rng: Where chance comes from.
        phase: How many, and about what.
    """
    examples = _drawn(rng, phase.seen, phase.asked or {})
    scenes = [seen_scene(e, rng) for e in examples]
    truths = [true_answer(e, s) for e, s in zip(examples, scenes, strict=True)]
    questions = [e.question for e in examples]
    for _ in range(phase.located):
        scene, question, truth = located(rng)
        scenes, questions, truths = [*scenes, scene], [*questions, question], [*truths, truth]
    return scenes, questions, truths


def _drawn(rng: Random, count: int, weights: Mapping[str, float]) -> list[Example]:
    """Examples that training may use, each category as often as its weight says."""
    categories = rng.choices(CATEGORIES, [weights.get(name, 1.0) for name in CATEGORIES], k=count)
    return [draw_example(rng, "taught", category) for category in categories]


def located(rng: Random) -> tuple[Scene, str, str]:
    """A scene, a question where one of its things stands, and its row and column in words."""
    example = draw_example(rng, "taught", "colors")
    scene = scene_for(example, rng, extras=rng.randrange(6))
    row, column = divmod(scene[0].cell, GRID)
    return scene, f"where is the {scene[0].shape} ?", f"{NUMBERS[row]} {NUMBERS[column]}"


def seen_scene(example: Example, rng: Random) -> Scene:
    """What a question is asked about: as often right as wrong, with up to four things that do not matter."""
    draw, extras = rng.random(), rng.choice((0, 0, 1, 2, 3, 4))
    if draw < 0.4:
        return scene_for(example, rng, extras)
    return near_miss(example, rng, extras) if draw < 0.8 else clutter(rng, rng.randint(0, 9))
