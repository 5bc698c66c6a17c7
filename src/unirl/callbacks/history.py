"""What a run logged, kept in little memory and read without a wait for the device in each step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MAX_POINTS = 4096
"""Points of a curve. Where there would be more, neighbors are averaged."""
MAX_UNREAD = 64
"""Steps whose values stay on the device until they are read at once."""


@dataclass
class Curve:
    """A logged scalar over steps, in at most `MAX_POINTS` points.

    Args:
        steps: Mean step of each point.
        values: Mean value of each point.
        width: Logged values that make a point.
        rest: The last ones, which are not enough for a point.

    Example:
        >>> curve = Curve()
        >>> for step in range(3):
        ...     curve.add(step, step / 2)
        >>> curve.points()
        ([0.0, 1.0, 2.0], [0.0, 0.5, 1.0])
    """

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    width: int = 1
    rest: list[tuple[float, float]] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """Add a value.

        Args:
            step: Optimizer steps so far.
            value: Any number; one that is not finite makes its point not finite, too.
        """
        self.rest.append((float(step), float(value)))
        if len(self.rest) == self.width:
            step, value = _mean(self.rest)
            self.steps.append(step)
            self.values.append(value)
            self.rest = []
        if len(self.steps) == MAX_POINTS:
            pairs = list(zip(self.steps, self.values, strict=True))
            merged = [_mean(pairs[i : i + 2]) for i in range(0, MAX_POINTS, 2)]
            self.steps, self.values = [step for step, _ in merged], [value for _, value in merged]
            self.width *= 2

    def points(self) -> tuple[list[float], list[float]]:
        """Steps and values."""
        last = [_mean(self.rest)] if self.rest else []
        return [*self.steps, *(step for step, _ in last)], [*self.values, *(value for _, value in last)]


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    steps, values = zip(*points, strict=True)
    return sum(steps) / len(points), math.nan if not all(map(math.isfinite, values)) else sum(values) / len(points)


class History:
    """Curves by name.

    Example:
        >>> history = History()
        >>> history.add(1, {"loss": torch.tensor(0.5)})
        >>> history.curves()
        {'loss': ([1.0], [0.5])}
    """

    def __init__(self) -> None:
        self._curves: dict[str, Curve] = {}
        self._unread: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Add what was logged in a step. Values on a device are read later, those of several steps at once.

        Args:
            step: Optimizer steps so far.
            values: Scalars by name.
        """
        self._unread.append((step, {name: torch.as_tensor(value).detach() for name, value in values.items()}))
        if len(self._unread) >= MAX_UNREAD:
            self.read()

    def read(self) -> None:
        """Take the values that are still on the device."""
        unread, self._unread = self._unread, []
        rows = [(step, name, value) for step, values in unread for name, value in values.items()]
        by_device: dict[torch.device, list[int]] = {}
        for i, (_, _, value) in enumerate(rows):
            by_device.setdefault(value.device, []).append(i)
        numbers = [0.0] * len(rows)
        for group in by_device.values():
            for i, number in zip(
                group, torch.stack([rows[i][2].float().reshape(()) for i in group]).tolist(), strict=True
            ):
                numbers[i] = number
        for (step, name, _), number in zip(rows, numbers, strict=True):
            self._curves.setdefault(name, Curve()).add(step, number)

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """Steps and values of each scalar."""
        self.read()
        return {name: curve.points() for name, curve in self._curves.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        self.read()
        return {
            name: {
                "points": torch.tensor([curve.steps, curve.values], dtype=torch.float64),
                "width": curve.width,
                "rest": torch.tensor(curve.rest, dtype=torch.float64).reshape(-1, 2),
            }
            for name, curve in self._curves.items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._unread = []
        self._curves = {}
        for name, one in state_dict.items():
            steps, values = one["points"].tolist()
            rest = [(step, value) for step, value in one["rest"].tolist()]
            self._curves[name] = Curve(steps, values, one["width"], rest)
