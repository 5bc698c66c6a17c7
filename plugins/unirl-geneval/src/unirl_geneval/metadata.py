"""GenEval's prompts: made again by its public rule, or read from a metadata file."""

import json
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np

from unirl import Example, Item, UserError
from unirl.judges import COLORS
from unirl.prompts import read_examples
from unirl_geneval.vocabulary import CLASSES, OTHER_NAMES

SEED = 43
PER_TASK = 100
NUMBERS = {2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
Metadata = dict[str, Any]


def benchmark_metadata() -> list[Metadata]:
    """The 553 entries of GenEval's `evaluation_metadata.jsonl`: `json.dumps` of each is its line there.

    Source: Ghosh et al. 2023 (arXiv 2310.11513), the rule of `prompts/create_prompts.py` of its public code.

    Example:
        >>> entries = benchmark_metadata()
        >>> len(entries), json.dumps(entries[0])
        (553, '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}')
    """
    different = {json.dumps(entry): entry for entry in sampled_entries(np.random.default_rng(SEED))}
    return list(different.values())


def sampled_entries(rng: np.random.Generator) -> Iterator[Metadata]:
    """Entries by GenEval's rule, some of them several times. The order of calls of the generator decides.

    Args:
        rng: Its generator has the seed 43.
    """
    for name in rng.choice(CLASSES, len(CLASSES), replace=False).tolist():
        yield {"tag": "single_object", "include": [_entry(name)], "prompt": f"a photo of {_one(name)}"}
    for _ in range(PER_TASK):
        a, b = rng.choice(CLASSES, 2, replace=False).tolist()
        yield {
            "tag": "two_object",
            "include": [_entry(a), _entry(b)],
            "prompt": f"a photo of {_one(a)} and {_one(b)}",
        }
    for _ in range(PER_TASK):
        name = str(rng.choice(CLASSES))
        count = int(rng.integers(2, 4, endpoint=True))
        yield {
            "tag": "counting",
            "include": [_entry(name, count)],
            "exclude": [_entry(name, count + 1)],
            "prompt": f"a photo of {NUMBERS[count]} {_many(name)}",
        }
    for _ in range(PER_TASK):
        name = CLASSES[int(rng.choice(len(CLASSES) - 1)) + 1]  # never a person
        color = str(rng.choice(COLORS))
        yield {
            "tag": "colors",
            "include": [_entry(name, color=color)],
            "prompt": f"a photo of {_one(f'{color} {name}')}",
        }
    for _ in range(PER_TASK):
        a, b = rng.choice(CLASSES, 2, replace=False).tolist()
        relation = str(rng.choice(RELATIONS))
        yield {
            "tag": "position",
            "include": [_entry(b), _entry(a, position=[relation, 0])],
            "prompt": f"a photo of {_one(a)} {relation} {_one(b)}",
        }
    for _ in range(PER_TASK):
        a, b = (CLASSES[index + 1] for index in rng.choice(len(CLASSES) - 1, 2, replace=False).tolist())
        a_color, b_color = rng.choice(COLORS, 2, replace=False).tolist()
        yield {
            "tag": "color_attr",
            "include": [_entry(a, color=a_color), _entry(b, color=b_color)],
            "prompt": f"a photo of {_one(f'{a_color} {a}')} and {_one(f'{b_color} {b}')}",
        }


def _entry(name: str, count: int = 1, **more: Any) -> Metadata:
    return {"class": name, "count": count, **more}


def _one(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _many(name: str) -> str:
    return f"{name}es" if name.endswith("s") else f"{name}s"


@cache
def benchmark_examples() -> tuple[Example, ...]:
    """GenEval's 553 prompts with what their images must show.

    Example:
        >>> benchmark_examples()[-1].category
        'color_attr'
    """
    return tuple(example(entry) for entry in benchmark_metadata())


def example(entry: Metadata) -> Example:
    """An entry as an example, without a question.

    Args:
        entry: Of GenEval's metadata.
    """
    objects, exclude = (_items(entry.get(name, ())) for name in ("include", "exclude"))
    return Example(entry["prompt"], category=entry["tag"], objects=objects, exclude=exclude)


def _items(entries: Sequence[Metadata]) -> tuple[Item, ...]:
    return tuple(
        Item(one["class"], one["count"], one.get("color"), tuple(one["position"]) if "position" in one else None)
        for one in entries
    )


def read_metadata(path: str) -> tuple[Example, ...]:
    """The examples of a file in the form of GenEval's `evaluation_metadata.jsonl`.

    Args:
        path: One JSON object a line, with `tag`, `prompt`, `include` and, of some, `exclude`.

    Raises:
        UserError: the file cannot be read, a line is no such object or names a class or color that GenEval does not
            know, or a prompt stands twice.
    """
    examples = read_examples(path, requires_question=False)
    lines: dict[str, int] = {}
    for number, example in examples.items():
        if (problem := find_unknown(example)) is not None:
            raise UserError(f"{path}:{number}: {problem}")
        if example.prompt in lines:
            raise UserError(
                f"{path}:{number}: the prompt {example.prompt!r} is also in line {lines[example.prompt]}; results are "
                "by prompt, so keep one of them"
            )
        lines[example.prompt] = number
    return tuple(examples.values())


def find_unknown(example: Example) -> str | None:
    """What of an example GenEval cannot judge, if anything.

    Args:
        example: What an image must show.

    Example:
        >>> find_unknown(Example("a sofa", objects=(Item("sofa"),)))
        "the class 'sofa' is none of GenEval's 80; nearest: 'couch'"
    """
    if not example.objects and not example.exclude:
        return "it has no objects (GenEval: 'include'), so every image would be correct"
    for index, item in enumerate((*example.objects, *example.exclude)):
        if item.name not in CLASSES:
            return f"the class {item.name!r} is none of GenEval's 80{_nearest(item.name)}"
        if item.color not in (None, *COLORS):
            return f"the color {item.color!r} of {item.name!r} is none of GenEval's ten: {', '.join(COLORS)}"
        if item.relation is not None and not (
            item.relation[0] in RELATIONS and 0 <= item.relation[1] < min(index, len(example.objects))
        ):
            allowed = f"one of {', '.join(RELATIONS)}, and the index of an earlier object"
            return f"the relation {item.relation!r} of {item.name!r} is none; expected {allowed}"
    return None


def _nearest(name: str) -> str:
    close = [one for one in CLASSES if name in OTHER_NAMES.get(one, ())] or get_close_matches(name, CLASSES, 3)
    return f"; nearest: {', '.join(map(repr, close))}" if close else ""
