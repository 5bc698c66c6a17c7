"""An update rule whose answers are labeled by the shapes world's detector: what could understanding learn at best?"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from unirl import hookimpl
from unirl.backbones import Backbone
from unirl.types import AnswerLabels, Rollout
from unirl.updates import SFT
from unirl.updates.answer_labels import AnswerLabeler
from unirl.updates.reference import Reference
from unirl_shapes.detector import detect
from unirl_shapes.examples import true_answer
from unirl_shapes.scenes import Scene, SceneObject
from unirl_shapes.vocabulary import GRID


class TrueLabels(AnswerLabeler):
    """Labels each answer by what the detector sees in the image."""

    def labels(self, backbone: Backbone, rollout: Rollout, reference: Reference | None = None) -> AnswerLabels:
        pixels = rollout.images.pixels if rollout.images.pixels is not None else backbone.decode(rollout.images)
        texts = [
            true_answer(example, read_scene(image)) for example, image in zip(rollout.examples, pixels, strict=True)
        ]
        return AnswerLabels(backbone.tokenize_answers(texts))


class TrueLabelsSFT(SFT):
    """SFT on true labels: a diagnosis, as `answer_labels` of a rule never reads the judge.

    Args:
        options: As for `SFT`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.labeler = TrueLabels("sft", "self", self.labeler.config, self.labeler.images)


def read_scene(image: Tensor) -> Scene:
    """The scene that an image (3, H, H) in [0, 1] shows, by the detector."""
    cell = image.shape[-1] / GRID
    objects = []
    for found in detect(image):
        column, row = ((found.box[i] + found.box[i + 2]) / 2 // cell for i in (0, 1))
        objects.append(SceneObject(found.name, found.color or "", int(row) * GRID + int(column)))
    return tuple(objects)


@hookimpl
def unirl_register_updates(register: Callable[[str, str], None]) -> None:
    register("true_labels", "true_labels:TrueLabelsSFT")
