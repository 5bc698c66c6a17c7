"""Prompts from JSON Lines files."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from random import Random
from typing import Any

from typing_extensions import override

from unirl.errors import UserError, suggest
from unirl.examples import check_characters
from unirl.prompts.base import Prompts
from unirl.prompts.vocabulary import RELATIONS
from unirl.types import Example, Item, Question
from unirl.unicode import normalize_text

_REQUIRED = ("prompt", "question", "answer")
_ALIASES = {"tag": "category", "include": "objects", "class": "name", "position": "relation"}
"""GenEval's names of the fields."""
_LINE_FIELDS = (*_REQUIRED, "category", "objects", "exclude", "questions", "image")
_QUESTION_FIELDS = ("text", "answer", "choices", "requires")
_ITEM_FIELDS = ("name", "count", "color", "relation")


class JsonLines(Prompts):
    """Examples from a JSON Lines file, one object `{"prompt": ..., "question": ..., "answer": ...}` in each line.

    Several questions about an image are a field `questions` instead of `question` and `answer`: a list of objects with
    the fields of `unirl.Question`, of which `choices` and `requires` are optional:

        {"prompt": "a red cup", "questions": [{"text": "Is there a cup?", "answer": "yes", "choices": ["yes", "no"]},
         {"text": "What color is it?", "answer": "red", "requires": [0]}]}

    The fields `category`, `objects` and `exclude` are optional, and GenEval's names of fields (`tag`, `include`,
    `class`, `position`) are accepted. `image`, the path of a correct image, is for judges only: see
    `unirl.judges.ReferenceImages`. Each line is used once in an epoch, in an order that depends on seed and epoch.
    All lines are validated when the file is read. Blank lines are skipped; a repeated line counts repeatedly.

    Args:
        path: File of training prompts, UTF-8.
        held_out_path: File of held-out prompts in the same form. None of them may be a training prompt, however it is
            written: case, spaces and the form of Unicode make no difference.

    Raises:
        UserError: a file cannot be read, has no prompts or an invalid line, or a held-out prompt is a training prompt.

    Source: the metadata form is GenEval's (arXiv 2310.11513).
    """

    def __init__(self, path: str, held_out_path: str | None = None) -> None:
        train = read_examples(path)
        self.examples = list(train.values())
        held_out = read_examples(held_out_path) if held_out_path is not None else {}
        lines = {normalize_text(example.prompt): number for number, example in train.items()}
        for number, example in held_out.items():
            line = lines.get(normalize_text(example.prompt))
            if line is not None:
                raise UserError(
                    f"{held_out_path}:{number}: the prompt {example.prompt!r} is also a training prompt, in "
                    f"{path}:{line}; a held-out prompt must not be trained on, so remove it from one of the two files"
                )
        self.held_out_examples = list(held_out.values())
        self._lines = [f"{path}:{number}" for number in train] + [f"{held_out_path}:{number}" for number in held_out]

    @override
    def sample(self, seed: int, index: int) -> Example:
        epoch, position = divmod(index, len(self.examples))
        return self.examples[_order(len(self.examples), seed, epoch)[position]]

    @override
    def train_examples(self) -> Sequence[Example]:
        return self.examples

    @override
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        by_category = defaultdict(list)
        shuffled = Random(f"jsonl/held_out/{seed}").sample(self.held_out_examples, len(self.held_out_examples))
        for example in shuffled:
            by_category[example.category].append(example)
        interleaved = chain.from_iterable(zip_longest(*by_category.values()))
        return list(islice((example for example in interleaved if example is not None), max(count, 0)))

    @override
    def location(self, example: Example) -> str | None:
        lines = zip((*self.examples, *self.held_out_examples), self._lines, strict=True)
        return next((line for one, line in lines if one == example), None)

    @override
    def find(self, prompt: str) -> Example | None:
        every = (*self.examples, *self.held_out_examples)
        normalized = normalize_text(prompt)
        return next((example for example in every if normalize_text(example.prompt) == normalized), None)


