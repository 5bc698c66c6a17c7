"""What a training step logs about its samples."""

from collections.abc import Sequence

from torch import Tensor

from unirl.functional.advantages import group_std, zero_variance_groups
from unirl.functional.reductions import masked_mean
from unirl.training.config import RolloutConfig
from unirl.training.lengths import completion_metrics
from unirl.types import Rollout


def step_metrics(rollout: Rollout, config: RolloutConfig, eos_token_ids: Sequence[int]) -> dict[str, Tensor]:
    """Scalars by name: spread of the rewards, shares of groups and samples, lengths, rewards, entropies.

    Args:
        rollout: The samples.
        config: How they were sampled.
        eos_token_ids: The tokens that end an answer.
    """
    size, weights = config.group_size, rollout.sample_weights
    zero_variance = zero_variance_groups(rollout.advantage_rewards, size, weights)
    return {
        "reward_std": group_std(rollout.scores, size).mean(),
        "frac_reward_zero_std": zero_variance.float().mean(),
        "frac_accepted": (rollout.accepted & (weights > 0)).float().mean(),
        **completion_metrics(rollout, config.answer_sampling.max_tokens, eos_token_ids),
        **{f"rewards/{name}/mean": part.mean() for name, part in rollout.score_parts.items()},
        **_entropies(rollout, config.answer_sampling.temperature),
    }


def _entropies(rollout: Rollout, answer_temperature: float) -> dict[str, Tensor]:
    """Entropy of a decision of each task, nats: the mean negative log-probability of what was sampled."""
    images, answers = rollout.images.log_probs, rollout.answers.log_probs
    values = {} if images is None else {"entropy/image": -images.mean()}
    if answers is not None and answer_temperature > 0:
        values["entropy/answer"] = -masked_mean(answers, rollout.answers.mask)
    return values
