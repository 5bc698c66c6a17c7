"""Questions about given images in an evaluation: by what their answers are kept, and where their images are."""

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from unirl.backbones import Backbone
from unirl.backbones.given_images import GivenImages, select_given
from unirl.benchmark.folder import write_image
from unirl.errors import UserError
from unirl.types import Example

IMAGES = "questions"
"""Folder of the images that a benchmark makes, in that of its results."""


class GivenQuestions:
    """Questions about given images.

    Args:
        examples: With the questions.
        images: One for each, or the path of its file.
        folder: Of the results.
    """

    def __init__(self, examples: Sequence[Example], images: GivenImages, folder: Path) -> None:
        self.examples, self.images, self.folder = examples, images, folder
        self._keys: dict[int, str] = {}
        self._hashes: dict[str, str] = {}  # several questions are about an image

    def __len__(self) -> int:
        return len(self.examples)

    def find_unknown_words(self, backbone: Backbone) -> str | None:
        """A sentence about the questions that have words which the tokenizer does not know; None if there are none.

        Args:
            backbone: Built.
        """
        texts = Counter(example.question for example in self.examples)
        unknown = {text: words for text in texts if (words := backbone.unknown_words(text))}
        if not unknown:
            return None
        count, example = sum(texts[text] for text in unknown), next(iter(unknown.values()))
        named = ", ".join(map(repr, example))
        return f"the model's tokenizer does not know words of {count} of {len(self)} questions, such as {named}"

    def select(self, rows: Sequence[int]) -> tuple[list[Example], GivenImages]:
        """Some of the examples with their images.

        Args:
            rows: Which.
        """
        return [self.examples[row] for row in rows], select_given(self.images, rows)

    def key(self, row: int) -> str:
        """By what the answer to a question is kept: a hash of question, choices and image, and of nothing else.

        Args:
            row: Of the question.

        Raises:
            UserError: the image cannot be read.
        """
        if row not in self._keys:
            question = self.examples[row].questions[0]
            about = [question.text, *question.choices, self._image_hash(row)]
            self._keys[row] = sha256(json.dumps(about).encode()).hexdigest()
        return self._keys[row]

    def _image_hash(self, row: int) -> str:
        if isinstance(self.images, Tensor):
            return sha256(self.images[row].float().cpu().contiguous().numpy().tobytes()).hexdigest()
        path = str(self.images[row])
        if path not in self._hashes:
            self._hashes[path] = _file_hash(Path(path))
        return self._hashes[path]

    def image(self, row: int) -> str:
        """The path of an image in the results: below their folder if it is made by the benchmark.

        Args:
            row: Of the question.
        """
        if isinstance(self.images, Tensor):
            return f"{IMAGES}/{self._image_hash(row)[:16]}.png"
        return str(Path(self.images[row]).absolute())

    def write_images(self, rows: Sequence[int]) -> None:
        """Write those images that the benchmark makes and that are not there.

        Args:
            rows: Of the questions.
        """
        if isinstance(self.images, Tensor):
            for row in rows:
                if not (path := self.folder / self.image(row)).exists():
                    write_image(path, self.images[row])


def _file_hash(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from None
