"""The judge of the shapes world, which reads pixels only."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Literal

import torch
from torch import Tensor

from unirl import Example, UserError
from unirl.judges import Detection, Judge, Verdict, verdict
from unirl_shapes.complex_examples import comparison_of
from unirl_shapes.detector import MIN_CONFIDENCE, detect, detect_scene
from unirl_shapes.examples import check_categories, held_out_examples, train_examples, true_answer
from unirl_shapes.questions import with_questions
from unirl_shapes.render import check_size, render_batch
from unirl_shapes.scenes import Scene, cell_box, near_miss, scene_for
from unirl_shapes.truth import answer
from unirl_shapes.vocabulary import CATEGORIES, CELLS, COLORS, COMPLEX, RELATIONS, SHAPES

BENCHMARK_PROMPTS = 100
"""Of each category of the benchmark, where so many are held out."""


class ShapesJudge(Judge):
    """GenEval's rule, applied to the shapes detected in an image.

    Args:
        size: Side of the rendered images of `understanding_set` and `references`, in pixels. Verdicts take all sizes
            that are a multiple of 32, and at least 64.
        categories: Categories of `understanding_set`. None takes the six of GenEval; "complex" is another one.
        split: Examples of `understanding_set`: "held_out", or "train", on which settings may be chosen.

    Raises:
        UserError: the size is not supported, or a category is unknown.
    """

    def __init__(
        self,
        size: int = 64,
        categories: Sequence[str] | None = None,
        split: Literal["held_out", "train"] = "held_out",
    ) -> None:
        self.size, self.split = check_size(size), split
        self.categories = check_categories(CATEGORIES if categories is None else categories)

    def check_example(self, example: Example) -> None:
        """Refuse an example without objects, with others than those of the shapes world, or of an impossible image.

        Raises:
            UserError: why it cannot be judged.
        """
        if problem := _find_unknown(example) or _find_contradiction(example):
            raise UserError(problem)

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        """Whether each image is correct for its example.

        Args:
            examples: What each image was generated for.
            pixels: The images, in [0, 1].

        Shapes:
            pixels (B, 3, H, W) in [0, 1], H = W; returns (B,) bool, on the device of pixels.

        Raises:
            UserError: the images are not square RGB images of a supported size, or not one for each example; or an
                example has no objects, or others than those of the shapes world.
        """
        return torch.tensor(
            [one.correct for one in self.explain(examples, pixels)], dtype=torch.bool, device=pixels.device
        )

    def explain(self, examples: Sequence[Example], pixels: Tensor) -> list[Verdict]:
        """Verdicts with their reasons. Arguments, shapes and errors are those of `verdicts`."""
        _check_objects(examples)
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3]:
            raise UserError(f"the shapes judge reads square images (B, 3, H, H), got {tuple(pixels.shape)}")
        if len(examples) != len(pixels):
            raise UserError(f"the shapes judge needs one image for each example, got {len(pixels)} for {len(examples)}")
        check_size(pixels.shape[-1])
        return [decide(example, image) for example, image in zip(examples, pixels, strict=True)]

    def benchmark(self) -> list[Example]:
        """The held-out prompts of the judge's categories, up to 100 of each: 142 of the six of GenEval."""
        found = held_out_examples(self.categories, BENCHMARK_PROMPTS * len(self.categories))
        return list({example.prompt: example for example in found}.values())

    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor]:
        """Questions about rendered scenes with true answers. Half of the images are correct for their prompt.

        Of a complex example any question of its set is asked: the first one alone asks neither for colors nor numbers.

        Args:
            count: Number of images.
            seed: The same seed gives the same set.

        Shapes:
            images (count, 3, size, size) in [0, 1].
        """
        rng = Random(f"exam {seed}")
        examples, scenes = [], []
        sample_examples = held_out_examples if self.split == "held_out" else train_examples
        for i, asked in enumerate(sample_examples(self.categories, count, seed)):
            sample = scene_for if _is_correct_image(i, seed, len(self.categories)) else near_miss
            example = _ask_any(asked, rng) if asked.category == COMPLEX else asked
            scene = sample(example, rng, rng.randrange(4))
            examples.append(replace(example, answer=true_answer(example, scene)))
            scenes.append(scene)
        return examples, render_batch(scenes, self.size)

    def references(self, examples: Sequence[Example]) -> Tensor:
        """A correct image for each example, always the same one, with up to three other objects.

        Args:
            examples: What the images must show.

        Shapes:
            images (B, 3, size, size) in [0, 1].

        Raises:
            UserError: an example has no objects, or others than those of the shapes world.
        """
        _check_objects(examples)
        return render_batch([_reference_scene(example) for example in examples], self.size)


