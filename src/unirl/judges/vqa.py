"""The benchmark `vqa`: questions about images in a folder."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from typing_extensions import override

from unirl.errors import UserError
from unirl.judges.base import Judge
from unirl.types import Example, Question
from unirl.unicode import fold

FIELDS = ("image", "question", "answer", "answers", "choices", "category")
_ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class VQAExample(Example):
    """A question about an image of a file.

    Args:
        accepted: All answers that count as correct.
    """

    accepted: tuple[str, ...] = ()


class VQA(Judge):
    """Questions about images, one JSON object in each line: `{"image": ..., "question": ..., "answer": ...}`.

    Instead of "answer", "answers" is a list, each of which is correct. With "choices", the most probable of them is the
    answer. "category" is a name under which results are reported. An answer is correct if it has the same words as a
    right one, up to case, punctuation and articles; a right "yes" or "no" needs the first word only.

    Args:
        questions: The file, UTF-8.
        images: The folder of the images. By default that of the file.

    Raises:
        UserError: the file cannot be read, or a line is wrong, or its image is not there.
    """

    def __init__(self, questions: str, images: str | None = None) -> None:
        self.questions, self.images = questions, images
        folder = Path(questions).expanduser().parent if images is None else Path(images).expanduser()
        self._examples, self._files = _read(Path(questions).expanduser(), folder)

    @override
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        """There are none.

        Raises:
            UserError: always.
        """
        raise UserError("vqa asks about given images, and cannot judge generated ones; take another judge")

    @override
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], list[str]]:
        """All questions of the file, and the paths of their images, which are read when they are asked about.

        Args:
            count: Ignored.
            seed: Ignored.
        """
        return list(self._examples), self._files

    @override
    def accepts_answer(self, example: Example, answer: str) -> bool:
        """Whether an answer has the words of a right one.

        Args:
            example: Of `understanding_set`.
            answer: The model's.

        Example:
            >>> right = VQAExample("", "How many?", "2", accepted=("2", "two"))
            >>> VQA.accepts_answer(VQA.__new__(VQA), right, "Two.")
            True
        """
        return matches_answer(answer, example.accepted if isinstance(example, VQAExample) else (example.answer,))


def matches_answer(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer has the words of a right one: case, punctuation and articles do not matter.

    Args:
        answer: The model's.
        accepted: Right answers. Of "yes" and "no" the first word of the answer counts.

    Example:
        >>> [matches_answer(text, ["yes", "a cup"]) for text in ("Yes, there is.", "Cup!", "no")]
        [True, True, False]
    """
    given = _words(answer)
    return any(given == right or (right in (["yes"], ["no"]) and given[:1] == right) for right in map(_words, accepted))


def _words(text: str) -> list[str]:
    """The words of an answer that count."""
    words = re.findall(r"\w+(?:[.']\w+)*|\S", fold(text))
    return [word for word in words if word not in _ARTICLES and re.match(r"\w", word)]


def _read(path: Path, folder: Path) -> tuple[list[VQAExample], list[str]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the questions file {path}: {error.strerror or error}") from None
    examples, files = [], []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            example, file = _parse(line, f"{path}:{number}", folder)
            examples.append(example)
            files.append(file)
    if not examples:
        raise UserError(f'the questions file {path} is empty; write one {{"image", "question", "answer"}} per line')
    return examples, files


def _parse(line: bytes, place: str, folder: Path) -> tuple[VQAExample, str]:
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{place}: not valid JSON ({error}); expected one JSON object per line") from None
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: expected a JSON object, got {row!r}")
    if unknown := [name for name in row if name not in FIELDS]:
        raise UserError(f"{place}: unknown field {unknown[0]!r}; known: {', '.join(FIELDS)}")
    accepted = _texts(row.get("answers", [row["answer"]] if "answer" in row else []), "answers", place)
    choices = _texts(row.get("choices", []), "choices", place)
    for name in ("image", "question"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise UserError(f"{place}: expected a text in {name!r}, got {row.get(name)!r}")
    if not accepted:
        raise UserError(f"{place}: expected a text in 'answer', or a list of them in 'answers'")
    file = folder / row["image"]
    if not file.is_file():
        raise UserError(f"{place}: there is no image {file}; --benchmark.images is the folder of the images")
    category = row.get("category", "questions")
    if not isinstance(category, str):
        raise UserError(f"{place}: expected a text in 'category', got {category!r}")
    try:
        question = Question(row["question"], accepted[0], choices)
        return VQAExample("", category=category, questions=(question,), accepted=accepted), str(file)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _texts(value: object, name: str, place: str) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise UserError(f"{place}: expected a list of texts in {name!r}, got {value!r}")
