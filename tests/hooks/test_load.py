"""`unirl.load`: instances of registered plugins, and its errors."""

import pytest

import unirl
from unirl import UserError
from unirl.rewards.keyword import Keyword

PLUGIN = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("fixed", "standins:FixedReward")
    register("missing", "standins:Missing")

@hookimpl
def unirl_register_backbones(register):
    register("tiny", "standins:TinyBackbone")

@hookimpl
def unirl_register_prompts(register):
    register("fixed", "standins:FixedPrompts")
"""


@pytest.fixture
def plugin(install) -> None:
    install("demoplug", PLUGIN)


def test_registered_names_are_made_with_their_options(plugin, standins) -> None:
    reward = unirl.load("reward", "fixed", words=2, weight=0.5)
    assert (type(reward), reward.words, reward.weight) == (standins.FixedReward, 2, 0.5)
    assert type(unirl.load("prompts", "fixed")) is standins.FixedPrompts
    assert unirl.load("backbone", "tiny", checkpoint="folder").checkpoint == "folder"  # read, not built


def test_class_paths_need_no_registration(plugin) -> None:
    for path in ("unirl.rewards.keyword.Keyword", "unirl.rewards.keyword:Keyword"):
        assert type(unirl.load("reward", path)) is Keyword


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("rewards", "fixed", {}, r"no plugin kind 'rewards'; nearest: reward"),
        ("reward", "fixd", {}, r"unknown reward 'fixd'; nearest: fixed; or give a full class path"),
        ("reward", "tiny", {}, r"unknown reward 'tiny'"),
        ("reward", "missing", {}, r"the reward 'missing' of demoplug 1.0 \(standins:Missing\) cannot be used: "),
        ("reward", "no_such_module.Reward", {}, r"reward 'no_such_module.Reward' cannot be imported: No module named"),
        ("reward", "unirl.rewards.Kyword", {}, r"reward 'unirl.rewards.Kyword' cannot be imported: .*'Kyword'"),
        ("reward", ".Keyword", {}, r"reward '.Keyword' cannot be imported: "),
        ("reward", "standins.FixedPrompts", {}, r"'standins.FixedPrompts': expected a class derived from Reward, got "),
        ("reward", "standins.install", {}, r"'standins.install': expected a class derived from Reward, got <function"),
        ("reward", "fixed", {"wrds": 1}, r"reward 'fixed': .*'wrds'; see `unirl plugins show reward fixed`"),
        ("reward", "fixed", {"words": -1}, r"words must be 0 or more, got -1"),
    ],
)
def test_errors_are_one_line(plugin, kind: str, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        unirl.load(kind, name, **options)
    assert "\n" not in str(caught.value)
