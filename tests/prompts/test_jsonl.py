import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirl import Example, Question, UserError
from unirl.prompts import JsonLines
from unirl.types import Item

LINE = {"prompt": "a photo of a cup", "question": "What is it?", "answer": "cup"}

CUP = {"text": "Is there a cup?", "answer": "yes"}


def write(path: Path, *rows: object) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def numbered(count: int, **more: object) -> list[dict[str, object]]:
    return [{**LINE, "prompt": f"prompt {number}", **more} for number in range(count)]


def test_required_fields_suffice(tmp_path: Path) -> None:
    example = JsonLines(write(tmp_path / "a.jsonl", LINE)).sample(0, 0)
    assert (example.prompt, example.question, example.answer) == tuple(LINE.values())
    assert (example.category, example.objects, example.exclude) == ("prompts", (), ())


def test_genevals_names_of_fields_are_accepted(tmp_path: Path) -> None:
    geneval = {
        **LINE,
        "tag": "position",
        "include": [{"class": "cup", "count": 2}, {"class": "dog", "color": "red", "position": ["left of", 0]}],
        "exclude": [{"class": "cup", "count": 3}],
    }
    own = {
        **LINE,
        "category": "position",
        "objects": [{"name": "cup", "count": 2}, {"name": "dog", "color": "red", "relation": ["left of", 0]}],
        "exclude": [{"name": "cup", "count": 3}],
    }
    first, second = (JsonLines(write(tmp_path / "a.jsonl", row)).sample(0, 0) for row in (geneval, own))
    assert first == second
    assert first.category == "position"
    assert first.objects == (Item("cup", 2), Item("dog", color="red", relation=("left of", 0)))
    assert first.exclude == (Item("cup", 3),)


def test_any_prompt_of_the_files_is_found(tmp_path: Path) -> None:
    held_out = [{**LINE, "prompt": f"held out {number}"} for number in range(1200)]
    source = JsonLines(write(tmp_path / "a.jsonl", *numbered(3)), write(tmp_path / "b.jsonl", *held_out))
    found = [source.find(prompt) for prompt in ("Prompt  2", "held out 1199", "prompt 3")]
    assert [example and example.prompt for example in found] == ["prompt 2", "held out 1199", None]


def test_several_questions(tmp_path: Path) -> None:
    color = {"text": "What color is it?", "answer": "red", "choices": ["red", "blue"], "requires": [0]}
    row = {"prompt": "a red cup", "questions": [CUP, color], "category": "colors"}
    example = JsonLines(write(tmp_path / "a.jsonl", row)).sample(0, 0)
    questions = Question("Is there a cup?", "yes"), Question("What color is it?", "red", ("red", "blue"), (0,))
    assert example == Example("a red cup", category="colors", questions=questions)
    same = {**row, "question": CUP["text"], "answer": CUP["answer"]}
    assert JsonLines(write(tmp_path / "a.jsonl", same)).sample(0, 0) == example


@given(st.integers(1, 12), st.integers(0, 2**40), st.integers(0, 5))
def test_each_line_is_used_once_in_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, epoch: int
) -> None:
    prompts = JsonLines(write(tmp_path_factory.mktemp("lines") / "a.jsonl", *numbered(n)))
    sampled = [prompts.sample(seed, index) for index in range(epoch * n, (epoch + 1) * n)]
    assert sorted(example.prompt for example in sampled) == sorted(example.prompt for example in prompts.examples)
    assert prompts.sample(seed, epoch * n) == sampled[0]