def _check_objects(examples: Sequence[Example]) -> None:
    """Refuse examples about which the judge can say nothing: without objects every image would be correct."""
    for example in examples:
        if problem := _find_unknown(example):
            raise UserError(f"prompt {example.prompt!r}: {problem}; take other prompts, or --model.judge null")


def _find_unknown(example: Example) -> str | None:
    if not example.objects:
        return "it has no 'objects', by which the shapes judge decides"
    for item in (*example.objects, *example.exclude):
        if item.name not in SHAPES or item.color not in (None, *COLORS):
            unknown = " ".join(filter(None, (item.color, item.name)))
            return f"the shapes judge knows no {unknown!r}, only {', '.join(SHAPES)} in {', '.join(COLORS)}"
    return None


def _reference_scene(example: Example) -> Scene:
    rng = Random(f"reference {example.prompt}")
    return scene_for(example, rng, rng.randrange(4))


def _find_contradiction(example: Example) -> str | None:
    """Why no image is correct, or why the judge cannot make one."""
    count, relations = sum(item.count for item in example.objects), [item.relation for item in example.objects]
    if count > CELLS:
        return f"its {count} objects do not fit in an image, which has place for {CELLS}"
    if unknown := [relation[0] for relation in relations if relation is not None and relation[0] not in RELATIONS]:
        return f"there is no relation {unknown[0]!r}, only {', '.join(RELATIONS)}"
    question = comparison_of(example)
    if question is not None and len(example.objects) != 2:
        return f"it compares the numbers of two shapes, and has {len(example.objects)} objects"
    scene = _reference_scene(example)
    detections = [Detection(one.shape, cell_box(one.cell), 1.0, one.color) for one in scene]
    found = verdict(example.objects, example.exclude, detections)
    if not found.correct:
        return f"the shapes judge can make no correct image of it ({found.reason})"
    if question is not None and answer(question, scene) != "yes":
        return f"its objects are not those of the question {question!r}"
    return None


def _ask_any(example: Example, rng: Random) -> Example:
    """An example with one of the questions of its set in the place of its own."""
    question = rng.choice(with_questions(example, rng).questions)
    return replace(example, question=question.text, answer=question.answer, questions=())


def _is_correct_image(index: int, seed: int, num_categories: int) -> bool:
    """True for one of every two images of a category, in random order, so that the order does not reveal the answer."""
    turn, category = divmod(index, num_categories)
    first = Random(f"exam {seed} {category} {turn // 2}").random() < 0.5
    return first == (turn % 2 == 0)


def decide(example: Example, pixels: Tensor) -> Verdict:
    """The verdict about an image: by GenEval's rule, and where numbers are compared, by the truth.

    Args:
        example: An example of the shapes world.
        pixels: The image, in [0, 1].

    Shapes:
        pixels (3, H, H).
    """
    found = verdict(example.objects, example.exclude, detect(pixels), threshold=MIN_CONFIDENCE)
    question = comparison_of(example)
    if not found.correct or question is None:
        return found
    said = answer(question, detect_scene(pixels))
    return Verdict(said == "yes", "" if said == "yes" else f"{question!r} is answered {said!r}")
