"""What the parser itself refuses: null, null bytes, keys that stand twice, numbers of the trainer and of callbacks."""

import math
from collections.abc import Iterator

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import Namespace

from unirl.cli.train import CALLBACKS, Run
from unirl.cli.validation import LIMITS, check_keys, check_null, check_numbers, check_text, required_values
from unirl.errors import UserError
from unirl.hooks.arguments import PluginArgument, resolve
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement

NAN, INF, HUGE = math.nan, math.inf, 10**30


def test_numbers_of_the_trainer_and_of_callbacks_have_limits() -> None:
    for option, (low, high) in LIMITS.items():
        owner, _, name = option.rpartition(".")
        for value in (low - 1, high * 2 + 1, NAN, INF, HUGE):
            with pytest.raises(UserError) as caught:
                check_numbers(Namespace({"subcommand": "fit", f"fit.{option}": value}))
            assert str(caught.value).startswith(f"{owner or 'config'}: {name} {value}; it must be from ")
        for valid in (low, high, None, "auto", True, [1, 2]):
            check_numbers(Namespace({"subcommand": "fit", f"fit.{option}": valid}))


def test_limits_are_of_options_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    parsers = []

    def parse(run: Run, *_: object) -> None:
        parsers.append(run._parser("fit"))
        raise SystemExit

    monkeypatch.setattr(Run, "parse_arguments", parse)
    with pytest.raises(SystemExit):
        Run(SelfImprovement, PromptsDataModule, ["fit"])
    assert sorted(LIMITS.keys() - set(parsers[0]._options())) == []
    assert {name.partition(".")[0] for name in LIMITS} <= {"seed_everything", "trainer", *CALLBACKS}


def test_null_is_an_error_for_arguments_that_need_a_value() -> None:
    required = required_values(SelfImprovement)
    assert {"backbone", "update", "rewards", "rollout", "optimizer"} <= required
    assert not {"judge", "lr_scheduler", "trainable_modules", "lora", "seed", "self"} & required
    names = {f"model.{name}" for name in required}
    check_null({"model": {"judge": None, "rollout": 1}}, names)
    with pytest.raises(UserError, match=r"^model\.rollout: expected a value, got null"):
        check_null({"model": {"judge": None, "rollout": None}}, names)


def test_an_annotated_self_is_no_argument() -> None:
    class Annotated:
        def __init__(self: object, size: int = 1, name: str | None = None) -> None:
            pass

    assert required_values(Annotated) == {"size"}


def test_a_run_needs_a_folder() -> None:
    check_numbers(Namespace({"subcommand": "fit", "fit.trainer.default_root_dir": "runs"}))
    with pytest.raises(UserError, match=r"^trainer\.default_root_dir: expected a folder, got null"):
        check_numbers(Namespace({"subcommand": "fit", "fit.trainer.default_root_dir": None}))


def test_a_null_byte_is_an_error_at_any_depth() -> None:
    check_text({"a": ["b", 1, None]})
    for value in ("a\0b", {"a": ["\0"]}, {"\0": 1}):
        with pytest.raises(UserError, match="contains a null byte"):
            check_text(value)


def test_class_path_and_init_args_of_another_type_are_an_error() -> None:
    argument = PluginArgument("backbone")
    for value in (None, 5, ["showo"]):
        with pytest.raises(
            UserError, match=r"^class_path: expected the name of a backbone, or its full class path, got "
        ):
            resolve({"class_path": value}, argument)
        with pytest.raises(UserError, match=r"^init_args of a backbone: expected options by name, got "):
            resolve({"init_args": value}, argument)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trainer: {a: 1}\nmodel: {}\ntrainer: {b: 2}\n", "line 3: trainer stands in line 1, too"),
        ('{"model": {"lr": 1e-3, "lr": 1e-5}}', "line 1: model.lr stands in line 1, too"),
        ("model.lr: 1\nmodel:\n  lr: 2\n", "line 3: model.lr stands in line 1, too"),
        ("callbacks:\n- a: 1\n  b: 2\n  a: 3\n", r"line 4: callbacks\[0\].a stands in line 2, too"),
    ],
)
def test_a_key_that_stands_twice_is_refused(content: str, message: str) -> None:
    """The loader would drop the first value without a word."""
    with pytest.raises(UserError, match=message):
        check_keys(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=12,
    )
)
@settings(max_examples=50, deadline=None)
def test_a_config_without_such_keys_passes(value: object) -> None:
    content = yaml.safe_dump({"a": value, "b": [value, value]})  # with anchors and aliases
    if not any("." in key for key in _keys_of(value)):
        check_keys(content)


def _keys_of(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys_of(part)
