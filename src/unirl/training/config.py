"""What `SelfImprovement` may be set to, looked at before anything loads."""

from collections.abc import Sequence

from unirl.backbones import Backbone
from unirl.backbones.lora import LoRA
from unirl.errors import UserError, temperature_within, within
from unirl.rewards import Reward
from unirl.types import AnswerSampling, ImageSampling


def check_drawing(owner: str, backbone: Backbone, sampling: ImageSampling | None) -> None:
    """Refuse what no model can draw with.

    Args:
        owner: The option it stands under.
        backbone: Not built; it says whether it can draw without chance.
        sampling: None is fine.

    Raises:
        UserError: a number is out of range.
    """
    if sampling is None:
        return
    within(1, 10_000, owner, steps=sampling.steps)
    within(-1, 1000, owner, guidance=sampling.guidance)
    within(0, 1e30, owner, confidence_noise=sampling.confidence_noise)
    temperature_within(owner, sampling.temperature, greedy=backbone.draws_greedily)


def check_answering(owner: str, sampling: AnswerSampling) -> None:
    """Refuse what no model can answer with; arguments and errors as for `check_drawing`."""
    within(1, 10_000, owner, max_tokens=sampling.max_tokens)
    temperature_within(owner, sampling.temperature)


def check_optimizer(lr: float, betas: tuple[float, float], weight_decay: float, warmup_steps: int) -> None:
    """Refuse what AdamW cannot learn with; arguments as of `SelfImprovement`.

    Raises:
        UserError: a number is out of range.
    """
    within(1e-12, 10, "model", lr=lr)
    for i, beta in enumerate(betas):
        within(0, 0.999999, "model", **{f"betas[{i}]": beta})
    within(0, 100, "model", weight_decay=weight_decay)
    within(0, 10**9, "model", warmup_steps=warmup_steps)


def check_scoring(rewards: Sequence[Reward], accept: float | None) -> None:
    """Refuse rewards that say nothing, or not a number; arguments as of `SelfImprovement`.

    Raises:
        UserError: no reward has a weight, or a number is out of range.
    """
    for reward in rewards:
        within(-1e6, 1e6, f"model.rewards: {reward.name}", weight=reward.weight)
    if not any(reward.weight for reward in rewards):
        what = "every weight in rewards is 0" if rewards else "rewards is empty"
        raise UserError(f"{what}: nothing would say which drawings are right; name one with a weight")
    within(-1e9, 1e9, "model", accept=0 if accept is None else accept)


def check_trained(trained: Sequence[str] | None, lora: LoRA | None) -> None:
    """Refuse adapters without a size or a place, and a model of which nothing is trained; arguments as of
    `SelfImprovement`.

    Raises:
        UserError: a number is out of range, or nothing is named.
    """
    if trained is not None and not trained:
        raise UserError('model.trained: the list is empty; name parts to train, such as "self_attn", or null for all')
    if lora is None:
        return
    within(1, 65_536, "model.lora", rank=lora.rank)
    within(1, 1_000_000, "model.lora", alpha=lora.alpha)
    if not lora.targets:
        raise UserError('model.lora: targets is empty; name the layers to adapt, such as "q_proj", or set lora: null')
