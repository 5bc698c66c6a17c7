"""Small images inside a page, and which ones are shown where there are too many."""

from base64 import b64encode
from collections.abc import Hashable, Sequence
from io import BytesIO

from PIL import Image, features

MAX_SIDE = 256
"""Largest side of an image in a page, in pixels."""
LOSSLESS_SIDE = 128
"""Images up to this side are saved without loss: they are small, and each of their pixels can be seen."""
QUALITY, EFFORT = 80, 2
"""Of WEBP; more effort takes twice the time for a hundredth of the size."""


def thumbnail(image: Image.Image, side: int = MAX_SIDE) -> bytes:
    """A small image file: WEBP, or PNG where Pillow has no WEBP.

    Args:
        image: Of any size and mode.
        side: Largest side of the file, in pixels.

    Example:
        >>> Image.open(BytesIO(thumbnail(Image.new("RGB", (1024, 512))))).size
        (256, 128)
    """
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    if features.check("webp"):
        lossless = max(small.size) <= LOSSLESS_SIDE
        # Without loss, `quality` is the effort, which brings 5 % here.
        small.save(buffer, "WEBP", lossless=lossless, quality=0 if lossless else QUALITY, method=EFFORT)
    else:
        small.save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(data: bytes) -> str:
    """An image file as the address of an image in a page.

    Args:
        data: Of `thumbnail`.

    Example:
        >>> data_uri(b"RIFF....")
        'data:image/webp;base64,UklGRi4uLi4='
    """
    kind = "webp" if data.startswith(b"RIFF") else "png"
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def spread(groups: Sequence[Hashable], count: int) -> list[int]:
    """A choice of rows that has about as many of each group, and within a group from its beginning to its end.

    Args:
        groups: The group of each row, such as its category and verdict.
        count: Rows to choose.

    Returns:
        Indices in ascending order.

    Example:
        >>> spread(["right"] * 6 + ["wrong"] * 2, 4)
        [0, 3, 6, 7]
    """
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    chosen, left = list[int](), count
    # The smallest groups first: what they lack is for the others.
    for done, members in enumerate(sorted(rows.values(), key=len)):
        share = min(len(members), left // (len(rows) - done))
        chosen += [members[i * len(members) // share] for i in range(share)]
        left -= share
    return sorted(chosen)
