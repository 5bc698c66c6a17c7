"""Settings of a run as frozen dataclasses, checked before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unirl.backbones import Backbone
from unirl.backbones.lora import LoRA
from unirl.errors import UserError, check_plugin, check_range, check_temperature
from unirl.judges import Judge
from unirl.rewards import Reward
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates import UpdateRule

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy


def check_plugins(backbone: object, update: object, rewards: object, judge: object) -> None:
    """Refuse classes, names and single rewards in place of plugins: in Python, nothing else checks them.

    Args:
        backbone: As given to `SelfImprovement`, like all others.
        update: The update rule.
        rewards: The rewards.
        judge: The judge, or None.

    Raises:
        UserError: for the first one that is something else.
    """
    check_plugin("model.backbone", backbone, Backbone)
    check_plugin("model.update", update, UpdateRule)
    check_plugin("model.rewards", rewards, Reward, is_list=True)
    if judge is not None:
        check_plugin("model.judge", judge, Judge)


@dataclass(frozen=True)
class RolloutConfig:
    """How training samples are generated and scored.

    Args:
        group_size: Images generated for each prompt.
        num_iterations: Training steps on each rollout (mu in GRPO). The prompts of all steps but the first are skipped.
            With `accumulate_grad_batches`, a step has a rollout for each of its batches.
        image_sampling: How images are generated.
        answer_sampling: How questions are answered in training; evaluation answers greedily.
        accept_threshold: Least weighted sum of rewards with which a sample counts as correct. By default the rewards
            decide: every reward that gives a verdict must accept the sample (docs/method.md).
        reward_timeout: Seconds that a reward may take for a rollout before the run stops, naming it. "auto" is half of
            the time after which the other processes give up waiting (with Lightning's default of 30 minutes: 15), and
            no limit in a single process. None sets no limit.
        loss_batch_size: Most images of a device that are scored and backpropagated at once: less memory, the same loss.
            None takes all images of a step.

    Example:
        >>> RolloutConfig(group_size=8).image_sampling.steps
        16
    """

    group_size: int = 4
    num_iterations: int = 1
    image_sampling: ImageSampling = ImageSampling()
    answer_sampling: AnswerSampling = AnswerSampling()
    accept_threshold: float | None = None
    reward_timeout: float | Literal["auto"] | None = "auto"
    loss_batch_size: int | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured in validation.

    Args:
        image_sampling: How images are generated in evaluation. Defaults to the rollout's `image_sampling`; use the base
            model's best setting for a fair comparison.
        num_understanding: Given images that the model is asked about.
        num_diversity_prompts: Held-out prompts for each of which four images are generated, to measure their diversity.
            0 switches it off.
        diversity_model: A timm model in whose feature space diversity is measured, too: a name, a folder, or
            `package:folder`.

    Example:
        >>> EvaluationConfig(num_understanding=0).num_diversity_prompts
        12
    """

    image_sampling: ImageSampling | None = None
    num_understanding: int = 240
    num_diversity_prompts: int = 12
    diversity_model: str | None = None


@dataclass(frozen=True)
class AdaptiveSampling:
    """How `data.sampler: adaptive` draws prompts.

    A category is drawn in proportion to its own share in the source times the reward variance of its last groups. Of a
    finite list of prompts, each prompt is drawn in proportion to the reward variance of its own last group, or that of
    its category before it has one.

    Args:
        floor: Part of the prompts, above 0 and up to 1, that is drawn as the source has them: no category falls below
            `floor` times its own share, and 1 is uniform sampling.
        num_groups: Last groups of a category whose variances are averaged.

    Source: CGPO (arXiv 2605.17807) for the reward variance of a group as a measure of what is learned from it.

    Example:
        >>> AdaptiveSampling(floor=0.5).num_groups
        16
    """

    floor: float = 0.25
    num_groups: int = 16


def check_rollout(config: RolloutConfig, backbone: Backbone, rewards: Sequence[Reward]) -> None:
    """Validate rollout settings against the backbone and the rewards.

    Args:
        config: The settings.
        backbone: Need not be built; decides whether temperature 0 is allowed.
        rewards: The rewards of the run.

    Raises:
        UserError: a number is out of range, or no reward has a weight.
    """
    check_range(1, 10_000, "model.rollout", group_size=config.group_size, num_iterations=config.num_iterations)
    check_range(
        1, 10**9, "model.rollout", loss_batch_size=1 if config.loss_batch_size is None else config.loss_batch_size
    )
    check_image_sampling("model.rollout.image_sampling", backbone, config.image_sampling)
    check_range(1, 10_000, "model.rollout.answer_sampling", max_tokens=config.answer_sampling.max_tokens)
    check_temperature("model.rollout.answer_sampling", config.answer_sampling.temperature)
    threshold = 0.0 if config.accept_threshold is None else config.accept_threshold
    check_range(-1e9, 1e9, "model.rollout", accept_threshold=threshold)
    if config.reward_timeout is not None and config.reward_timeout != "auto":
        check_range(1e-3, 1e9, "model.rollout", reward_timeout=config.reward_timeout)
    for reward in rewards:
        check_range(-1e6, 1e6, f"model.rewards: {reward.name}", weight=reward.weight)
    if not any(reward.weight for reward in rewards):
        problem = "every weight is 0" if rewards else "the list is empty"
        raise UserError(f"model.rewards: {problem}, so no sample can be trained on; name a reward with a weight")


def missing_verdicts(
    update: UpdateRule, rewards: Sequence[Reward], accept_threshold: float | None
) -> tuple[str, str] | None:
    """Whether an update rule learns from accepted samples while no reward says which samples are accepted.

    Args:
        update: The update rule.
        rewards: The rewards of the run.
        accept_threshold: Least weighted sum of an accepted sample, if it is set.

    Returns:
        The problem and what to do, or None.
    """
    uses_verdicts = update.learns_from_accepted or update.candidate_sampling is not None
    positive = [reward for reward in rewards if reward.weight > 0]
    if not uses_verdicts or accept_threshold is not None or any(reward.gives_verdict for reward in positive):
        return None
    rule, names = type(update).__name__.lower(), ", ".join(reward.name for reward in positive)
    reason = (
        f"no reward gives a verdict ({names}), so only a sample with a score of 1 from each counts as accepted"
        if positive
        else "no reward has a positive weight, so no sample is accepted"
    )
    return (
        f"{rule} learns from what the rewards accept, and {reason}: that part of its loss may stay 0",
        "set accept_threshold of a reward, or model.rollout.accept_threshold (of their weighted sum); or train images "
        "on relative rewards (grpo, with answer_weight: 0)",
    )


def reward_timeout(config: RolloutConfig, strategy: "Strategy | None" = None) -> float | None:
    """The time limit of a reward.

    Args:
        config: Rollout settings.
        strategy: The trainer's strategy; None without a trainer.

    Returns:
        Seconds; None for no limit.

    Example:
        >>> reward_timeout(RolloutConfig()), reward_timeout(RolloutConfig(reward_timeout=60.0))
        (None, 60.0)
    """
    if config.reward_timeout != "auto":
        return config.reward_timeout
    if strategy is None:
        return None
    from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout  # noqa: PLC0415 - takes 3 s
    from lightning.pytorch.strategies import ParallelStrategy  # noqa: PLC0415

    if not isinstance(strategy, ParallelStrategy) or strategy.world_size == 1:
        return None
    waiting = getattr(strategy, "_timeout", None) or default_pg_timeout
    return waiting.total_seconds() / 2


def loss_batch_size(config: RolloutConfig, update: UpdateRule) -> int | None:
    """Most samples that the update rule scores at once: `config.loss_batch_size`, as whole groups where it needs them.

    Args:
        config: Its `loss_batch_size` is None for all samples of a step.
        update: The update rule of the run.

    Raises:
        UserError: the update rule cannot compute its loss in parts.
    """
    size = config.loss_batch_size
    if size is None or update.loss_unit == "sample":
        return size
    if update.loss_unit is None:
        name = type(update).__name__
        raise UserError(
            f"model.rollout.loss_batch_size {size}: {name} computes its loss of all images at once (its loss_unit is "
            "None); leave it out, or split the step by trainer.accumulate_grad_batches"
        )
    return max(1, size // config.group_size) * config.group_size


def check_adaptive(config: AdaptiveSampling, group_size: int | None = None) -> None:
    """Validate the settings of adaptive sampling.

    Args:
        config: The settings.
        group_size: Samples of each prompt in training. None where it is not known yet.

    Raises:
        UserError: a number is out of range, or a group has a single sample, whose reward has no variance.

    Example:
        >>> check_adaptive(AdaptiveSampling(floor=0.5), group_size=4)
    """
    check_range(0.001, 1, "data.adaptive", floor=config.floor)
    check_range(1, 10_000, "data.adaptive", num_groups=config.num_groups)
    if group_size == 1:
        raise UserError(
            "data.sampler adaptive: the reward of a single image has no variance, and model.rollout.group_size is 1; "
            "take 2 or more, or data.sampler: uniform"
        )


def check_evaluation(config: EvaluationConfig, backbone: Backbone) -> None:
    """Validate evaluation settings; arguments as for `check_rollout`.

    Raises:
        UserError: a number is out of range.
    """
    counts = {"num_understanding": config.num_understanding, "num_diversity_prompts": config.num_diversity_prompts}
    check_range(0, 100_000, "model.evaluation", **counts)
    if config.image_sampling is not None:
        check_image_sampling("model.evaluation.image_sampling", backbone, config.image_sampling)


def check_image_sampling(owner: str, backbone: Backbone, sampling: ImageSampling) -> None:
    """Validate image sampling settings.

    Args:
        owner: The option that holds them, for the message.
        backbone: Need not be built; decides whether temperature 0 is allowed.
        sampling: The settings.

    Raises:
        UserError: a number is out of range.
    """
    check_range(1, 10_000, owner, steps=sampling.steps)
    check_range(-1, 1000, owner, guidance=sampling.guidance)
    check_range(0, 1e30, owner, confidence_noise=sampling.confidence_noise)
    check_temperature(owner, sampling.temperature, greedy=backbone.supports_greedy_images)


def check_precision(precision: str) -> None:
    """Refuse to train weights in 16 bit.

    Args:
        precision: The trainer's, such as "bf16-mixed".

    Raises:
        UserError: weights would be in 16 bit.

    Example:
        >>> check_precision("bf16-mixed")
    """
    if not precision.startswith(("32", "64")) and not precision.endswith("mixed"):
        raise UserError(
            f"trainer.precision {precision}: weights in 16 bit do not learn, because rounding drops most updates of "
            "AdamW (bfloat16 at a learning rate of 1e-5: no weight above 0.004 moves); set bf16-mixed, which computes "
            "in 16 bit from float32 weights, which are shards under fsdp2"
        )


def check_trainable(trainable_modules: Sequence[str] | None, lora: LoRA | None) -> None:
    """Validate which parameters are trained.

    Args:
        trainable_modules: Parts of parameter names; None trains all.
        lora: Adapters; None trains the weights themselves.

    Raises:
        UserError: a number is out of range, or a list is empty.
    """
    if trainable_modules is not None and not trainable_modules:
        raise UserError(
            'model.trainable_modules: the list is empty; name modules to train, such as "self_attn", or null for all'
        )
    if lora is None:
        return
    check_range(1, 65_536, "model.lora", rank=lora.rank)
    check_range(1, 1_000_000, "model.lora", alpha=lora.alpha)
    if not lora.targets:
        raise UserError('model.lora.targets: the list is empty; name layers such as "q_proj", or set model.lora: null')
