"""GenEval's rule: is a picture right, given what a detector found in it? Pure functions over detections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unirl.types import Item

Box = tuple[float, float, float, float]

THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9
MOST_PER_CLASS = 16
POSITION_SHRINK = 0.1


@dataclass(frozen=True)
class Detection:
    """One thing a detector found.

    Args:
        name: Its class, such as "circle".
        box: `(x0, y0, x1, y1)`, y growing downwards.
        confidence: Between 0 and 1.
        color: The color it was classified as, or None where nobody looked.
    """

    name: str
    box: Box
    confidence: float
    color: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The decision, and every clause that failed in words; the reason is empty where it is correct."""

    correct: bool
    reason: str = ""


def relation(box_a: Box, box_b: Box) -> set[str]:
    """Where A stands, seen from B: none, one or two of "left of", "right of", "above" and "below".

    The offset of the centres is shrunk on each axis by a tenth of both sizes, then divided by the length of the
    UNSHRUNK offset, as GenEval does.

    Example:
        >>> relation((0, 0, 2, 2), (8, 0, 10, 2))
        {'left of'}
    """
    offset = [(box_a[i] + box_a[i + 2] - box_b[i] - box_b[i + 2]) / 2 for i in (0, 1)]
    sizes = [abs(box_a[i + 2] - box_a[i]) + abs(box_b[i + 2] - box_b[i]) for i in (0, 1)]
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
    most: int = MOST_PER_CLASS,
) -> Verdict:
    """Whether the detections show every object and nothing that is excluded; extra things are forgiven.

    Args:
        objects: What must be there; a relation points to an earlier one.
        exclude: What must not: `count` or more of the class.
        detections: What was found, in any order.
        counting: Whether the prompt asks for a number, for which GenEval trusts only sure detections.
        threshold: A detection counts above this confidence...
        counting_threshold: ...or above this one where the prompt asks for a number.
        most: The most confident detections of a class that are looked at.

    Raises:
        ValueError: A relation points to an item that isn't earlier.
    """
    found = _by_class(detections, counting_threshold if counting else threshold, most)
    reasons: list[str] = []
    matched: list[list[Detection] | None] = []
    for item in objects:
        boxes = found.get(item.name, [])[: item.count]
        reason = _failure(item, boxes, matched)
        matched.append(None if reason else boxes)
        reasons += [reason] if reason else []
    for item in exclude:
        seen = len(found.get(item.name, []))
        if seen >= item.count:
            reasons.append(f"expected {item.name}<{item.count}, found {seen}")
    return Verdict(not reasons, "; ".join(reasons))


def _by_class(detections: Sequence[Detection], threshold: float, most: int) -> dict[str, list[Detection]]:
    found: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.confidence):
        boxes = found.setdefault(detection.name, [])
        if detection.confidence > threshold and len(boxes) < most:
            boxes.append(detection)
    return found


def _failure(item: Item, boxes: list[Detection], matched: list[list[Detection] | None]) -> str:
    """Why these boxes are not what the item asks for; empty where they are."""
    if len(boxes) < item.count:
        return f"expected {item.name}>={item.count}, found {len(boxes)}"
    if item.color is not None:
        right = sum(box.color == item.color for box in boxes)
        if right < item.count:
            return f"expected {item.color} {item.name}>={item.count}, found {right}"
    return "" if item.relation is None else _misplaced(item, item.relation, boxes, matched)


def _misplaced(
    item: Item, wanted: tuple[str, int], boxes: list[Detection], matched: list[list[Detection] | None]
) -> str:
    name, index = wanted
    if not 0 <= index < len(matched):
        raise ValueError(f"{item.name}: a relation must point to an earlier item, got index {index} of {len(matched)}")
    targets = matched[index]
    if targets is None:
        return f"no target for {item.name} to be {name}"
    if all(name in relation(box.box, target.box) for box in boxes for target in targets):
        return ""
    return f"expected {item.name} {name} {targets[0].name}"
