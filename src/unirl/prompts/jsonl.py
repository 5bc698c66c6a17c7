"""Prompts from a file, one JSON object a line."""

import json
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain, islice, zip_longest
from pathlib import Path
from random import Random
from typing import Any

from unirl.errors import UserError, nearest
from unirl.prompts.base import Prompts
from unirl.prompts.vocabulary import RELATIONS
from unirl.types import Example, Item

_REQUIRED = ("prompt", "question", "answer")
_ALIASES = {"tag": "category", "include": "objects", "class": "name", "position": "relation"}
"""GenEval's names for our fields."""
_LINE_FIELDS = (*_REQUIRED, "category", "objects", "exclude")
_ITEM_FIELDS = ("name", "count", "color", "relation")


class JsonLines(Prompts):
    """Examples from a JSON Lines file: `{"prompt": ..., "question": ..., "answer": ...}`, one a line.

    `category`, `objects` and `exclude` may follow, and GenEval's own names for them (`tag`, `include`, `class`,
    `position`) are understood. Each line comes once an epoch, in an order that depends on the seed and the epoch alone.
    All lines are checked before anything runs. Blank lines are skipped; a line that stands twice counts twice.

    Args:
        path: The training prompts, UTF-8.
        held_out_path: Prompts to measure with, in the same form. None of them may be a training prompt.

    Raises:
        UserError: A file cannot be read, has no prompts, or has a broken line; a held-out prompt is trained on.

    Source: the metadata form is GenEval's (arXiv 2310.11513).
    """

    def __init__(self, path: str, held_out_path: str | None = None) -> None:
        self.examples = list(read(path).values())
        held_out = read(held_out_path) if held_out_path is not None else {}
        trained = {_same(example.prompt) for example in self.examples}
        for number, example in held_out.items():
            if _same(example.prompt) in trained:
                raise UserError(
                    f"{held_out_path}:{number}: the prompt {example.prompt!r} is also a training prompt in {path}; "
                    "a held-out prompt must not be trained on, so remove it from one of the two files"
                )
        self.kept_back = list(held_out.values())

    def sample(self, seed: int, index: int) -> Example:
        epoch, place = divmod(index, len(self.examples))
        return self.examples[_order(len(self.examples), seed, epoch)[place]]

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        by_category = defaultdict(list)
        for example in Random(f"jsonl/held_out/{seed}").sample(self.kept_back, len(self.kept_back)):
            by_category[example.category].append(example)
        turns = chain.from_iterable(zip_longest(*by_category.values()))
        return list(islice((example for example in turns if example is not None), max(count, 0)))


def read(path: str) -> dict[int, Example]:
    """The examples of a JSON Lines file by line number, counted from 1.

    Args:
        path: A UTF-8 file, with or without byte order mark.

    Raises:
        UserError: The file cannot be read, a line is broken, or there is none.
    """
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the prompts file {path}: {error.strerror or error}") from error
    # Split at line feeds only: `str.splitlines` would also cut at U+2028, which JSON strings may hold.
    lines = enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    examples = {number: _example(line, f"{path}:{number}") for number, line in lines if line.strip()}
    if not examples:
        raise UserError(f"the prompts file {path} is empty; give one JSON object a line with {_listed(_REQUIRED)}")
    return examples


def _example(line: bytes, where: str) -> Example:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); needed is one JSON object a line") from error
    row = _fields(value, _LINE_FIELDS, where)
    for name in _REQUIRED:
        if name not in row:
            raise UserError(f"{where}: the field {name!r} is missing; needed are {_listed(_REQUIRED)}")
    return Example(
        prompt=_text(row["prompt"], "prompt", where),
        question=_text(row["question"], "question", where),
        answer=_text(row["answer"], "answer", where),
        category=_text(row.get("category", "prompts"), "category", where),
        objects=_items(row.get("objects", []), "objects", where),
        exclude=_items(row.get("exclude", []), "exclude", where),
    )


def _fields(value: object, allowed: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: got {_shown(value)}; needed is a JSON object with {_listed(allowed)}")
    row: dict[str, Any] = {}
    for key, content in value.items():
        name = _ALIASES.get(key, key)
        # Ignored, a misspelt optional field would be a silent loss.
        if name not in allowed:
            raise UserError(f"{where}: unknown field {key!r}; did you mean: {nearest(key, allowed)}? Else remove it")
        if name in row:
            raise UserError(f"{where}: {key!r} and another field both mean {name!r}; give one of them")
        row[name] = content
    return row


def _items(value: object, field: str, where: str) -> tuple[Item, ...]:
    if not isinstance(value, list):
        raise UserError(
            f"{where}: {field!r} is {_shown(value)}; needed is a list of objects with {_listed(_ITEM_FIELDS)}"
        )
    return tuple(_item(entry, index, f"{where}: {field}[{index}]") for index, entry in enumerate(value))


def _item(value: object, index: int, where: str) -> Item:
    row = _fields(value, _ITEM_FIELDS, where)
    if "name" not in row:
        raise UserError(f"{where}: the field 'name' (GenEval: 'class') is missing")
    count, color, relation = row.get("count", 1), row.get("color"), row.get("relation")
    if type(count) is not int or count < 1:
        raise UserError(f"{where}: 'count' is {_shown(count)}; needed is a whole number of 1 or more")
    return Item(
        name=_text(row["name"], "name", where),
        count=count,
        color=None if color is None else _text(color, "color", where),
        relation=None if relation is None else _relation(relation, index, where),
    )


def _relation(value: object, index: int, where: str) -> tuple[str, int]:
    match value:
        case [str(word), int(target)] if word in RELATIONS and type(target) is int and 0 <= target < index:
            return word, target
    raise UserError(
        f"{where}: 'relation' (GenEval: 'position') is {_shown(value)}; needed is "
        f"[relation, index of an earlier object], the relation one of {_listed(RELATIONS)}"
    )


def _text(value: object, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name!r} is {_shown(value)}; needed is a text that is not blank")
    return value


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)


def _same(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> list[int]:
    # A string seeds `Random` through SHA-512: the same in every process and on every machine.
    return Random(f"jsonl/{seed}/{epoch}").sample(range(size), size)
