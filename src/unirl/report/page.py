"""A page of templates and values. What comes from users, models and plugins is text in it, never markup or script."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unirl.output import write_atomically

REPORT = "report.html"
"""File in the folder of a run or of an evaluation."""
DISTRIBUTIONS = ("lightning-unirl", "lightning", "torch", "transformers")


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: Name of a file of this package's `templates`.
        values: What the template shows.

    Example:
        >>> values = dict.fromkeys(("scores", "images", "understanding", "summary", "warnings", "settings"), ())
        >>> page = render("benchmark.html", title="</title><b>", sections={}, versions=(), **values)
        >>> "<title>&lt;/title&gt;&lt;b&gt;</title>" in page
        True
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("unirl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.globals["asset"] = _asset
    return environment


def _asset(name: str) -> str:
    """A style sheet or script of ours."""
    return resources.files("unirl.report").joinpath("templates", name).read_text(encoding="utf-8")


def percent(value: float | None, error: float | None = None) -> str:
    """A share in percent, with its standard error where there is one.

    Args:
        value: In [0, 1].
        error: Of the same.

    Example:
        >>> percent(0.25, 0.0151), percent(None)
        ('25.0 ± 1.5', '')
    """
    if value is None:
        return ""
    return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of a table, names with dots.

    Args:
        settings: Plain values.
        prefix: In front of each name.

    Example:
        >>> flat({"seed": 0, "image_sampling": {"steps": 4}, "judge": "shapes"})
        [('seed', '0'), ('image_sampling.steps', '4'), ('judge', 'shapes')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)))
    return rows


def versions() -> dict[str, str]:
    """Versions of what a run is made of, the distributions of installed plugins among them."""
    found = {name: metadata.version(name) for name in DISTRIBUTIONS}
    plugins = [entry.dist for entry in metadata.entry_points(group="unirl")]
    return found | {one.name: one.version for one in plugins if one is not None}


def write(folder: Path, page: str) -> None:
    """Write `report.html`, whole or not at all.

    Args:
        folder: Of the run or evaluation.
        page: Its contents.

    Raises:
        OSError: it cannot be written.
    """
    # A lone surrogate in a text of a user's file cannot be encoded.
    write_atomically(folder / REPORT, page.encode("utf-8", errors="replace"))
