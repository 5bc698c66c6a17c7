"""Each number has a range, and what is outside is told in one line, before anything loads."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from unirl.backbones.janus import Janus
from unirl.backbones.lora import LoRA
from unirl.backbones.showo import Showo
from unirl.callbacks.quality import QualityControl
from unirl.doctor.checks import MOST, check_devices, check_features, check_shares, check_sizes
from unirl.errors import UserError
from unirl.rewards.keyword import Keyword
from unirl.testing import TinyBackbone
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts

NAN, INF, HUGE = math.nan, math.inf, 10**30


def model(**options: Any) -> SelfImprovement:
    parts = {"backbone": TinyBackbone(), "update": SFT(end_to_end=False), "rewards": [Keyword()]}
    return SelfImprovement(**{**parts, **options})


def data(**options: Any) -> PromptsDataModule:
    return PromptsDataModule(ShapesPrompts(), **options)


def sampling(**options: Any) -> SelfImprovement:
    return model(sampling=ImageSampling(**options))


def val_image_sampling(**options: Any) -> SelfImprovement:
    return model(val_image_sampling=ImageSampling(**options))


def answering(**options: Any) -> SelfImprovement:
    return model(answering=AnswerSampling(**options))


def keyword(**options: Any) -> SelfImprovement:
    return model(rewards=[Keyword(**options)])


def lora(**options: Any) -> SelfImprovement:
    return model(lora=LoRA(**options))


WRONG: list[tuple[Callable[..., object], str, list[Any]]] = [
    (QualityControl, "duplicates", [-0.1, 1.5, NAN]),
    (QualityControl, "saturation", [-0.1, 1.5, NAN]),
    (QualityControl, "confidence", [-0.1, 1.5, NAN]),
    (model, "group_size", [0, -1, 10**9, HUGE, NAN, None]),
    (model, "num_iterations", [0, -1, HUGE]),
    (model, "num_understanding", [-1, 10**9]),
    (model, "diversity_prompts", [-1, HUGE]),
    (model, "lr", [0.0, -1e-5, 1e-300, 1e9, NAN, INF, None]),
    (model, "weight_decay", [-0.01, NAN, INF]),
    (model, "warmup_steps", [-1, HUGE]),
    (model, "accept", [NAN, INF, -INF]),
    (sampling, "steps", [0, -1, 10**9, None]),
    (sampling, "guidance", [NAN, INF, -5.0, 1e30]),
    (sampling, "temperature", [-1.0, 1e-300, NAN, INF, None]),
    (sampling, "confidence_noise", [-1.0, NAN, INF]),
    (val_image_sampling, "temperature", [-0.5]),
    (answering, "max_tokens", [0, -1, 10**9, None]),
    (answering, "temperature", [-1.0, 1e-300, NAN, None]),
    (keyword, "weight", [NAN, INF, -INF]),
    (lora, "rank", [0, -1, 10**9]),
    (lora, "alpha", [0, HUGE]),
    (data, "prompts_per_step", [0, -1, 10**9, HUGE, NAN]),
    (data, "steps_per_epoch", [0, HUGE]),
    (data, "held_out", [-1, 10**9]),
    (data, "val_batch_size", [0, -1, HUGE]),
    (GRPO, "image_weight", [-1.0, NAN, INF]),
    (GRPO, "answer_weight", [-1.0, NAN]),
    (GRPO, "epsilon", [-1e-4, NAN]),
    (GRPO, "negative", [-1.0, INF]),
    *((GRPO, name, [-0.1, NAN]) for name in ("clip_low", "clip_high")),
    (GRPO, "beta", [-0.1, NAN, INF]),
    (GRPO, "answer_beta", [-0.1, NAN]),
    *((rule, "views", [0, 10**9]) for rule in (GRPO, SFT)),
    (GRPO, "scored_steps", [0, -1, HUGE]),
    (SFT, "image_weight", [-1.0, NAN, None]),
    (SFT, "answer_weight", [-1.0, INF]),
    (SFT, "temperature", [0.0, -1.0, NAN, 1e-300]),
    (SFT, "straight_through_steps", [0, HUGE]),
    *((rule, "loss_guidance", [NAN, -INF]) for rule in (GRPO, SFT)),
]
EACH = [(make, name, value) for make, name, values in WRONG for value in values]


@pytest.mark.parametrize(("make", "name", "value"), EACH, ids=[f"{m.__name__} {n} {v}" for m, n, v in EACH])
def test_a_number_out_of_its_range_is_told_with_what_is_allowed(
    make: Callable[..., object], name: str, value: float | None
) -> None:
    with pytest.raises(UserError) as caught:
        make(**{name: value})
    assert f"{name} {value}; it must be from " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("betas", [(-0.1, 0.9), (0.9, 1.0), (0.9, NAN)])
def test_betas_are_below_1(betas: tuple[float, float]) -> None:
    with pytest.raises(UserError, match=r"model: betas\[[01]\] .*; it must be from 0 to 0.999999"):
        model(betas=betas)


def test_the_option_is_named_where_two_have_the_same_settings() -> None:
    with pytest.raises(UserError, match=r"^model\.val_image_sampling: steps 0; "):
        val_image_sampling(steps=0)
    with pytest.raises(UserError, match=r"^model\.sampling: steps 0; "):
        sampling(steps=0)
    assert model(val_image_sampling=None).val_image_sampling == ImageSampling()


def test_a_model_says_itself_whether_it_draws_the_likeliest_code() -> None:
    greedy = ImageSampling(temperature=0.0)
    for option in ("sampling", "val_image_sampling"):
        with pytest.raises(UserError, match=rf"^model\.{option}: temperature 0\.0; it must be from"):
            model(**{"backbone": Showo("nowhere"), option: greedy})
    assert model(backbone=Janus("nowhere"), val_image_sampling=greedy).val_image_sampling == greedy
    assert answering(temperature=0.0).answering.temperature == 0


@pytest.mark.parametrize("rule", [GRPO, SFT])
def test_a_rule_that_learns_nothing_is_refused(rule: type) -> None:
    with pytest.raises(UserError, match="both 0; one of them must be above 0"):
        rule(image_weight=0.0, answer_weight=0.0)


def test_something_must_be_trained() -> None:
    with pytest.raises(UserError, match="targets is empty"):
        lora(targets=())
    with pytest.raises(UserError, match=r"model\.trained: the list is empty"):
        model(trainable_modules=[])


@pytest.mark.parametrize("name", ["nope", "", "unirl_shapes:nowhere", "unirl_shapes:checkpoints"])
def test_features_that_only_validation_would_miss_are_missed_before(name: str) -> None:
    (found,) = check_features(model(diversity_model=name))
    assert found.level == "error"
    assert not check_features(model(diversity_model=name, diversity_prompts=0))


@pytest.mark.parametrize("name", [None, "resnet18", "hf-hub:a/b", "unirl_shapes:checkpoints/features"])
def test_features_that_can_be_there_are_not_loaded_to_see(name: str | None) -> None:
    assert check_features(model(diversity_model=name)) == []


def test_more_drawings_than_any_device_holds_are_an_error_of_sizes() -> None:
    some = data(prompts_per_step=MOST // 10)
    assert check_sizes(model(group_size=10), some, 1)[0].level == "ok"
    (found,) = check_sizes(model(group_size=11), some, 1)
    assert found.level == "error"
    assert check_sizes(model(group_size=11), some, 2)[0].level == "ok"


@pytest.mark.parametrize(
    ("train", "val", "wrong"),
    [(1.0, 1.0, 0), (0.1, 0.5, 0), (0, 0, 0), (1e-3, 1.0, 1), (1, 0.4, 1), (1e-300, 1e-300, 2)],
)
def test_a_share_of_an_epoch_is_a_batch_at_least(train: float, val: float, wrong: int) -> None:
    some = data(steps_per_epoch=10, num_val_prompts=20, val_batch_size=10)
    trainer = SimpleNamespace(num_devices=1, num_nodes=1, limit_train_batches=train, limit_val_batches=val)
    assert [one.level for one in check_shares(some, trainer)] == ["error"] * wrong
    some.examples.clear()  # nothing to validate on
    assert not check_shares(some, SimpleNamespace(**{**vars(trainer), "limit_train_batches": 1.0}))


@pytest.mark.parametrize(("precision", "level"), [("32-true", "ok"), ("bf16-true", "warning"), ("16-true", "warning")])
def test_a_precision_that_a_cpu_is_slow_in_is_warned_of(precision: str, level: str) -> None:
    strategy = SimpleNamespace(root_device=SimpleNamespace(type="cpu"))
    trainer: Any = SimpleNamespace(strategy=strategy, num_devices=1, num_nodes=1, precision=precision)
    assert check_devices(trainer)[-1].level == level