def test_seed_and_epoch_change_the_order(tmp_path: Path) -> None:
    prompts = JsonLines(write(tmp_path / "a.jsonl", *numbered(30)))
    orders = {
        tuple(prompts.sample(seed, epoch * 30 + i).prompt for i in range(30)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_the_order_is_the_same_on_every_machine(tmp_path: Path) -> None:
    prompts = JsonLines(write(tmp_path / "a.jsonl", *numbered(6)))
    assert [prompts.sample(7, index).prompt[-1] for index in range(6)] == list("512034")


def test_blank_lines_byte_order_mark_and_carriage_returns_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(LINE).encode() + b"\r\n\r\n  \n" + json.dumps(LINE).encode())
    assert len(JsonLines(str(path)).examples) == 2


def test_other_line_separators_stay_in_the_text(tmp_path: Path) -> None:
    row = {**LINE, "prompt": "one\u2028two\x85three"}
    path = write(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False))
    assert JsonLines(path).sample(0, 0).prompt == row["prompt"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1, 2]", r"got \[1, 2\]"),
        ("null", "got null"),
        (
            '{"prompt": "p", "question": "q", "answer": "a", "prompt": "b"}',
            "field 'prompt' stands twice; write it once",
        ),
        ('{"prompt": "p", "questions": [{"text": "q", "answer": "a", "text": "r"}]}', "field 'text' stands twice"),
        ({**LINE, "category": "overall"}, "category 'overall' is the name of the mean over all categories"),
        ({"prompt": "p", "question": "q"}, "'answer' is missing"),
        ({**LINE, "answer": 3}, "'answer' is 3"),
        ({**LINE, "prompt": "  "}, "'prompt' is"),
        ({**LINE, "catgory": "x"}, "unknown field 'catgory'; nearest: category"),
        ({**LINE, "prompt": "a \ud83d cup"}, r"'prompt' 'a \\ud83d cup' has the lone surrogate U\+D83D at position 3"),
        ({**LINE, "answer": "a\0"}, r"'answer' 'a\\x00' has the control character U\+0000 at position 2; remove it"),
        ({**LINE, "category": "\x1b[31m"}, "'category' .* has the control character U\\+001B at position 1"),
        ({**LINE, "objects": [{"name": "\udc00"}]}, r"objects\[0\]: 'name' .* has the lone surrogate"),
        ({"prompt": "p", "questions": [{**CUP, "choices": ["yes", "\x7f"]}]}, r"'choices\[1\]' .* U\+007F"),
        ({"prompt": "p", "questions": [{**CUP, "choices": ["yes", " yes"]}]}, "has a choice twice"),
        ({**LINE, "category": None}, "'category' is null"),
        ({**LINE, "tag": "x", "category": "x"}, "both mean 'category'"),
        ({**LINE, "objects": {"name": "cup"}}, "expected a list"),
        ({**LINE, "objects": ["cup"]}, r'objects\[0\]: got "cup"'),
        ({**LINE, "objects": [{"count": 1}]}, "'name'"),
        ({**LINE, "objects": [{"name": "cup", "count": 0}]}, "'count' is 0"),
        ({**LINE, "objects": [{"name": "cup", "count": True}]}, "'count' is true"),
        ({**LINE, "objects": [{"name": "cup", "color": 1}]}, "'color' is 1"),
        ({**LINE, "objects": [{"name": "cup", "colour": "red"}]}, "nearest: color"),
        ({**LINE, "objects": [{"name": "cup", "relation": ["above", 0]}]}, "index of an earlier object"),
        ({**LINE, "objects": [{"name": "cup"}, {"name": "dog", "relation": ["over", 0]}]}, "'left of', 'right of'"),
        ({**LINE, "objects": [{"name": "cup"}, {"name": "dog", "relation": "above"}]}, 'is "above"'),
        ({**LINE, "exclude": 1}, "'exclude' is 1"),
        ({"prompt": "p"}, "instead of 'question' and 'answer', a line may have 'questions'"),
        ({"questions": [CUP]}, "'prompt' is missing; required are 'prompt'$"),
        ({"prompt": "p", "questions": []}, r"'questions' is \[\], expected a list"),
        ({"prompt": "p", "questions": CUP}, "expected a list of objects with 'text', 'answer', 'choices', 'requires'"),
        ({"prompt": "p", "questions": ["cup"]}, r'questions\[0\]: got "cup"'),
        ({"prompt": "p", "questions": [CUP, {"text": "q"}]}, r"questions\[1\]: the field 'answer' is missing"),
        ({"prompt": "p", "questions": [{**CUP, "requirs": [0]}]}, "nearest: requires"),
        ({"prompt": "p", "questions": [{**CUP, "text": ""}]}, "'text' is"),
        ({"prompt": "p", "questions": [{**CUP, "choices": "yes"}]}, "'choices' is \"yes\", expected a list of texts"),
        ({"prompt": "p", "questions": [{**CUP, "choices": ["yes", 0]}]}, r"'choices\[1\]' is 0"),
        ({"prompt": "p", "questions": [{**CUP, "choices": ["no", "maybe"]}]}, "'yes', which is not among its choices"),
        ({"prompt": "p", "questions": [{**CUP, "requires": 1}]}, "'requires' is 1, expected a list of numbers"),
        ({"prompt": "p", "questions": [{**CUP, "requires": [True]}]}, r"'requires' is \[true\]"),
        ({"prompt": "p", "questions": [{**CUP, "requires": [0]}]}, r"questions\[0\] requires itself"),
        ({"prompt": "p", "questions": [CUP, {**CUP, "requires": [2]}]}, "requires question 2, and there are 2"),
        ({"prompt": "p", "questions": [{**CUP, "requires": [1]}, {**CUP, "requires": [0]}]}, "in a circle"),
        ({**LINE, "questions": [CUP]}, "'question' and 'answer' are 'What is it[?]' and 'cup', and questions"),
    ],
)
def test_an_invalid_line_is_reported_with_file_and_number(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", LINE, "", line)
    with pytest.raises(UserError, match=message) as caught:
        JsonLines(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert len(str(caught.value)) < 400 + len(path)


def test_a_line_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(LINE).encode() + b'\n{"prompt": "caf\xe9"}')
    with pytest.raises(UserError, match=r"a\.jsonl:2: not UTF-8"):
        JsonLines(str(path))


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="is empty"):
        JsonLines(str(path))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.jsonl: No such file"):
        JsonLines(str(tmp_path / "missing.jsonl"))
    with pytest.raises(UserError, match="directory"):
        JsonLines(str(tmp_path))
    path = write(tmp_path / "a.jsonl", LINE)
    with pytest.raises(UserError, match=r"missing\.jsonl: No such file"):
        JsonLines(path, str(tmp_path / "missing.jsonl"))


