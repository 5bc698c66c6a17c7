"""Each number has a range; a value outside is an error of one line, before anything is loaded."""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unirl.backbones.janus import Janus
from unirl.backbones.lora import LoRA
from unirl.backbones.showo import Showo
from unirl.callbacks import QualityControl
from unirl.doctor.environment import check_devices
from unirl.doctor.settings import MAX_IMAGES, check_diversity_model, check_limits, check_sizes
from unirl.errors import UserError
from unirl.rewards.keyword import Keyword
from unirl.testing import TinyBackbone
from unirl.training import AdaptiveSampling, EvaluationConfig, PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates import GRPO, SFT, ImageScoring, KLPenalty, PolicyLoss
from unirl_shapes.prompts import ShapesPrompts

NAN, INF, HUGE = math.nan, math.inf, 10**30


def model(**options: Any) -> SelfImprovement:
    parts = {"backbone": TinyBackbone(), "update": SFT(), "rewards": [Keyword()]}
    return SelfImprovement(**{**parts, **options})


def data(**options: Any) -> PromptsDataModule:
    return PromptsDataModule(ShapesPrompts(), **options)


def adaptive(**options: Any) -> PromptsDataModule:
    return data(sampler="adaptive", adaptive=AdaptiveSampling(**options))


def rollout(**options: Any) -> SelfImprovement:
    return model(rollout=RolloutConfig(**options))


def evaluation(**options: Any) -> SelfImprovement:
    return model(evaluation=EvaluationConfig(**options))


def image_sampling(**options: Any) -> SelfImprovement:
    return rollout(image_sampling=ImageSampling(**options))


def val_image_sampling(**options: Any) -> SelfImprovement:
    return evaluation(image_sampling=ImageSampling(**options))


def answer_sampling(**options: Any) -> SelfImprovement:
    return rollout(answer_sampling=AnswerSampling(**options))


def optimizer(**options: Any) -> SelfImprovement:
    return model(optimizer=lambda p: torch.optim.SGD(p, **options))


def keyword(**options: Any) -> SelfImprovement:
    return model(rewards=[Keyword(**options)])


def lora(**options: Any) -> SelfImprovement:
    return model(lora=LoRA(**options))


def grpo_loss(**options: Any) -> GRPO:
    return GRPO(loss=PolicyLoss(**options))


def grpo_kl(**options: Any) -> GRPO:
    return GRPO(kl=KLPenalty(**options))


def grpo_scoring(**options: Any) -> GRPO:
    return GRPO(scoring=ImageScoring(**options))


OUT_OF_RANGE: list[tuple[Callable[..., object], str, list[Any]]] = [
    (QualityControl, "duplicate_weight", [-0.1, 1.5, NAN]),
    (QualityControl, "max_saturation", [-0.1, 1.5, NAN]),
    (QualityControl, "min_confidence", [-0.1, 1.5, NAN]),
    (rollout, "group_size", [0, -1, 10**9, HUGE, NAN, None]),
    (rollout, "num_iterations", [0, -1, HUGE]),
    (rollout, "accept_threshold", [NAN, INF, -INF]),
    (evaluation, "num_understanding", [-1, 10**9]),
    (evaluation, "num_diversity_prompts", [-1, HUGE]),
    (image_sampling, "steps", [0, -1, 10**9, None]),
    (image_sampling, "guidance", [NAN, INF, -5.0, 1e30]),
    (image_sampling, "temperature", [-1.0, 1e-300, NAN, INF, None]),
    (image_sampling, "confidence_noise", [-1.0, NAN, INF]),
    (val_image_sampling, "temperature", [-0.5]),
    (answer_sampling, "max_tokens", [0, -1, 10**9, None]),
    (answer_sampling, "temperature", [-1.0, 1e-300, NAN, None]),
    (optimizer, "lr", [0.0, 1e-300, 1e9]),
    (keyword, "weight", [NAN, INF, -INF]),
    (lora, "rank", [0, -1, 10**9]),
    (lora, "alpha", [0, HUGE]),
    (data, "prompts_per_step", [0, -1, 10**9, HUGE, NAN]),
    (data, "steps_per_epoch", [0, HUGE]),
    (data, "num_val_prompts", [-1, 10**9]),
    (data, "val_batch_size", [0, -1, HUGE]),
    (adaptive, "floor", [0.0, 1.5, NAN, None]),
    (adaptive, "num_groups", [0, -1, HUGE]),
    (GRPO, "image_weight", [-1.0, NAN, INF]),
    (GRPO, "answer_weight", [-1.0, NAN]),
    (grpo_loss, "std_epsilon", [-1e-4, NAN]),
    (grpo_loss, "negative_scale", [-1.0, INF]),
    (grpo_loss, "epsilon", [-0.1, NAN]),
    (grpo_loss, "epsilon_high", [-0.1, NAN]),
    (grpo_kl, "beta", [-0.1, NAN, INF]),
    (grpo_kl, "answer_beta", [-0.1, NAN]),
    (grpo_scoring, "scored_steps", [0, -1, HUGE]),
    *((rule, "num_masks", [0, 10**9]) for rule in (grpo_scoring, SFT)),
    *((rule, "loss_guidance", [NAN, -INF]) for rule in (grpo_scoring, SFT)),
    (SFT, "image_weight", [-1.0, NAN, None]),
    (SFT, "answer_weight", [-1.0, INF]),
    (SFT, "temperature", [0.0, -1.0, NAN, 1e-300]),
    (SFT, "straight_through_steps", [0, HUGE]),
]


