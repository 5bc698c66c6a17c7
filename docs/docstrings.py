"""A griffe extension: the sections of our docstrings that griffe does not know, in a form that it shows well."""

import inspect
import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
SECTION = re.compile(r"^(Shapes|Source):[ \t]*(\S.*)?((?:\n[ \t]+\S.*)*)", re.MULTILINE)


def plain(text: str) -> str:
    """The text of a docstring with `Example:` as griffe spells it, `Shapes:` and `Source:` as paragraphs.

    Example:
        >>> plain("One.\\n\\nShapes:\\n    x (B, 3).")
        'One.\\n\\n<span class="doc-section-title">Shapes:</span> x (B, 3).'
    """

    def paragraph(match: re.Match[str]) -> str:
        said = " ".join(line.strip() for line in f"{match[2] or ''}{match[3]}".splitlines() if line.strip())
        return f'<span class="doc-section-title">{match[1]}:</span> {said}'

    return SECTION.sub(paragraph, EXAMPLE.sub("Examples:", inspect.cleandoc(text)))


class Sections(griffe.Extension):
    """Rewrites docstrings as they are read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)