def read_examples(path: str, requires_question: bool = True) -> dict[int, Example]:
    """Read a JSON Lines file of examples, in the form of `JsonLines`.

    Args:
        path: A UTF-8 file, with or without byte order mark.
        requires_question: Whether a line must have a question with its answer. A benchmark's may have none.

    Returns:
        Examples by line number, from 1.

    Raises:
        UserError: the file cannot be read, a line is invalid, or there are no lines.
    """
    return {number: example for number, (example, _) in read_lines(path, requires_question).items()}


def read_lines(path: str, requires_question: bool = True) -> dict[int, tuple[Example, str | None]]:
    """As `read_examples`, with the field `image` of each line, as it is written.

    Args:
        path: A UTF-8 file, with or without byte order mark.
        requires_question: Whether a line must have a question with its answer.

    Returns:
        Example and image by line number, from 1.

    Raises:
        UserError: as for `read_examples`.
    """
    try:
        content = Path(path).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # also a null byte, or no such user's home
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the prompts file {path[:200]}: {reason}") from error
    # Split at line feeds only: `str.splitlines` also splits at U+2028, which JSON strings may contain.
    lines = enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    required = _REQUIRED if requires_question else _REQUIRED[:1]
    found = {number: _line(line, f"{path}:{number}", required) for number, line in lines if line.strip()}
    if not found:
        raise UserError(f"the prompts file {path} is empty; write one JSON object per line with {_quoted(required)}")
    return found


def _line(line: bytes, location: str, required: tuple[str, ...]) -> tuple[Example, str | None]:
    row = read_object(line, location, _LINE_FIELDS)
    required = required if "questions" not in row else _REQUIRED[:1]
    for name in required:
        if name not in row:
            instead = "; instead of 'question' and 'answer', a line may have 'questions'" if name != "prompt" else ""
            raise UserError(f"{location}: the field {name!r} is missing; required are {_quoted(required)}{instead}")
    if ("question" in row) != ("answer" in row):
        here, other = ("question", "answer") if "question" in row else ("answer", "question")
        raise UserError(f"{location}: there is {here!r} without {other!r}; give both, or leave both out")
    fields: dict[str, Any] = {
        "prompt": read_text(row["prompt"], "prompt", location),
        "question": read_text(row["question"], "question", location) if "question" in row else "",
        "answer": read_text(row["answer"], "answer", location) if "answer" in row else "",
        "category": read_text(row.get("category", "prompts"), "category", location),
        "objects": _items(row.get("objects", []), "objects", location),
        "exclude": _items(row.get("exclude", []), "exclude", location),
        "questions": _questions(row["questions"], location) if "questions" in row else (),
    }
    image = read_text(row["image"], "image", location) if "image" in row else None
    try:
        return Example(**fields), image
    except UserError as error:
        raise UserError(f"{location}: {error}") from error


def read_object(line: bytes, location: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    """A line of a JSON Lines file as an object of known fields.

    Args:
        line: The line, UTF-8.
        location: Of the line, for messages.
        allowed: Names of fields. GenEval's names stand for ours.

    Raises:
        UserError: it is no JSON object, or has an unknown field or one twice.

    Example:
        >>> read_object(b'{"image": "a.png"}', "questions.jsonl:1", ("image", "question"))
        {'image': 'a.png'}
    """
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=partial(_object, location))
    except UnicodeDecodeError as error:
        raise UserError(f"{location}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{location}: not valid JSON ({error}); expected one JSON object per line") from error
    return _fields(value, allowed, location)


