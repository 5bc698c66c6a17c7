"""GenEval's detector: Mask2Former of transformers between mmdet's preparation of images and its post-processing."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unirl import UserError
from unirl.judges import Detection
from unirl_geneval.detections import Instances, instances
from unirl_geneval.pretrained import find_model, load_model
from unirl_geneval.resize import LONG_SIDE, SHORT_SIDE, detector_input, input_size
from unirl_geneval.vocabulary import CLASSES, is_class

OWNER = "geneval: the detector"
UNUSED = ("criterion.empty_weight", "module.encoder.layernorm.", "module.encoder.swin.layernorm.")
"""Of the weights: the loss's, and a last norm of Swin that no output goes through."""


@dataclass(frozen=True)
class DetectedObject(Detection):
    """A detection with its mask.

    Shapes:
        mask (H, W) bool.
    """

    mask: Tensor | None = field(default=None, repr=False, compare=False)


class Detector:
    """Finds objects of GenEval's 80 classes in images.

    Args:
        checkpoint: A `Mask2FormerForUniversalSegmentation` of COCO's instances: a folder, `package:folder` or hub id.
        revision: Branch, tag or commit of the hub's repository.
        scale: The longest long side and the longest short side of an image as the network sees it.

    Raises:
        UserError: it cannot be read, or its labels are not COCO's.
    """

    def __init__(
        self, checkpoint: str, revision: str | None = None, scale: tuple[int, int] = (LONG_SIDE, SHORT_SIDE)
    ) -> None:
        from transformers import Mask2FormerForUniversalSegmentation  # noqa: PLC0415 - slow to import

        folder = find_model(checkpoint, revision, OWNER)
        self.scale = scale
        self.model: Any = load_model(
            Mask2FormerForUniversalSegmentation, folder, OWNER, "mask2former", UNUSED, dtype=torch.float32
        )
        _check_labels(self.model.config.id2label, checkpoint)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The network's class logits and mask logits.

        Args:
            images: Levels from 0 to 255.

        Shapes:
            images (B, 3, H, W) uint8; returns (B, Q, 81) and (B, Q, h, w).
        """
        self.model.to(images.device)
        inputs = detector_input(images, input_size(images.shape[-2], images.shape[-1], self.scale))
        out = self.model(pixel_values=inputs)
        return out.class_queries_logits, out.masks_queries_logits

    def detect(self, images: Tensor, min_score: float = 0.0) -> list[list[DetectedObject]]:
        """The objects in each image.

        Args:
            images: Levels from 0 to 255.
            min_score: Objects of a smaller score may be left out.

        Shapes:
            images (B, 3, H, W) uint8.
        """
        height, width = images.shape[-2:]
        size = input_size(height, width, self.scale)
        return [
            _objects(instances(*one, size, height, width, min_class_probability=min_score))
            for one in zip(*self.outputs(images), strict=True)
        ]


def _objects(found: Instances) -> list[DetectedObject]:
    columns = (found.labels, found.boxes, found.scores, found.mask_index)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        DetectedObject(CLASSES[label], tuple(box), score, mask=found.masks[mask]) for label, box, score, mask in rows
    ]


def _check_labels(names: dict[int, str], checkpoint: str) -> None:
    advice = "GenEval needs a detector of COCO's 80 classes, in COCO's order"
    if len(names) != len(CLASSES):
        raise UserError(f"{OWNER} {checkpoint!r} has {len(names)} labels; {advice}")
    for index, name in sorted(names.items()):
        if not is_class(str(name), int(index)):
            raise UserError(f"{OWNER} {checkpoint!r} has the label {index} {name!r}, not {CLASSES[index]!r}; {advice}")
