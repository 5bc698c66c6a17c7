"""An update rule whose answers are labeled by the shapes world's detector: what could understanding learn at best?"""

from collections.abc import Callable
from typing import Any

from unirl import hookimpl
from unirl.backbones import Backbone
from unirl.types import AnswerLabels, Rollout
from unirl.updates import SFT
from unirl.updates.answer_labels import AnswerLabeler
from unirl.updates.reference import Reference
from unirl_shapes.detector import detect_scene
from unirl_shapes.truth import answer


class TrueLabels(AnswerLabeler):
    """Labels each answer by what the detector sees in the image."""

    def labels(self, backbone: Backbone, rollout: Rollout, reference: Reference | None = None) -> AnswerLabels:
        pixels = rollout.images.pixels if rollout.images.pixels is not None else backbone.decode(rollout.images)
        scenes = [detect_scene(image) for image in pixels]
        texts = [
            answer(question, scenes[row // rollout.num_questions]) for row, question in enumerate(rollout.questions)
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


@hookimpl
def unirl_register_updates(register: Callable[[str, str], None]) -> None:
    register("true_labels", "true_labels:TrueLabelsSFT")
