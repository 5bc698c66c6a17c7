"""Text of any script below an image: fonts, characters that no font has, line breaks."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

FONT_SIZE, LINE_HEIGHT = 14, 17
"""Pixels."""
MAX_LINES = 10
"""Lines of a text; a longer one is cut, and ends with three dots."""
MAX_CHARACTERS = 4000
"""Of a text that are looked at: far more than fit in its lines."""
DOTS = "..."
FONT_NAMES = (
    "DejaVuSans.ttf",
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf"),
    *("NotoEmoji-Regular.ttf", "seguiemj.ttf"),
)
"""Fonts of the system that have what Pillow's own font lacks. They are used where they are installed."""
_UNASSIGNED = "\U0010fffe"
"""Drawn as a font draws what it does not have."""
_CHARACTER = re.compile(r"\\[uUx][0-9a-f]+|.")
"""A character, or the escape of one, which is not broken."""
_Font = ImageFont.FreeTypeFont


def wrap(text: str, width: int, max_lines: int = MAX_LINES) -> list[str]:
    r"""Break a text into lines. Characters that no font has are escaped, so that they can be told apart.

    Args:
        text: Any text.
        width: Of a line, in pixels.
        max_lines: A longer text is cut.

    Example:
        >>> wrap("a photo of a red circle", width=100)
        ['a photo of a', 'red circle']
        >>> wrap("tag \U0010fffe", width=1000)
        ['tag \\U0010fffe']
    """
    lines = [""]
    for part in _parts(_escape(text[:MAX_CHARACTERS]), width):
        if len(lines) > max_lines:
            break
        if lines[-1] and _length(lines[-1] + part.rstrip()) > width:
            lines[-1:] = [lines[-1].rstrip(), ""]
        lines[-1] += part
    lines[-1] = lines[-1].rstrip()
    if len(lines) > max_lines:
        lines = lines[:max_lines]
        while lines[-1] and _length(lines[-1] + DOTS) > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] += DOTS
    return lines if lines[0] else []


def draw_line(canvas: ImageDraw.ImageDraw, x: float, y: float, line: str, color: str) -> None:
    """Draw a line, each character in the first font that has it.

    Args:
        canvas: Drawn on.
        x: Left end, in pixels.
        y: Top, in pixels.
        line: Returned by `wrap`.
        color: As Pillow reads it.
    """
    for font, text in _runs(line):
        canvas.text((x, y + FONT_SIZE), text, fill=color, font=font, anchor="ls")
        x += font.getlength(text)


def _parts(text: str, width: int) -> Iterator[str]:
    """Words with the space after them; a word that is longer than a line in pieces."""
    for word in text.split():
        piece = ""
        for character in _CHARACTER.findall(word):
            if piece and _length(piece + character) > width:
                yield piece
                piece = ""
            piece += character
        yield f"{piece} "


def _escape(text: str) -> str:
    """The text with what can be drawn: no characters of format, such as joiners, and escapes for what no font has."""
    characters = (c for c in unicodedata.normalize("NFC", text) if not _is_invisible(c))
    return "".join(c if c.isspace() or _font_of(c) else c.encode("unicode_escape").decode() for c in characters)


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def _length(line: str) -> float:
    return sum(font.getlength(text) for font, text in _runs(line))


def _runs(line: str) -> Iterator[tuple[_Font, str]]:
    """Pieces of a line with their fonts; a space belongs to the piece before it."""
    font = _fonts()[0]
    pairs: list[tuple[_Font, str]] = []
    for character in line:
        font = font if character.isspace() else _font_of(character) or _fonts()[0]
        pairs.append((font, character))
    for _, group in groupby(pairs, key=lambda pair: id(pair[0])):
        pieces = list(group)
        yield pieces[0][0], "".join(character for _, character in pieces)


@cache
def _font_of(character: str) -> _Font | None:
    """The first font that has a character."""
    return next((font for font in _fonts() if _glyph(font, character) != _glyph(font, _UNASSIGNED)), None)


def _glyph(font: _Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


@cache
def _fonts() -> tuple[_Font, ...]:
    own = ImageFont.load_default(FONT_SIZE)
    assert isinstance(own, _Font)
    loaders: list[Callable[[], _Font]] = [partial(ImageFont.truetype, name, FONT_SIZE) for name in FONT_NAMES]
    if (matplotlib := find_spec("matplotlib")) is not None and matplotlib.origin is not None:
        path = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / FONT_NAMES[0]
        loaders.insert(0, partial(ImageFont.truetype, path, FONT_SIZE))
    return own, *filter(None, map(_load, loaders))


def _load(loader: Callable[[], _Font]) -> _Font | None:
    try:
        return loader()
    except OSError:  # it is not there, or has bitmaps of another size only
        return None
