"""Real images for a judge: correct ones for prompts, with questions about them."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest
from pathlib import Path
from random import Random

from unirl.errors import UserError
from unirl.image_files import check_image
from unirl.prompts.jsonl import read_lines
from unirl.types import Example
from unirl.unicode import normalize_text

METADATA, SAMPLES = "metadata.jsonl", "samples"
"""Of GenEval's layout: `00000/metadata.jsonl` and `00000/samples/0000.png`."""

_IMAGE = re.compile(r"\d+\.(png|jpe?g|webp)", re.IGNORECASE)


class ReferenceImages:
    """Images of files, each with a prompt for which it is correct, and questions about it if there are some.

    A judge returns `understanding_set` and `references` as its own. Images are read when the model is asked about them,
    by `Backbone.preprocess`, so they may be of any size.

    Args:
        path: A JSON Lines file in the form of the prompts `jsonl`, with the path of an `image` in each line, relative
            to the file; a question is optional. Or a folder in GenEval's layout, as `unirl evaluate` writes it.
        ask: Returns an example that has no question with one, or as it is.

    Raises:
        UserError: the file or folder cannot be read, a line is invalid or has no image, or the image is not there.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (40, 30)).save(f"{folder}/cup.jpg")
        ...     line = '{"prompt": "a red cup", "question": "Which color?", "answer": "red", "image": "cup.jpg"}'
        ...     _ = Path(f"{folder}/images.jsonl").write_text(line)
        ...     images = ReferenceImages(f"{folder}/images.jsonl")
        >>> [Path(path).name for path in images.references([Example("A red cup")])]
        ['cup.jpg']
    """

    def __init__(self, path: str, ask: Callable[[Example], Example] | None = None) -> None:
        self.path = path
        rows = _rows(path)
        self.rows = [(example if ask is None or example.question else ask(example), image) for example, image in rows]
        self._by_prompt = {normalize_text(example.prompt): image for example, image in reversed(self.rows)}

    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], list[str]] | None:
        """Questions about the images, spread evenly over the categories. An image may be asked about several times.

        Args:
            count: Number of questions wanted; there are fewer where the images have fewer.
            seed: The same seed gives the same questions.

        Returns:
            Examples with one question each, and the paths of their images; None where no image has a question.
        """
        asked = [
            (replace(example, question=one.text, answer=one.answer, questions=(replace(one, requires=()),)), image)
            for example, image in self.rows
            if example.question
            for one in example.questions
        ]
        by_category = defaultdict(list)
        for row in Random(f"reference_images/{seed}").sample(asked, len(asked)):
            by_category[row[0].category].append(row)
        interleaved = chain.from_iterable(zip_longest(*by_category.values()))
        chosen = [*islice((row for row in interleaved if row is not None), count)]
        return ([example for example, _ in chosen], [image for _, image in chosen]) if chosen else None

    def references(self, examples: Sequence[Example]) -> list[str | None]:
        """The path of the first image of each example's prompt; None where there is none.

        Args:
            examples: Case, spaces and the form of Unicode of their prompts do not matter.
        """
        return [self._by_prompt.get(normalize_text(example.prompt)) for example in examples]


def _rows(path: str) -> Iterable[tuple[Example, str]]:
    try:
        given = Path(path).expanduser()
        is_folder = given.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, no such user's home
        raise UserError(
            f"reference_images {path[:60]!r} cannot be a file or folder ({getattr(error, 'strerror', None) or error})"
        ) from None
    return _folder_rows(given) if is_folder else _file_rows(given)


def _file_rows(path: Path) -> Iterator[tuple[Example, str]]:
    for number, (example, image) in read_lines(str(path), requires_question=False).items():
        if image is None:
            raise UserError(f"{path}:{number}: the field 'image' is missing; it is the path of a correct image")
        yield example, _checked_file(path.parent, image, f"{path}:{number}")


def _checked_file(folder: Path, image: str, place: str) -> str:
    try:
        file = folder / Path(image).expanduser()
        if not file.is_file():
            raise UserError(f"{place}: there is no image {file}")
        check_image(file)
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(place) else f"{place}: {error}") from None
    except (OSError, ValueError, RuntimeError) as error:  # too long, or no such user's home
        raise UserError(
            f"{place}: 'image' {image[:60]!r} cannot be a file ({getattr(error, 'strerror', None) or error})"
        ) from None
    return str(file)


def _folder_rows(folder: Path) -> list[tuple[Example, str]]:
    rows: list[tuple[Example, str]] = []
    for entry in numbered_folders(folder):
        files = numbered_images(entry)
        if files:
            examples = [example for example, _ in read_lines(str(entry / METADATA), requires_question=False).values()]
            if len(examples) != 1:
                raise UserError(f"{entry / METADATA}: expected one JSON object, got {len(examples)}")
            rows += [(examples[0], _checked_file(file.parent, file.name, str(entry / METADATA))) for file in files]
    if not rows:
        raise UserError(
            f"{folder} has no images; expected a JSON Lines file whose lines have an 'image', or a folder in GenEval's "
            f"layout: 00000/{METADATA} and 00000/{SAMPLES}/0000.png"
        )
    return rows


def numbered_images(folder: Path) -> list[Path]:
    """The images of a prompt in GenEval's layout, by their numbers.

    Args:
        folder: Of the prompt.
    """
    files = [path for path in (folder / SAMPLES).glob("*") if _IMAGE.fullmatch(path.name)]
    return sorted(files, key=lambda path: (int(path.stem), path.name))


def numbered_folders(folder: Path) -> Iterator[Path]:
    """The folders of the prompts in GenEval's layout, in order.

    Args:
        folder: Of the benchmark.

    Raises:
        UserError: it is no folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    yield from sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal())
