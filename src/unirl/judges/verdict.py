"""GenEval's decision rule: whether an image is correct, given the objects detected in it.

Source: Ghosh et al. 2023 (arXiv 2310.11513), `evaluation/evaluate_images.py` of its public code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from unirl.judges.base import Verdict
from unirl.types import Item
from unirl.unicode import normalize_text

Box = tuple[float, float, float, float]
"""`(x0, y0, x1, y1)`, y growing downwards."""

THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9
MAX_PER_CLASS = 16
POSITION_SHRINK = 0.1
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""The colors that GenEval tells apart, in its order."""


@dataclass(frozen=True)
class Detection:
    """A detected object.

    Args:
        name: Its class, such as "circle".
        box: `(x0, y0, x1, y1)`, y growing downwards.
        confidence: In [0, 1].
        color: Its color, or None where colors are not classified.
    """

    name: str
    box: Box
    confidence: float
    color: str | None = None


D = TypeVar("D", bound=Detection)


def spatial_relations(box: Box, reference: Box) -> set[str]:
    """Where a box is as seen from another one: up to two of "left of", "right of", "above" and "below".

    The offset of the centers is shrunk on each axis by a tenth of both sizes, then divided by the length of the
    unshrunk offset, as GenEval does, in float32.

    Args:
        box: The box.
        reference: The one it is seen from.

    Example:
        >>> spatial_relations((0, 0, 2, 2), (8, 0, 10, 2))
        {'left of'}
    """
    corners = np.array((box, reference), dtype=np.float32).reshape(2, 2, 2)  # box, corner, axis
    offset = np.subtract(*corners.mean(1))
    sizes = np.abs(corners[:, 1] - corners[:, 0]).sum(0)
    shrunk = np.copysign(np.maximum(np.abs(offset) - np.float32(POSITION_SHRINK) * sizes, 0), offset)
    if (np.abs(shrunk) < 1e-3).all():
        return set()
    dx, dy = shrunk / np.linalg.norm(offset)
    holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, true in holds.items() if true}


def detected_colors(detections: Sequence[Detection]) -> list[str | None]:
    """The colors that detections have."""
    return [detection.color for detection in detections]


def verdict(
    objects: Sequence[Item],
    exclude: Sequence[Item],
    detections: Sequence[D],
    *,
    counting: bool = False,
    threshold: float = THRESHOLD,
    counting_threshold: float = COUNTING_THRESHOLD,
    max_per_class: int = MAX_PER_CLASS,
    classify_colors: Callable[[Sequence[D]], Sequence[str | None]] = detected_colors,
) -> Verdict:
    """Whether the detections show all `objects` and nothing of `exclude`. Other objects make no difference.

    Names and colors are compared as people read them, see `unirl.unicode`.

    Args:
        objects: What the image must show; a relation refers to an earlier item.
        exclude: What it must not show: `count` or more of the class.
        detections: The detected objects, in any order.
        counting: Whether the prompt asks for a number of objects, for which GenEval takes confident detections only.
        threshold: Detections count above this confidence, compared in float32.
        counting_threshold: The same for counting.
        max_per_class: The most confident detections of each class that are considered. Of equally confident ones, the
            later comes first.
        classify_colors: The colors of some detections of a class. It is called only for those whose color is asked for.

    Returns:
        The verdict. Its reason has a line for each item that is missing, wrong or excluded.

    Raises:
        ValueError: a relation does not refer to an earlier item.

    Example:
        >>> verdict([Item("cat", 2)], [], [Detection("cat", (0, 0, 1, 1), 0.95)])
        Verdict(correct=False, reason='expected cat>=2, found 1')
    """
    detected = best_by_class(detections, counting_threshold if counting else threshold, max_per_class)
    reasons: list[str] = []
    matched: list[Sequence[D] | None] = []
    for item in objects:
        candidates = detected.get(normalize_text(item.name), [])[: item.count]
        reason = _mismatch(item, candidates, classify_colors) or _relation_mismatch(item, candidates, matched)
        matched.append(None if reason else candidates)
        reasons += [reason] if reason else []
    for item in exclude:
        count = len(detected.get(normalize_text(item.name), []))
        if count >= item.count:
            reasons.append(f"expected {item.name}<{item.count}, found {count}")
    return Verdict(not reasons, "\n".join(reasons))


def best_by_class(
    detections: Sequence[D], threshold: float = THRESHOLD, max_per_class: int = MAX_PER_CLASS
) -> dict[str, list[D]]:
    """The detections that `verdict` considers, by class, the most confident first.

    Args:
        detections: As for `verdict`.
        threshold: As for `verdict`.
        max_per_class: As for `verdict`.

    Example:
        >>> cats = [Detection("cat", (0, 0, 1, 1), confidence) for confidence in (0.4, 0.9, 0.2)]
        >>> [cat.confidence for cat in best_by_class(cats)["cat"]]
        [0.9, 0.4]
    """
    best: dict[str, list[D]] = {}
    order = sorted(((np.float32(one.confidence), i) for i, one in enumerate(detections)), reverse=True)
    for confidence, i in order:
        if confidence > np.float32(threshold):
            best.setdefault(normalize_text(detections[i].name), []).append(detections[i])
    return {name: same_class[:max_per_class] for name, same_class in best.items()}


def _mismatch(
    item: Item,
    candidates: Sequence[D],
    classify_colors: Callable[[Sequence[D]], Sequence[str | None]],
) -> str:
    """Why the candidates are not what the item asks for, its place aside; empty where they are."""
    if len(candidates) < item.count:
        return f"expected {item.name}>={item.count}, found {len(candidates)}"
    if item.color is None or not candidates:
        return ""
    colors = [normalize_text(color) for color in classify_colors(candidates) if color is not None]
    count = colors.count(normalize_text(item.color))
    if count >= item.count:
        return ""
    order = [*COLORS, *sorted(set(colors) - set(COLORS))]
    found = ", ".join(f"{colors.count(color)} {color}" for color in order if color in colors)
    return f"expected {item.color} {item.name}>={item.count}, found {count} {item.color}; and {found}"


def _relation_mismatch(item: Item, candidates: Sequence[D], matched: Sequence[Sequence[D] | None]) -> str:
    """Why the candidates are not where the item asks for; empty where they are."""
    if item.relation is None:
        return ""
    name, index = item.relation
    if not 0 <= index < len(matched):
        raise ValueError(f"{item.name}: a relation must refer to an earlier item, got index {index} of {len(matched)}")
    targets = matched[index]
    if targets is None:
        return f"no target for {item.name} to be {name}"
    for one in candidates:
        for target in targets:
            relations = spatial_relations(one.box, target.box)
            if name not in relations:
                return f"expected {item.name} {name} target, found {' and '.join(sorted(relations))} target"
    return ""