def test_a_number_out_of_range_is_an_error_with_the_range() -> None:
    failures = list(unchecked())
    assert not failures, "\n".join(failures)


def unchecked() -> Iterator[str]:
    """Values that are accepted, or that give another message."""
    for make, name, values in OUT_OF_RANGE:
        for value in values:
            try:
                make(**{name: value})
            except UserError as error:
                if f"{name} {value}; it must be from " not in str(error) or "\n" in str(error):
                    yield f"{make.__name__} {name} {value}: {error}"
            else:
                yield f"{make.__name__} {name} {value} is accepted"


def test_optimizer_settings_that_are_no_numbers_are_errors() -> None:
    for options in ({"lr": NAN}, {"lr": INF}, {"lr": 0.1, "weight_decay": NAN}, {"lr": -1.0}):
        with pytest.raises(UserError, match=r"^model\.optimizer: "):
            optimizer(**options)
    with pytest.raises(UserError, match=r"^model\.optimizer: .*[Bb]eta"):
        model(optimizer=lambda p: torch.optim.AdamW(p, betas=(0.9, 1.0)))


def test_the_option_is_named_where_two_have_the_same_settings() -> None:
    with pytest.raises(UserError, match=r"^model\.evaluation\.image_sampling: steps 0; "):
        val_image_sampling(steps=0)
    with pytest.raises(UserError, match=r"^model\.rollout\.image_sampling: steps 0; "):
        image_sampling(steps=0)


def test_temperature_0_is_accepted_where_the_backbone_supports_it() -> None:
    greedy = ImageSampling(temperature=0.0)
    configs = {"rollout": RolloutConfig(image_sampling=greedy), "evaluation": EvaluationConfig(image_sampling=greedy)}
    for option, config in configs.items():
        with pytest.raises(UserError, match=rf"^model\.{option}\.image_sampling: temperature 0\.0; it must be from"):
            model(backbone=Showo("nowhere"), **{option: config})
        assert getattr(model(backbone=Janus("nowhere"), **{option: config}), option) == config
    assert answer_sampling(temperature=0.0).rollout.answer_sampling.temperature == 0


def test_an_update_rule_without_any_weight_is_an_error() -> None:
    for rule in (GRPO, SFT):
        with pytest.raises(UserError, match="both 0; one of them must be above 0"):
            rule(image_weight=0.0, answer_weight=0.0)


def test_something_must_be_trained() -> None:
    with pytest.raises(UserError, match="targets: the list is empty"):
        lora(targets=())
    with pytest.raises(UserError, match=r"model\.trainable_modules: the list is empty"):
        model(trainable_modules=[])


def test_a_missing_diversity_model_is_found_before_validation() -> None:
    for name in ("nope", "", "unirl_shapes:nowhere", "unirl_shapes:checkpoints"):
        (finding,) = check_diversity_model(evaluation(diversity_model=name))
        assert finding.level == "error", name
        assert not check_diversity_model(evaluation(diversity_model=name, num_diversity_prompts=0))


def test_a_diversity_model_that_may_exist_is_not_loaded() -> None:
    for name in (None, "resnet18", "hf-hub:a/b", "unirl_shapes:checkpoints/features"):
        assert check_diversity_model(evaluation(diversity_model=name)) == [], name


def test_too_many_images_for_a_device_are_an_error() -> None:
    prompts = data(prompts_per_step=MAX_IMAGES // 10)
    levels = {
        (size, devices): check_sizes(rollout(group_size=size), prompts, devices)[0].level
        for size, devices in ((10, 1), (11, 1), (11, 2))
    }
    assert levels == {(10, 1): "ok", (11, 1): "error", (11, 2): "ok"}


@pytest.mark.parametrize(
    ("train", "val", "errors"),
    [(1.0, 1.0, 0), (0.1, 0.5, 0), (0, 0, 0), (1e-3, 1.0, 1), (1, 0.4, 1), (1e-300, 1e-300, 2)],
)
def test_a_fraction_of_an_epoch_is_at_least_one_batch(train: float, val: float, errors: int) -> None:
    prompts = data(steps_per_epoch=10, num_val_prompts=20, val_batch_size=10)
    trainer = SimpleNamespace(num_devices=1, num_nodes=1, limit_train_batches=train, limit_val_batches=val)
    assert [one.level for one in check_limits(prompts, trainer)] == ["error"] * errors
    prompts.val_examples.clear()  # no validation
    assert not check_limits(prompts, SimpleNamespace(**{**vars(trainer), "limit_train_batches": 1.0}))


@pytest.mark.parametrize(
    ("precision", "level"),
    [
        ("32-true", "ok"),
        ("64-true", "ok"),
        ("bf16-mixed", "warning"),  # slow on a CPU
        ("16-mixed", "warning"),
        ("bf16-true", "error"),  # learns nothing
        ("16-true", "error"),
        ("transformer-engine", "error"),
    ],
)
def test_precision(precision: str, level: str) -> None:
    strategy = SimpleNamespace(root_device=SimpleNamespace(type="cpu"))
    trainer: Any = SimpleNamespace(strategy=strategy, num_devices=1, num_nodes=1, precision=precision)
    assert check_devices(trainer)[-1].level == level
