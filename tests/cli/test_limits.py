"""What the parser refuses by itself: null, null bytes, and numbers of Lightning's and of the callbacks."""

import math

import pytest
from jsonargparse import Namespace

from unirl.cli.parser import LIMITS, check_null, check_numbers, check_text, never_null
from unirl.errors import UserError
from unirl.hooks.arguments import PluginArgument, resolve
from unirl.training.module import SelfImprovement

NAN, INF, HUGE = math.nan, math.inf, 10**30


@pytest.mark.parametrize("option", LIMITS)
def test_the_parser_looks_at_numbers_of_lightning_and_of_callbacks(option: str) -> None:
    low, high = LIMITS[option]
    owner, _, name = option.rpartition(".")
    for value in (low - 1, high * 2 + 1, NAN, INF, HUGE):
        with pytest.raises(
            UserError, match=f"^{owner or 'config'}: {name} {value}; it must be from ".replace("+", ".")
        ):
            check_numbers(Namespace({"subcommand": "fit", f"fit.{option}": value}))
    for fine in (low, high, None, "auto", True, [1, 2]):
        check_numbers(Namespace({"subcommand": "fit", f"fit.{option}": fine}))


def test_null_is_refused_where_a_value_must_be() -> None:
    filled = never_null(SelfImprovement)
    assert {"lr", "backbone", "rewards", "sampling"} <= filled
    assert not {"judge", "accept", "val_image_sampling", "lora", "self"} & filled
    check_null({"model": {"judge": None, "lr": 1}}, {f"model.{name}" for name in filled})
    with pytest.raises(UserError, match=r"^model\.lr: null says nothing here"):
        check_null({"model": {"judge": None, "lr": None}}, {f"model.{name}" for name in filled})


def test_a_run_has_a_folder() -> None:
    check_numbers(Namespace({"subcommand": "fit", "fit.trainer.default_root_dir": "runs"}))
    with pytest.raises(UserError, match=r"^trainer\.default_root_dir: null is no folder"):
        check_numbers(Namespace({"subcommand": "fit", "fit.trainer.default_root_dir": None}))


@pytest.mark.parametrize("value", ["a\0b", {"a": ["\0"]}, {"\0": 1}])
def test_a_null_byte_is_refused_at_any_depth(value: object) -> None:
    check_text({"a": ["b", 1, None]})
    with pytest.raises(UserError, match="a null byte in "):
        check_text(value)


@pytest.mark.parametrize("value", [None, 5, ["showo"]])
def test_what_cannot_be_a_name_or_options_of_a_plugin_is_said_so(value: object) -> None:
    place = PluginArgument("backbone", many=False)
    with pytest.raises(UserError, match=r"^class_path: expected the name of a backbone, or its full class path, got "):
        resolve({"class_path": value}, place)
    with pytest.raises(UserError, match=r"^init_args of a backbone: expected options by name, got "):
        resolve({"init_args": value}, place)
