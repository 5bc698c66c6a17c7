"""GenEval's decision rule: whether an image is correct, given the objects detected in it.

Source: Ghosh et al. 2023 (arXiv 2310.11513), `evaluation/evaluate_images.py` of its public code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unirl.judges.base import Verdict
from unirl.types import Item
from unirl.unicode import normalize_text

Box = tuple[float, float, float, float]
"""`(x0, y0, x1, y1)`, y growing downwards."""

THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9
MAX_PER_CLASS = 16
POSITION_SHRINK = 0.1


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


def spatial_relations(box: Box, reference: Box) -> set[str]:
    """Where a box is as seen from another one: up to two of "left of", "right of", "above" and "below".

    The offset of the centers is shrunk on each axis by a tenth of both sizes, then divided by the length of the
    unshrunk offset, as GenEval does.

    Args:
        box: The box.
        reference: The one it is seen from.

    Example:
        >>> spatial_relations((0, 0, 2, 2), (8, 0, 10, 2))
        {'left of'}
    """
    offset = [(box[i] + box[i + 2] - reference[i] - reference[i + 2]) / 2 for i in (0, 1)]
    sizes = [abs(box[i + 2] - box[i]) + abs(reference[i + 2] - reference[i]) for i in (0, 1)]
    shrunk = [math.copysign(max(abs(o) - POSITION_SHRINK * s, 0.0), o) for o, s in zip(offset, sizes, strict=True)]
    if all(abs(s) < 1e-3 for s in shrunk):
        return set()
    dx, dy = (s / math.hypot(*offset) for s in shrunk)
    holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, true in holds.items() if true}


def verdict(
    objects: Sequence[Item],
    exclude: Sequence[Item],
    detections: Sequence[Detection],
    *,
    counting: bool = False,
    threshold: float = THRESHOLD,
    counting_threshold: float = COUNTING_THRESHOLD,
    max_per_class: int = MAX_PER_CLASS,
) -> Verdict:
    """Whether the detections show all `objects` and nothing of `exclude`. Other objects make no difference.

    Names and colors are compared as people read them, see `unirl.unicode`.

    Args:
        objects: What the image must show; a relation refers to an earlier item.
        exclude: What it must not show: `count` or more of the class.
        detections: The detected objects, in any order.
        counting: Whether the prompt asks for a number of objects, for which GenEval takes confident detections only.
        threshold: Detections count above this confidence.
        counting_threshold: The same for counting.
        max_per_class: The most confident detections of each class that are considered.

    Raises:
        ValueError: a relation does not refer to an earlier item.

    Example:
        >>> verdict([Item("cat", 2)], [], [Detection("cat", (0, 0, 1, 1), 0.95)])
        Verdict(correct=False, reason='expected cat>=2, found 1')
    """
    detected = _by_class(detections, counting_threshold if counting else threshold, max_per_class)
    reasons: list[str] = []
    matched: list[list[Detection] | None] = []
    for item in objects:
        candidates = detected.get(normalize_text(item.name), [])[: item.count]
        reason = _mismatch(item, candidates, matched)
        matched.append(None if reason else candidates)
        reasons += [reason] if reason else []
    for item in exclude:
        count = len(detected.get(normalize_text(item.name), []))
        if count >= item.count:
            reasons.append(f"expected {item.name}<{item.count}, found {count}")
    return Verdict(not reasons, "; ".join(reasons))


def _by_class(detections: Sequence[Detection], threshold: float, max_per_class: int) -> dict[str, list[Detection]]:
    detected: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.confidence):
        same_class = detected.setdefault(normalize_text(detection.name), [])
        if detection.confidence > threshold and len(same_class) < max_per_class:
            same_class.append(detection)
    return detected


def _mismatch(item: Item, candidates: list[Detection], matched: list[list[Detection] | None]) -> str:
    """Why the candidates are not what the item asks for; empty where they are."""
    if len(candidates) < item.count:
        return f"expected {item.name}>={item.count}, found {len(candidates)}"
    if item.color is not None:
        color = normalize_text(item.color)
        count = sum(normalize_text(candidate.color or "") == color for candidate in candidates)
        if count < item.count:
            return f"expected {item.color} {item.name}>={item.count}, found {count}"
    return "" if item.relation is None else _relation_mismatch(item, item.relation, candidates, matched)


def _relation_mismatch(
    item: Item, relation: tuple[str, int], candidates: list[Detection], matched: list[list[Detection] | None]
) -> str:
    name, index = relation
    if not 0 <= index < len(matched):
        raise ValueError(f"{item.name}: a relation must refer to an earlier item, got index {index} of {len(matched)}")
    targets = matched[index]
    if targets is None:
        return f"no target for {item.name} to be {name}"
    if all(name in spatial_relations(one.box, target.box) for one in candidates for target in targets):
        return ""
    return f"expected {item.name} {name} {targets[0].name}"
