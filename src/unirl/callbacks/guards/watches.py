"""What each guard looks at, as plain state and plain sentences; nothing here knows Lightning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

WINDOW = 10
"""Rollouts over which a reward is averaged."""


@dataclass
class InARow:
    """Something that does no harm once, and must not go on.

    Args:
        rollouts: How many in a row; 0 switches the guard off.
        row: How many there have been.
    """

    rollouts: int
    row: int = 0

    def too_many(self, again: bool) -> bool:
        """Count a rollout; true once, when it has been so in `rollouts` of them."""
        self.row = self.row + 1 if again else 0
        return self.rollouts > 0 and self.row == self.rollouts


class FlatGroups(InARow):
    """All groups without variance for some rollouts: nothing is compared, so nothing is learnt."""

    def seen(self, share: float, reward: float) -> Iterator[str]:
        """Look at a rollout: the share of groups whose samples, those kept, scored alike, and the mean reward."""
        if self.too_many(share == 1):
            hard = "harder" if reward > 0.5 else "easier"
            yield (
                f"in each of the last {self.rollouts} rollouts, every group's samples, those kept, all scored alike "
                f"(mean reward {reward:.2f}), so there was nothing to compare. Try {hard} prompts, larger groups, a "
                "higher sampling temperature, or a reward with partial credit"
            )


class Refused(InARow):
    """Nothing was accepted for some rollouts, where accepted samples are what is learnt."""

    def seen(self, share: float, reward: float) -> Iterator[str]:
        """Look at a rollout: the share of samples that were accepted and kept, and the mean reward."""
        if self.too_many(share == 0):
            yield (
                f"in each of the last {self.rollouts} rollouts, no drawing was accepted and kept (mean reward "
                f"{reward:.2f}), so what learns from accepted drawings learnt nothing. Try easier prompts or larger "
                "groups; where rewards have no full marks to give, say from what sum on a drawing is right "
                "(model.accept), or learn from whatever is better than its group (grpo)"
            )


@dataclass
class ScoringGap:
    """Sampling and scoring disagree about how likely the first drawings and answers were.

    Args:
        most: Largest difference of log-probabilities, nats, that passes; 0 switches the guard off.
        rough: The same in low precision, where rounding alone makes differences.
    """

    most: float
    rough: float = 1.0

    def seen(self, gap: float, of: str = "drawings", precise: bool = True) -> Iterator[str]:
        """Look at the largest difference, before the first update; of drawings or of answers."""
        allowed = self.most if precise else max(self.most, self.rough)
        if self.most and not gap <= allowed:
            first = "model.answering.temperature: 0 or 1, or " if of == "answers" else ""
            yield (
                f"log-probabilities of {of} from sampling and from scoring differ by {gap:.2g} nats before anything "
                f"was learnt (allowed: {allowed:g}). The ratio of GRPO is off from the start: the backbone scores "
                f"other decisions than it sampled, or under other settings. Try {first}unirl.testing's checks of the "
                "backbone"
            )


@dataclass
class NonFinite:
    """A loss or gradient that is not finite: the step was skipped."""

    skipped: int = 0

    def seen(self, where: str, step: int) -> Iterator[str]:
        """Count a skipped step."""
        self.skipped += 1
        if self.skipped & (self.skipped - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            yield (
                f"step {step} was skipped on all processes: the gradient of {where} is not finite ({self.skipped} such "
                "steps so far). Weights are as before. Try a lower learning rate, gradient clipping, or full precision"
            )


@dataclass
class Validation:
    """What validations say, compared with the first one of the run.

    Args:
        diversity: Least share of the first diversity; 0 switches it off.
        reward: How far the training reward may rise while drawing falls by `fall`; 0 switches it off.
        fall: How far drawing may fall, or a category: in accuracy, [0, 1]; 0 switches both off.
    """

    diversity: float
    reward: float
    fall: float
    first: dict[str, float] = field(default_factory=dict)
    first_reward: float | None = None
    told: list[str] = field(default_factory=list)

    def seen(self, metrics: Mapping[str, float], rewards: Sequence[float]) -> Iterator[str]:
        """Look at a validation, and at the mean rewards of the steps since the one before."""
        self.first = self.first or dict(metrics)
        if rewards and self.first_reward is None:
            self.first_reward = _mean(rewards[:WINDOW])
        found = dict(self._same(metrics))
        if rewards and self.reward:
            found |= dict(self._gamed(metrics, _mean(rewards[-WINDOW:])))
        found |= dict(self._fallen(metrics))
        news = [sentence for what, sentence in found.items() if what not in self.told]
        self.told = list(found)  # what has got better may be told of again
        yield from news

    def _same(self, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        for name in ("diversity/codes", "diversity/features"):
            now, then = metrics.get(name), self.first.get(name)
            if now is not None and then and now < self.diversity * then:
                yield (
                    name,
                    f"drawings of one prompt differ less and less: {name} fell from {then:.2f} to {now:.2f}. Training "
                    "collapses onto few pictures. Try a KL weight (grpo's beta), quality control of duplicates, a "
                    "lower learning rate, or stop here",
                )

    def _gamed(self, metrics: Mapping[str, float], reward: float) -> Iterator[tuple[str, str]]:
        now, then, start = metrics.get("drawing/overall"), self.first.get("drawing/overall"), self.first_reward
        if now is None or then is None or start is None or not self.fall:
            return
        if reward > start + self.reward and now < then - self.fall:
            yield (
                "gamed",
                f"the training reward rose from {start:.2f} to {reward:.2f}, while drawing as the judge sees it fell "
                f"from {then:.2f} to {now:.2f}: the reward is being gamed. Look at the pictures and at the critic's "
                "column, and change the reward rather than the learning rate",
            )

    def _fallen(self, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        for name, now in metrics.items():
            kind, _, category = name.partition("/")
            then = self.first.get(name)
            if kind in ("drawing", "seeing") and then is not None and self.fall and now < then - self.fall:
                yield (
                    name,
                    f"{kind} fell below its first validation: {category} from {then:.2f} to {now:.2f}. Better "
                    "elsewhere may have been paid for here. Try more such prompts, a lower learning rate, or grpo's KL "
                    "weights" + (", or a lower answer_weight" if kind == "seeing" else ""),
                )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