def test_held_out_prompts_are_balanced_and_from_their_file(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", LINE)
    held = write(tmp_path / "held.jsonl", *numbered(9, category="many"), {**LINE, "prompt": "x", "category": "one"})
    prompts = JsonLines(train, held)
    assert Counter(example.category for example in prompts.held_out(4)) == {"many": 3, "one": 1}
    assert len(prompts.held_out(100)) == 10
    assert prompts.held_out(5, seed=1) == prompts.held_out(5, seed=1)
    assert prompts.held_out(0) == JsonLines(train).held_out(3) == []


def test_a_held_out_prompt_that_is_a_training_prompt_is_reported(tmp_path: Path) -> None:
    """In whatever spelling that reads the same."""
    trained = [LINE, LINE, {**LINE, "prompt": "１２ cafe\u0301s"}, {**LINE, "prompt": "a dog’s t‑shirt"}]
    train = write(tmp_path / "train.jsonl", *trained)
    for prompt, line in (("A  photo of a CUP", 2), ("12\u00a0CAFÉS", 3), ("a dog's \u200et-shirt", 4)):
        held = write(tmp_path / "held.jsonl", *numbered(2), {**LINE, "prompt": prompt})
        with pytest.raises(UserError, match=rf"held\.jsonl:3: .*also a training prompt, in .*train\.jsonl:{line};"):
            JsonLines(train, held)
        found = JsonLines(train).find(prompt)
        assert found is not None
        assert found.prompt == trained[line - 1]["prompt"]
