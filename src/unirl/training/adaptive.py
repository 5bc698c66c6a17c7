"""Adaptive sampling of prompts: more of those whose rewards vary, since equal rewards teach nothing."""

from collections.abc import Mapping, Sequence
from math import fsum
from random import Random
from typing import Any

from torch import Tensor

from unirl.distributed.collectives import all_gather
from unirl.errors import UserError
from unirl.functional import variance_shares
from unirl.prompts import Prompts
from unirl.training.config import AdaptiveSampling, check_adaptive
from unirl.types import Example, Rollout

DELAY = 2
"""The shares of step n are computed from the rollouts of the steps up to n - DELAY.

A data fetcher may fetch the batch of step n while step n - 1 runs. If the rollout of step n - 1 counted, the draws
would depend on when a batch is fetched, and a resumed run may fetch at other times.
"""


class AdaptiveSampler:
    """Draws the training prompts of each step for all ranks by the reward variances of earlier steps.

    What is drawn in step n depends on the seed, on n, and on the rollouts of the steps up to n - 2 only. All ranks draw
    the prompts of all ranks, so that the draws do not depend on the number of processes.

    Args:
        prompts: Where examples come from.
        prompts_per_step: Prompts of a step over all ranks.
        seed: Seed of the training prompts.
        config: Settings.

    Raises:
        UserError: a setting is out of range, or the source neither names its categories nor is a finite list.

    Example:
        >>> from unirl.prompts import GenEval
        >>> sampler = AdaptiveSampler(GenEval({"counting": 1.0, "colors": 3.0}), prompts_per_step=2)
        >>> sampler.shares(step=0)
        {'counting': 0.25, 'colors': 0.75}
        >>> len(sampler.sample([0, 1]))
        2
    """

    def __init__(
        self, prompts: Prompts, prompts_per_step: int, seed: int = 0, config: AdaptiveSampling = AdaptiveSampling()
    ) -> None:
        check_adaptive(config)
        self.prompts, self.prompts_per_step, self.seed, self.config = prompts, prompts_per_step, seed, config
        self._examples = list(prompts.train_examples())
        self._own_shares = dict(prompts.category_shares())
        if not self._own_shares:
            raise UserError(
                f"data.sampler adaptive: {type(prompts).__name__} does not say which categories it has; set its "
                "`categories`, define `train_examples` where it is a finite list, or take data.sampler: uniform"
            )
        self._categories, self._prompts = _Variances(config.num_groups), _Variances(1)
        self._last_step = -1
        self._drawn: tuple[int, list[float], list[int]] | None = None

    def sample(self, indices: Sequence[int]) -> list[Example]:
        """The examples of a rank in a step.

        Args:
            indices: Their numbers, as `PromptSampler` yields them.
        """
        step = indices[0] // self.prompts_per_step
        _, drawn = self._draw(step)
        return [self._example(index, drawn[index - step * self.prompts_per_step]) for index in indices]

    def shares(self, step: int) -> dict[str, float]:
        """The share of each category in what a step draws; they sum to 1.

        Args:
            step: Number of the training batch: the current one or the next.
        """
        weights, _ = self._draw(step)
        if not self._examples:
            return dict(zip(self._own_shares, weights, strict=True))
        parts: dict[str, list[float]] = {category: [] for category in self._own_shares}
        for example, weight in zip(self._examples, weights, strict=True):
            parts[example.category].append(weight)
        return {category: fsum(part) for category, part in parts.items()}

    def observe(self, step: int, rollout: Rollout) -> None:
        """Take the reward variances of a rollout into account. Collective: call it on every rank.

        Args:
            step: Number of the training batch.
            rollout: The samples of this rank.
        """
        variances = _group_variances(all_gather(rollout.scores), rollout.group_size)
        _, drawn = self._draw(step)
        if step <= self._last_step:  # a step is repeated after an interruption, or another run begins
            self._categories.forget(step)
            self._prompts.forget(step)
        for index, variance in zip(drawn, variances, strict=True):
            if self._examples:
                self._prompts.add(self._examples[index].prompt, step, variance)
            self._categories.add(self._category(index), step, variance)
        self._last_step = step

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; the same on every rank."""
        return {
            "last_step": self._last_step,
            "categories": self._categories.entries,
            "prompts": self._prompts.entries,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue as the run that returned `state` from `state_dict`."""
        self._last_step, self._drawn = state["last_step"], None
        self._categories.entries, self._prompts.entries = dict(state["categories"]), dict(state["prompts"])

    def _draw(self, step: int) -> tuple[list[float], list[int]]:
        """The share of each category, or of each listed example, and the indices of those that the step draws."""
        if self._drawn is None or self._drawn[0] != step:
            weights = self._weights(step - DELAY)
            rng = Random(f"adaptive/{self.seed}/{step}")
            self._drawn = step, weights, rng.choices(range(len(weights)), weights, k=self.prompts_per_step)
        return self._drawn[1:]

    def _weights(self, until: int) -> list[float]:
        by_category = {category: self._categories.mean(category, until) for category in self._own_shares}
        if not self._examples:
            return variance_shares([*self._own_shares.values()], [*by_category.values()], self.config.floor)
        variances = []
        for example in self._examples:
            own = self._prompts.mean(example.prompt, until)
            variances.append(by_category[example.category] if own is None else own)
        return variance_shares([1.0] * len(variances), variances, self.config.floor)

    def _example(self, index: int, drawn: int) -> Example:
        if self._examples:
            return self._examples[drawn]
        return self.prompts.sample_category(self.seed, index, self._category(drawn))

    def _category(self, drawn: int) -> str:
        return self._examples[drawn].category if self._examples else [*self._own_shares][drawn]


class _Variances:
    """The last variances by key, each with its step. Those that a repeated or prefetched step needs are kept, too."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.entries: dict[str, list[tuple[int, float]]] = {}

    def mean(self, key: str, until: int) -> float | None:
        """Mean of the last variances up to a step; None where there are none."""
        values = [variance for step, variance in self.entries.get(key, ()) if step <= until][-self.count :]
        return fsum(values) / len(values) if values else None

    def forget(self, step: int) -> None:
        """Remove the variances of a step and of later ones."""
        self.entries = {key: [e for e in entries if e[0] < step] for key, entries in self.entries.items()}

    def add(self, key: str, step: int, variance: float) -> None:
        """Add a variance; steps never decrease."""
        entries = self.entries.get(key, [])
        old, recent = [e for e in entries if e[0] <= step - DELAY], [e for e in entries if e[0] > step - DELAY]
        self.entries[key] = [*old[-self.count :], *recent, (step, variance)]


def _group_variances(scores: Tensor, group_size: int) -> list[float]:
    """Variance of each group with Bessel's correction."""
    # In float64, equal float32 scores have a variance of exactly 0, and squares of large ones do not overflow.
    variances: list[float] = scores.detach().cpu().double().view(-1, group_size).var(1).tolist()
    return variances
