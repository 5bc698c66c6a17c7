"""Curves of logged scalars, in groups, for plotly."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

VALIDATION = "val/"
MAX_LABEL = 40
"""Characters of the name of a curve."""
MAX_POINTS = 1000
"""Of a curve on a page; more are averaged."""
TITLES = {
    "reward": "Reward and its parts",
    "generation": "Generation, accuracy",
    "understanding": "Understanding, accuracy",
    "self_reward": "Self-reward, balanced accuracy",
    "consistency": "Consistency of both tasks",
    "diversity": "Diversity of images",
    "groups": "Groups of samples",
    "kl": "KL divergence from the reference",
    "entropy": "Entropy of a decision, nats",
    "loss": "Loss",
    "grad_norm": "Gradient norms",
    "learning_rate": "Learning rate",
}
"""Titles of the groups that runs have, in their order on a page. Others follow, under their own names."""
GROUPS = {"rewards": "reward", "reward_std": "groups", "frac_reward_zero_std": "groups", "frac_accepted": "groups"}
"""Where a scalar belongs whose name does not begin with that of its group."""
SHARES = ("generation", "understanding", "self_reward", "consistency", "diversity")
"""Groups of numbers in [0, 1], whose axis is in percent."""
Points = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


def group_of(name: str) -> str:
    """The group of a logged scalar.

    Args:
        name: As it is logged.

    Example:
        >>> [group_of(name) for name in ("rewards/keyword/mean", "val/generation/colors", "kl/image", "frac_accepted")]
        ['reward', 'generation', 'kl', 'groups']
    """
    head = name.removeprefix(VALIDATION).partition("/")[0]
    return GROUPS.get(head, head)


def charts(curves: Mapping[str, Points]) -> list[dict[str, Any]]:
    """The curves of a run as charts, a chart for each group.

    Args:
        curves: Steps and values by name. Values that are not finite are gaps.

    Returns:
        Title, unit and traces of each chart. Names are escaped: plotly reads some markup in them.

    Example:
        >>> (chart,) = charts({"loss": ([1, 2], [0.5, float("nan")])})
        >>> chart["title"], chart["traces"]
        ('Loss', [{'name': 'loss', 'x': [1, 2], 'y': [0.5, None]}])
        >>> [one["name"] for one in charts({"kl/image": ([0], [0.5]), "val/kl/image": ([0], [0.5])})[0]["traces"]]
        ['image', 'image (validation)']
        >>> charts({"val/generation/colors": ([0], [0.5])})[0]["unit"]
        '%'
    """
    groups: dict[str, list[str]] = {group: [] for group in TITLES}
    for name in curves:
        groups.setdefault(group_of(name), []).append(name)
    return [
        {
            "title": TITLES.get(group) or group.replace("_", " ").capitalize(),
            "unit": "%" if group in SHARES else "",
            "traces": [_trace(label, curves[name]) for label, name in zip(_labels(group, names), names, strict=True)],
        }
        for group, names in groups.items()
        if names
    ]


def _labels(group: str, names: Sequence[str]) -> list[str]:
    """Short names of curves; of two with the same one, that of validation says so."""
    short = [name.removeprefix(VALIDATION).removeprefix(f"{group}/") for name in names]
    again = {label for label in short if short.count(label) > 1}
    return [
        f"{label if len(label) <= MAX_LABEL else f'{label[: MAX_LABEL - 1]}…'}"
        + (" (validation)" if label in again and name.startswith(VALIDATION) else "")
        for label, name in zip(short, names, strict=True)
    ]


def _trace(label: str, points: Points) -> dict[str, Any]:
    steps, values = _thinned(*points)
    return {"name": escape(label), "x": steps, "y": [value if math.isfinite(value) else None for value in values]}


def _thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The means of neighbors, so many of them that `MAX_POINTS` are left."""
    width = -(-len(steps) // MAX_POINTS)
    if width <= 1:
        return list(steps), list(values)
    parts = [slice(i, i + width) for i in range(0, len(steps), width)]
    return [_mean(steps[part]) for part in parts], [_mean(values[part]) for part in parts]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def plotly_js() -> str:
    """The library that draws them, for one page."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - 5 MB, for pages with curves only

    code: str = get_plotlyjs()
    return code
