"""A judge that reads pixels only: regions of one color, recognised by their outline."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.judges.base import Judge
from unirl.judges.verdict import Detection, verdict
from unirl.types import Example
from unirl_shapes.detector import LEAST_CONFIDENCE, detect
from unirl_shapes.examples import true_answer
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.render import check_size, render_batch
from unirl_shapes.scenes import near_miss, scene_for


class ShapesJudge(Judge):
    """GenEval's rule over the shapes found in a picture.

    Args:
        size: Side of the exam's pictures; verdicts take any size from 64 on in steps of 32.

    Raises:
        UserError: The size isn't supported.
    """

    def __init__(self, size: int = 64) -> None:
        self.size = check_size(size)

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        """Whether each picture shows what its example asks for.

        Shapes:
            pixels (B, 3, H, W) in [0, 1], H = W; returns (B,) bool, on the device of pixels.

        Raises:
            UserError: The pictures aren't square RGB of a supported size, or not one for each example.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3]:
            raise UserError(f"the judge reads square pictures (B, 3, H, H), got {tuple(pixels.shape)}")
        if len(examples) != len(pixels):
            raise UserError(f"the judge needs one picture for each example, got {len(pixels)} for {len(examples)}")
        check_size(pixels.shape[-1])
        right = [judged(example, detect(picture)) for example, picture in zip(examples, pixels, strict=True)]
        return torch.tensor(right, dtype=torch.bool, device=pixels.device)

    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor]:
        """Held-out questions about cluttered renderings, half of them right for their prompt, with the true answers.

        Shapes:
            pictures (count, 3, size, size) in [0, 1].
        """
        rng = Random(f"exam {seed}")
        examples, scenes = [], []
        for i, example in enumerate(ShapesPrompts().held_out(count, seed)):
            sample = scene_for if _shows_it(i, seed) else near_miss
            scene = sample(example, rng, rng.randrange(4))
            examples.append(replace(example, answer=true_answer(example, scene)))
            scenes.append(scene)
        return examples, render_batch(scenes, self.size)

    def references(self, examples: Sequence[Example]) -> Tensor:
        """A right rendering for each example, always the same one, with up to three other things around.

        Shapes:
            pictures (B, 3, size, size) in [0, 1].
        """
        rngs = [Random(f"reference {example.prompt}") for example in examples]
        scenes = [scene_for(example, rng, rng.randrange(4)) for example, rng in zip(examples, rngs, strict=True)]
        return render_batch(scenes, self.size)


def _shows_it(index: int, seed: int) -> bool:
    """One of every two pictures of a category, in random order: prompts that come in cycles must not tell the truth."""
    turn, category = divmod(index, len(ShapesPrompts.categories))
    first = Random(f"exam {seed} {category} {turn // 2}").random() < 0.5
    return first == (turn % 2 == 0)


def judged(example: Example, detections: Sequence[Detection]) -> bool:
    """Whether these detections satisfy the example, at this world's own threshold for every prompt."""
    return verdict(example.objects, example.exclude, detections, threshold=LEAST_CONFIDENCE).correct