def _object(location: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = Counter(name for name, _ in pairs)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(f"{location}: the field {twice[0]!r} stands twice; write it once")
    return dict(pairs)


def _fields(value: object, allowed: tuple[str, ...], location: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{location}: got {shorten(value)}, expected a JSON object with {_quoted(allowed)}")
    row: dict[str, Any] = {}
    for key, content in value.items():
        name = _ALIASES.get(key, key)
        # A misspelled optional field must not be ignored.
        if name not in allowed:
            raise UserError(f"{location}: unknown field {key!r}; {suggest(key, allowed)}; correct or remove it")
        if name in row:
            raise UserError(f"{location}: {key!r} and another field both mean {name!r}; keep one of them")
        row[name] = content
    return row


def _questions(value: object, location: str) -> tuple[Question, ...]:
    if not isinstance(value, list) or not value:
        got = shorten(value)
        raise UserError(
            f"{location}: 'questions' is {got}, expected a list of objects with {_quoted(_QUESTION_FIELDS)}"
        )
    return tuple(_question(entry, f"{location}: questions[{index}]") for index, entry in enumerate(value))


def _question(value: object, location: str) -> Question:
    row = _fields(value, _QUESTION_FIELDS, location)
    for name in _QUESTION_FIELDS[:2]:
        if name not in row:
            raise UserError(f"{location}: the field {name!r} is missing")
    choices, requires = row.get("choices", []), row.get("requires", [])
    if not isinstance(choices, list):
        raise UserError(f"{location}: 'choices' is {shorten(choices)}, expected a list of texts")
    if not isinstance(requires, list) or not all(type(index) is int for index in requires):
        raise UserError(
            f"{location}: 'requires' is {shorten(requires)}, expected a list of numbers of questions, from 0"
        )
    return Question(
        text=read_text(row["text"], "text", location),
        answer=read_text(row["answer"], "answer", location),
        choices=tuple(read_text(choice, f"choices[{i}]", location) for i, choice in enumerate(choices)),
        requires=tuple(requires),
    )


def _items(value: object, field: str, location: str) -> tuple[Item, ...]:
    if not isinstance(value, list):
        raise UserError(
            f"{location}: {field!r} is {shorten(value)}, expected a list of objects with {_quoted(_ITEM_FIELDS)}"
        )
    return tuple(_item(entry, index, f"{location}: {field}[{index}]") for index, entry in enumerate(value))


def _item(value: object, index: int, location: str) -> Item:
    row = _fields(value, _ITEM_FIELDS, location)
    if "name" not in row:
        raise UserError(f"{location}: the field 'name' (GenEval: 'class') is missing")
    count, color, relation = row.get("count", 1), row.get("color"), row.get("relation")
    if type(count) is not int or count < 1:
        raise UserError(f"{location}: 'count' is {shorten(count)}, expected an integer of 1 or more")
    return Item(
        name=read_text(row["name"], "name", location),
        count=count,
        color=None if color is None else read_text(color, "color", location),
        relation=None if relation is None else _relation(relation, index, location),
    )


def _relation(value: object, index: int, location: str) -> tuple[str, int]:
    match value:
        case [str(name), int(target)] if name in RELATIONS and type(target) is int and 0 <= target < index:
            return name, target
    raise UserError(
        f"{location}: 'relation' (GenEval: 'position') is {shorten(value)}, expected "
        f"[relation, index of an earlier object] with one of the relations {_quoted(RELATIONS)}"
    )


def read_text(value: object, name: str, location: str) -> str:
    """A text of a JSON Lines file.

    Args:
        value: What the file has.
        name: The field, for messages.
        location: Of the line, for messages.

    Raises:
        UserError: it is no text, is blank, or has characters that cannot be used, see `check_characters`.
    """
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{location}: {name!r} is {shorten(value)}, expected text that is not blank")
    try:
        check_characters(value, repr(name))
    except UserError as error:
        raise UserError(f"{location}: {error}") from error
    return value


def shorten(value: object) -> str:
    """A value of a JSON file in a message, 60 characters of it at most.

    Args:
        value: Plain values.
    """
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> list[int]:
    # `Random` hashes strings by SHA-512: the same numbers in every process and on every machine.
    return Random(f"jsonl/{seed}/{epoch}").sample(range(size), size)
