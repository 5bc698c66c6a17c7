"""GenEval's prompts: made by its rule, and read from files."""

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from unirl import Example, Item, UserError
from unirl_geneval.metadata import benchmark_examples, benchmark_metadata, find_unknown, read_metadata

TASKS = {"single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}


def test_the_prompts_are_genevals_to_the_byte(tmp_path: Path) -> None:
    content = "".join(f"{json.dumps(entry)}\n" for entry in benchmark_metadata()).encode()
    assert sha256(content).hexdigest() == "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
    (tmp_path / "evaluation_metadata.jsonl").write_bytes(content)
    assert read_metadata(str(tmp_path / "evaluation_metadata.jsonl")) == benchmark_examples()
    assert Counter(example.category for example in benchmark_examples()) == TASKS


LINE = {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}], "prompt": "a photo of a red cup"}


def line(**changes: object) -> str:
    return json.dumps(LINE | changes)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"tag": "colors", "include"', "not valid JSON"),
        ("[]", "expected a JSON object"),
        (line(), "the prompt 'a photo of a red cup' is also in line 1"),
        (line(prompt="b", include=[{"class": "sofa", "count": 1}]), "'sofa' is none of GenEval's 80; nearest: 'couch'"),
        (line(prompt="b", include=[{"class": "kup", "count": 1}]), "'kup' is none of GenEval's 80; nearest: 'cup'"),
        (line(prompt="b", exclude=[{"class": "qqq", "count": 1}]), "'qqq' is none of GenEval's 80$"),
        (line(prompt="b", include=[{"class": "cup", "color": "teal"}]), "'teal' of 'cup' is none of GenEval's ten"),
        (line(prompt="b", include=[{"class": "cup", "count": 0}]), "'count' is 0"),
        (line(prompt="b", include=[{"class": "cup", "position": ["above", 0]}]), "an earlier object"),
        (line(prompt="b", include=[{"class": "cup", "size": 2}]), "unknown field 'size'"),
        (line(prompt="b", include=[]), "it has no objects"),
        (line(prompt=" "), "'prompt' is"),
    ],
)
def test_a_broken_line_is_named(second: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text(f"{line()}\n{second}\n")
    with pytest.raises(UserError, match=message) as error:
        read_metadata(str(path))
    assert str(error.value).startswith(f"{path}:2: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_absent_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the prompts file"):
        read_metadata(str(tmp_path / "absent.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"is empty; write one JSON object per line with 'prompt'$"):
        read_metadata(str(tmp_path / "empty.jsonl"))


def test_an_excluded_object_has_no_place() -> None:
    problem = find_unknown(Example("a", objects=(Item("cup"),), exclude=(Item("dog", 1, None, ("above", 1)),)))
    assert problem is not None
    assert "relation" in problem
    assert find_unknown(Example("a", objects=(Item("cup"), Item("dog", relation=("above", 0))))) is None
