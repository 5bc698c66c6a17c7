"""From the detector's raw outputs to instances: mmdet's instance post-processing, at the size of the image."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl_geneval.resize import InputSize

MAX_PER_IMAGE = 100


class Instances(NamedTuple):
    """Detected instances of an image.

    Args:
        labels: Class indices.
        scores: Class probability times mask score, in [0, 1].
        boxes: `x0, y0, x1, y1` in pixels, the ends exclusive; zeros for an empty mask.
        masks: One for each query that occurs.
        mask_index: The mask of each instance.

    Shapes:
        labels, scores and mask_index (N,); boxes (N, 4); masks (M, H, W) bool.
    """

    labels: Tensor
    scores: Tensor
    boxes: Tensor
    masks: Tensor
    mask_index: Tensor


def instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    size: InputSize,
    height: int,
    width: int,
    max_per_image: int = MAX_PER_IMAGE,
    min_class_probability: float = 0.0,
) -> Instances:
    """The instances of an image: the most probable pairs of query and class, each with the mask of its query.

    A query may occur with several classes. There is no suppression of overlaps and no threshold of scores.

    Args:
        class_logits: Of each query; the last class is "no object".
        mask_logits: Of each query, at a quarter of the padded size.
        size: Sizes of the detector's input.
        height: Of the image.
        width: Of the image.
        max_per_image: The most instances.
        min_class_probability: Leave out instances of a smaller class probability, to save time. No score is above the
            class probability.

    Shapes:
        class_logits (Q, C + 1), mask_logits (Q, h, w).

    Source: `MaskFormerFusionHead.instance_postprocess` of mmdet 2.28.
    """
    num_classes = class_logits.shape[1] - 1
    probabilities = class_logits.softmax(-1)[:, :-1].flatten()  # (Q * C,)
    best, index = probabilities.topk(min(max_per_image, len(probabilities)), sorted=False)
    wanted = best >= min_class_probability
    best, index = best[wanted], index[wanted]
    queries, mask_index = torch.unique(index // num_classes, return_inverse=True)
    logits = _at_image_size(mask_logits[queries], size, height, width)
    masks = logits > 0
    mask_scores = (logits.sigmoid() * masks).flatten(1).sum(1) / (masks.flatten(1).sum(1) + 1e-6)
    return Instances(index % num_classes, best * mask_scores[mask_index], _boxes(masks)[mask_index], masks, mask_index)


def _at_image_size(mask_logits: Tensor, size: InputSize, height: int, width: int) -> Tensor:
    """Mask logits (M, H, W) of an image. Always in two steps, the second from what is not padding."""
    if not len(mask_logits):
        return mask_logits.new_zeros(0, height, width)
    padded = F.interpolate(mask_logits[None], size.padded, mode="bilinear", align_corners=False)
    cropped = padded[..., : size.resized[0], : size.resized[1]]
    return F.interpolate(cropped, (height, width), mode="bilinear", align_corners=False)[0]


def _boxes(masks: Tensor) -> Tensor:
    """The boxes (M, 4) of masks, with exclusive ends; zeros for empty masks."""
    boxes = []
    for axis in (1, 2):  # x by columns, then y by rows
        occupied = masks.any(axis)  # (M, W) or (M, H)
        places = torch.arange(occupied.shape[1], device=masks.device)
        boxes.append(torch.where(occupied, places, occupied.shape[1]).amin(1))
        boxes.append(torch.where(occupied, places + 1, 0).amax(1))
    x0, x1, y0, y1 = boxes
    stacked = torch.stack((x0, y0, x1, y1), 1).float()
    return torch.where(x1[:, None] > 0, stacked, 0.0)
