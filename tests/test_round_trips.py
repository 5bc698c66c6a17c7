"""What is accepted comes back whole: configs, lines of prompts, and text that goes through a tokenizer."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unirl.backbones.janus import Janus
from unirl.backbones.plain_text import plain_text
from unirl.backbones.showo import Showo
from unirl.cli.parser import PluginParser
from unirl.cli.validation import NULL_WORDS
from unirl.errors import UserError
from unirl.prompts.jsonl import read_examples
from unirl.types import Example, Item, Question
from unirl_emu3.tiny import tokenizer as emu3_tokenizer

FAST = settings(max_examples=30, deadline=None, derandomize=True)
ODD = (
    *(
        "1e-5",
        "1.5e5",
        "1E5",
        "._",
        ".5",
        "1_000",
        "0x10",
        "0o7",
        "007",
        "1:30",
        "yes",
        "No",
        "on",
        "null",
        "~",
        "true",
    ),
    *("2024-01-01", ".inf", ".nan", "-", "=", "<<", "*a", "&a", "!a", "#x", "a: b", "[1", "{a}", "${HOME}", "%", "@x"),
    *(
        "'",
        '"',
        "\\",
        "\\ud83d",
        "\\\\u0041",
        "\t",
        " lead",
        "trail ",
        "two\nlines",
        "\r\n",
        "\x85",
        "\u2028",
        "\ufeff",
    ),
    *(
        "\x7f",
        "\x07",
        "😀",
        "e\u0301",
        "é",
        "🏳️‍🌈",
        "עברית",
        "日本語",
        "one\u00a0two",
        "--name",
        "x.y",
        "class_path",
        "",
    ),
)
"""Texts that YAML, JSON or a shell may take for something else."""
texts = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@dataclasses.dataclass(frozen=True)
class Inner:
    """Options below options."""

    steps: int = 1
    noise: float = 0.0
    label: str = ""


class Owner:
    """A class with options of all kinds."""

    def __init__(
        self,
        name: str = "",
        maybe: str | None = None,
        lr: float = 0.1,
        count: int | None = 1,
        flag: bool = False,
        words: list[str] = [],  # noqa: B006 - read only
        numbers: dict[str, float] = {},  # noqa: B006
        inner: Inner = Inner(),
    ) -> None:
        pass


floats = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**70), 2**70)
inner = st.fixed_dictionaries({"steps": integers, "noise": floats, "label": texts})
keys = texts.filter(lambda key: "." not in key)
options = st.fixed_dictionaries(
    {
        **{"name": texts, "maybe": st.none() | texts, "lr": floats, "count": st.none() | integers},
        **{"flag": st.booleans(), "words": st.lists(texts, max_size=4), "inner": inner},
        "numbers": st.dictionaries(keys, floats, max_size=3),
    }
)
NOTATIONS = {
    "yaml": lambda value: yaml.safe_dump(value, sort_keys=False),
    "unicode": lambda value: yaml.safe_dump(value, allow_unicode=True, default_flow_style=False),
    "flow": lambda value: "\ufeff" + yaml.safe_dump(value, default_flow_style=True, width=20),
    "json": json.dumps,
    "tabs": lambda value: json.dumps(value, ensure_ascii=False, indent="\t").replace("\n", "\r\n"),
}


def outcome(make: Callable[[], Any]) -> tuple[Any, str]:
    """What is made, or why it is refused, in one line."""
    try:
        return make(), ""
    except UserError as error:
        (line,) = str(error).splitlines() or [""]
        return None, line or "empty"


@pytest.fixture(scope="module")
def parser() -> PluginParser:
    made = PluginParser(exit_on_error=False)
    made.add_class_arguments(Owner, "owner")
    made.add_class_arguments(Owner, "other")
    return made


@given(value=options, notation=st.sampled_from(sorted(NOTATIONS)))
@FAST
def test_a_config_comes_back_whole(parser: PluginParser, value: dict[str, Any], notation: str) -> None:
    """In every notation, twice by an anchor, and from the config that a run writes."""
    content = NOTATIONS[notation]({"owner": value, "other": value})
    if str(value["maybe"]).strip().lower() in NULL_WORDS[1:]:
        value = {**value, "maybe": None}
    config, problem = outcome(lambda: parser.parse_string(content))
    if problem:
        assert re.search("means null in YAML|control character", problem)
        return
    written = parser.parse_string(parser.dump(config, skip_none=False))  # as Lightning writes it
    for parsed in (config, written):
        for name in ("owner", "other"):
            assert parsed[name].as_dict() == value, content


spoken = texts.filter(lambda text: text.strip() and not outcome(lambda: Example(text))[1])  # what an example accepts
questions = st.builds(Question, spoken, spoken, st.just(()) | st.lists(spoken, max_size=3).map(tuple), st.just(()))
items = st.builds(Item, spoken, st.integers(1, 9), st.none() | spoken)
examples = st.builds(
    Example, spoken, spoken, spoken, spoken.filter(lambda name: name != "overall"), st.tuples(items), st.tuples(items)
)


@given(
    example=examples,
    asked=st.lists(questions, max_size=3),
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
@FAST
def test_a_line_of_prompts_comes_back_whole(
    tmp_path_factory: pytest.TempPathFactory, example: Example, asked: list[Question], ascii_only: bool, end: str
) -> None:
    """What is not accepted is refused in one sentence."""
    row = {name: value for name, value in dataclasses.asdict(example).items() if name != "questions"}
    if asked:
        row = {"prompt": example.prompt, "category": example.category, "questions": [*map(dataclasses.asdict, asked)]}
    path = tmp_path_factory.getbasetemp() / "prompts.jsonl"
    path.write_bytes(f"\ufeff{json.dumps(row, ensure_ascii=ascii_only)}{end}".encode())
    read_back, problem = outcome(lambda: [*read_examples(str(path)).values()])
    if not problem:
        questions = tuple(asked)
        assert read_back == [
            Example(example.prompt, category=example.category, questions=questions) if asked else example
        ]


@given(content=st.binary(max_size=60) | texts.map(lambda text: f'{{"prompt": "{text}"}}'.encode("utf-16")))
@FAST
def test_any_bytes_are_prompts_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(content)
    assert outcome(lambda: read_examples(str(path)))[1]


@pytest.fixture(scope="module")
def backbones(shapes_checkpoint: Path, janus_checkpoint: Path) -> list[Any]:
    return [Showo.from_pretrained(str(shapes_checkpoint)), Janus.from_pretrained(str(janus_checkpoint))]


@st.composite
def mixed_texts(draw: st.DrawFn, names: list[str]) -> str:
    """Pieces of control tokens, however they meet, between other texts."""
    parts = []
    for name, start, stop in draw(st.lists(st.tuples(st.sampled_from(names), st.integers(0, 4), st.integers(1, 30)))):
        parts += [name[start:stop], draw(texts)]
    return "".join(parts)


@given(st.data())
@FAST
def test_text_stays_text(backbones: list[Any], data: st.DataObject) -> None:
    """No text becomes a control token; words of a vocabulary, and any text of a tokenizer of bytes, come back."""
    of_bytes = emu3_tokenizer(codes=4)
    for tokenizer in (*(backbone.tokenizer for backbone in backbones), of_bytes):
        special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        control = {*special, *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
        text = plain_text(data.draw(mixed_texts(sorted(tokenizer.all_special_tokens))), tokenizer)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert not control & set(ids), text
        assert tokenizer is not of_bytes or tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    for backbone in backbones:
        words = sorted(word for word in backbone.tokenizer.get_vocab() if word.isascii() and word.isalpha())
        answer = " ".join(data.draw(st.lists(st.sampled_from(words), min_size=1, max_size=4)))
        (row,) = backbone.answer_ids([answer])
        assert backbone.decode_text(row) == answer
