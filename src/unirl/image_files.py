"""Images of files, read in one way, with errors that name the file."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from unirl.errors import UserError


def open_image(path: str | Path) -> Image.Image:
    """An image of a file in RGB, upright. Gray and palette become RGB; of alpha, the colors are kept.

    Args:
        path: The file.

    Raises:
        UserError: it is no image, or broken.
    """
    try:
        return decode_image(Path(path).read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def check_image(path: str | Path) -> None:
    """Refuse a file that is no image. Its first bytes are read, so one that is cut off may pass.

    Args:
        path: The file.

    Raises:
        UserError: it is no image.
    """
    try:
        with Image.open(path):
            return
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UserError(f"{path} is no image; expected a PNG, JPEG or another format of Pillow") from None


def decode_image(data: bytes, path: str | Path) -> Image.Image:
    """As `open_image`, of the contents of a file.

    Args:
        data: The contents.
        path: The file, for the error message.

    Raises:
        UserError: it is no image, or broken.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # gray of 16 bits, which `convert` would cut at 255
                upright = upright.convert("I").point(lambda level: level / 256).convert("L")
            return upright.convert("RGB")
    except UnidentifiedImageError:
        what = "no image" if data else "an empty file"
        raise UserError(f"{path}: {what}; expected a PNG, JPEG or another format of Pillow") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: a broken image: {error}") from None
