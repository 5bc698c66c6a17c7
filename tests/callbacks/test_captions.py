"""Text below images: any script, no silent boxes, bounded height."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from PIL import ImageDraw, ImageFont

from unirl.callbacks import Caption, captions, grids, image_grid
from unirl.callbacks.captions import DOTS, FONT_SIZE, LINE_HEIGHT, MAX_LINES, wrap
from unirl.callbacks.grids import MARGIN, MAX_SIDE, SIZE

TEXTS = (
    "fünf große Äpfel",
    "красный круг",
    "一个红色的圆形",
    "قطة",
    "a cat 🐱 or 😀",
    "\U0010fffe \x07 �",
    "e\u0301t\u00e9 ❤\ufe0f",
)


@pytest.fixture
def pillow_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose only font is Pillow's own."""

    def clear() -> None:
        captions._fonts.cache_clear()
        captions._font_of.cache_clear()

    monkeypatch.setattr(captions, "_load", lambda loader: None)
    clear()
    yield
    clear()


def missing_glyphs(text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Characters that a caption draws in a font that does not have them."""
    drawn: list[tuple[str, ImageFont.FreeTypeFont]] = []
    original = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, where: object, text: str, **options: object) -> None:
        font = options["font"]
        assert isinstance(font, ImageFont.FreeTypeFont)
        drawn.extend((character, font) for character in text if not character.isspace())
        original(self, where, text, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(ImageDraw.ImageDraw, "text", record)
        image_grid(torch.zeros(1, 3, 8, 8), [Caption(text, text, question=text, expected=text)])
    boxes = {font: bytes(font.getmask("\U0010fffe")) for _, font in drawn}
    assert drawn
    return [character for character, font in drawn if bytes(font.getmask(character)) == boxes[font]]


@pytest.mark.parametrize("text", TEXTS)
def test_no_character_is_drawn_as_a_box(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not missing_glyphs(text, monkeypatch)


@pytest.mark.usefixtures("pillow_only")
def test_what_no_font_has_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in TEXTS:
        assert not missing_glyphs(text, monkeypatch), text
    assert wrap("a red круг", 1000) == [r"a red \u043a\u0440\u0443\u0433"]
    assert wrap("😀\ufe0f\u200d", 1000) == [r"\U0001f600"]  # what is not seen anyway has no escape
    assert all(line.startswith("\\") and len(line) % 6 == 0 for line in wrap("圆形的圆形的圆形的", 100))


@pytest.mark.parametrize(
    "text", ["a photo of many red circles " * 100, "x" * 2000, "圆" * 2000, "word\n\n\nword " * 200]
)
def test_lines_fit_and_a_long_text_is_cut(text: str) -> None:
    lines = wrap(text, SIZE)
    assert len(lines) == MAX_LINES
    assert all(captions._length(line) <= SIZE for line in lines)
    assert lines[-1].endswith(DOTS)


def test_short_texts_are_whole() -> None:
    text = "a photo of a red circle and two blue squares"
    assert " ".join(wrap(text, SIZE)) == text
    assert wrap("", SIZE) == wrap("  \n", SIZE) == []


def test_a_row_is_as_high_as_its_own_captions() -> None:
    short, long = Caption("a ring", ""), Caption("a ring " * 900, "an answer " * 900, None, "what " * 900, "it " * 900)
    pixels = torch.zeros(4, 3, 8, 8)
    row = SIZE + 2 * MARGIN
    assert image_grid(pixels, [short] * 4, columns=2).height == MARGIN + 2 * (row + LINE_HEIGHT)
    assert image_grid(pixels, [short, short, short, long], columns=2).height == MARGIN + 2 * row + LINE_HEIGHT * (
        1 + 4 * MAX_LINES
    )


@pytest.mark.parametrize(
    ("count", "columns", "words", "shown"),
    [(500, 4, 1, 76), (500, 4, 2000, 16), (500, 1, 2000, 4), (500, 1000, 1, 418), (66, 4, 1, 66), (4, 1, 2000, 4)],
)
def test_a_logged_grid_is_bounded_and_says_what_is_missing(
    count: int, columns: int, words: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of images, of columns and of words is; all rows that are there are whole."""
    notes: list[str] = []
    original = grids.draw_line
    monkeypatch.setattr(grids, "draw_line", lambda *args: [notes.append(args[3]), original(*args)])
    text = "a ring " * words
    caption = Caption(text, text, True, text, text) if words > 1 else Caption(text, "")
    grid = image_grid(torch.zeros(count, 3, 8, 8), [caption] * count, columns, max_side=MAX_SIDE)
    assert grid.width <= MAX_SIDE
    assert grid.height <= MAX_SIDE
    note = " ".join(line for line in notes[-2:] if "ring" not in line)
    assert note == (f"{count - shown} more images are not shown" if shown < count else "")


def test_a_long_text_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = captions._escape
    monkeypatch.setattr(captions, "_escape", lambda text: [read.append(text), original(text)][1])
    assert len(wrap("a ring " * 1_000_000, SIZE)) == MAX_LINES
    assert len(read[0]) < 10_000


def test_question_and_expected_answer_are_drawn() -> None:
    """Each text of a caption has lines of its own, in a color of its own."""
    heights = [
        image_grid(torch.zeros(1, 3, 8, 8), [caption]).height
        for caption in (
            Caption("a ring", ""),
            Caption("a ring", "two"),
            Caption("a ring", "two", question="how many ?"),
            Caption("a ring", "two", True, "how many ?", "one"),
        )
    ]
    assert [high - low for low, high in pairwise(heights)] == [LINE_HEIGHT] * 3
    assert LINE_HEIGHT > FONT_SIZE
