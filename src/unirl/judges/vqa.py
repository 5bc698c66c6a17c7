"""The benchmark `vqa`: questions about images in a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from typing_extensions import override

from unirl.errors import UserError
from unirl.judges.answer_words import matches_answer
from unirl.judges.base import Judge
from unirl.prompts.jsonl import read_object, read_text, shorten
from unirl.types import Example, Question
from unirl.unicode import normalize_text

FIELDS = ("image", "question", "answer", "answers", "choices", "category")
_OF_AN_EXAMPLE = "prompt '': questions[0] "
"""How the message about a question begins that is one of an example."""


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
    right one, up to case, punctuation, articles and number words; a right "yes" or "no" needs the first word only. Of
    choices, the right one itself is correct.

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
    def check_example(self, example: Example) -> None:
        """Refuse every example: there are no verdicts.

        Raises:
            UserError: always.
        """
        raise UserError("it asks about images of files, and judges no generated images")

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
        """Whether an answer has the words of a right one, or is it, if it is one of the choices.

        Args:
            example: Of `understanding_set`.
            answer: The model's.

        Example:
            >>> right = VQAExample("", "How many?", "2", accepted=("2", "a pair"))
            >>> VQA.accepts_answer(VQA.__new__(VQA), right, "Two.")
            True
        """
        accepted = example.accepted if isinstance(example, VQAExample) else (example.answer,)
        choices = map(normalize_text, example.questions[0].choices)
        if (given := normalize_text(answer)) in choices:  # choices may differ in what is no word
            return given in map(normalize_text, accepted)
        return matches_answer(answer, accepted)


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
    row = read_object(line, place, FIELDS)
    if missing := [name for name in ("image", "question") if name not in row]:
        raise UserError(f"{place}: the field {missing[0]!r} is missing; required are 'image', 'question' and 'answer'")
    if ("answer" in row) == ("answers" in row):
        raise UserError(
            f"{place}: expected either 'answer', a text, or 'answers', a list of texts; give one of the two"
        )
    texts = {name: read_text(row[name], name, place) for name in ("image", "question")}
    accepted = (read_text(row["answer"], "answer", place),) if "answer" in row else _texts(row, "answers", place)
    if not accepted:
        raise UserError(f"{place}: 'answers' is empty; give one or more")
    category = read_text(row.get("category", "questions"), "category", place)
    question = Question(texts["question"], accepted[0], _texts(row, "choices", place))
    file = folder / Path(texts["image"]).expanduser()
    if not file.is_file():
        raise UserError(f"{place}: there is no image {file}; --benchmark.images is the folder of the images")
    try:
        return VQAExample("", category=category, questions=(question,), accepted=accepted), str(file)
    except UserError as error:
        raise UserError(f"{place}: {str(error).replace(_OF_AN_EXAMPLE, 'it ')}") from None


def _texts(row: Mapping[str, object], name: str, place: str) -> tuple[str, ...]:
    value = row.get(name, [])
    if not isinstance(value, list):
        raise UserError(f"{place}: {name!r} is {shorten(value)}, expected a list of texts")
    return tuple(read_text(one, f"{name}[{i}]", place) for i, one in enumerate(value))
