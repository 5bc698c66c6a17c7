"""What each guard looks at, as plain state and plain sentences; nothing here knows Lightning."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from unirl.callbacks.results import partial_check
from unirl.hooks import hookimpl
from unirl.types import Rollout

WINDOW = 10
"""Rollouts over which a reward is averaged."""


@dataclass
class StreakCounter:
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


class ZeroVariance(StreakCounter):
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


class NothingAccepted(StreakCounter):
    """Nothing was accepted for some rollouts, where accepted samples are what is learnt."""

    def seen(self, share: float, reward: float) -> Iterator[str]:
        """Look at a rollout: the share of samples that were accepted and kept, and the mean reward."""
        if self.too_many(share == 0):
            yield (
                f"in each of the last {self.rollouts} rollouts, no drawing was accepted and kept (mean reward "
                f"{reward:.2f}), so what learns from accepted drawings learnt nothing. Try easier prompts or larger "
                "groups; where rewards have no full marks to give, say from what sum on a drawing is right "
                "(model.rollout.accept_threshold), or learn from whatever is better than its group (grpo)"
            )


@dataclass
class LogprobGap:
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
            first = "model.rollout.answer_sampling.temperature: 0 or 1, or " if of == "answers" else ""
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
        reward: How far the training reward may rise while drawing falls by `max_accuracy_drop`; 0 switches it off.
        fall: How far drawing may fall, or a category: in accuracy, [0, 1]; 0 switches both off.
    """

    diversity: float
    reward: float
    max_accuracy_drop: float
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
        now, then, start = metrics.get("generation/overall"), self.first.get("generation/overall"), self.first_reward
        if now is None or then is None or start is None or not self.max_accuracy_drop:
            return
        if reward > start + self.reward and now < then - self.max_accuracy_drop:
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
            if (
                kind in ("generation", "understanding")
                and then is not None
                and self.max_accuracy_drop
                and now < then - self.max_accuracy_drop
            ):
                yield (
                    name,
                    f"{kind} fell below its first validation: {category} from {then:.2f} to {now:.2f}. Better "
                    "elsewhere may have been paid for here. Try more such prompts, a lower learning rate, or grpo's KL "
                    "weights" + (", or a lower answer_weight" if kind == "understanding" else ""),
                )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class Guards(Callback):
    """Says in a plain sentence what goes wrong silently, and skips steps whose gradient is not finite.

    Each sentence is printed once per event, counted in the logs (`guards/spoken`), and kept in `said`.

    Args:
        zero_variance_patience: Rollouts in a row in which all groups scored alike, not counting what quality control dropped; 0
            switches it off. So it is with all of these.
        zero_accepted_patience: Rollouts in a row in which nothing was accepted and kept; looked at where the update rule
            learns from accepted samples.
        max_logprob_gap: Largest difference of log-probabilities between sampling and scoring, nats, before the first step;
            in lower precision than 32 bits, 1 at least.
        diversity: Least share of the first validation's diversity.
        reward_rise: Rise of the training reward that is suspicious where drawing falls by `max_accuracy_drop`.
        fall: Fall of accuracy below the first validation, [0, 1], of drawing as a whole, or of a category in drawing or
            seeing. Mind the size of the validation: with 60 pictures a category, 0.1 is a standard error and a half.
        skip_non_finite: Whether steps with a gradient that is not finite are skipped.
    """

    def __init__(
        self,
        zero_variance_patience: int = 20,
        zero_accepted_patience: int = 20,
        max_logprob_gap: float = 1e-3,
        diversity: float = 0.7,
        reward_rise: float = 0.02,
        max_accuracy_drop: float = 0.1,
        skip_non_finite: bool = True,
    ) -> None:
        self.flat, self.refused = ZeroVariance(zero_variance_patience), NothingAccepted(zero_accepted_patience)
        self.gap, self.finite = LogprobGap(max_logprob_gap), NonFinite()
        self.validation, self.skip_non_finite = Validation(diversity, reward_rise, max_accuracy_drop), skip_non_finite
        self.said: list[str] = []
        self._rewards: list[float] = []
        self._fresh = False
        self._trainer: Trainer | None = None
        self._module: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer, self._module = trainer, pl_module

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> None:
        """Before the first update, sampling and scoring must agree."""
        self._fresh = True
        if self._trainer is None or self._trainer.global_step:
            return
        precise, (backbone, one) = str(self._trainer.precision).startswith("32"), (self._module.backbone, slice(0, 1))
        images, answers = rollout.images[one], rollout.answers[one]
        if images.log_probs is not None:
            generator = torch.Generator(images.log_probs.device).manual_seed(0)
            scored, mask = backbone.image_log_probs(
                rollout.prompts[one], images, self._module.rollout.image_sampling, 4, generator
            )
            gap = ((scored - images.log_probs) * mask).abs().max().item()
            self._say(self.gap.seen(gap, "drawings", precise))
        if answers.log_probs is not None:
            scored = backbone.answer_log_probs(images, rollout.questions[one], answers)
            gap = ((scored - answers.log_probs) * answers.mask).abs().max().item()
            self._say(self.gap.seen(gap, "answers", precise))

    @hookimpl
    def unirl_validated(self, metrics: Mapping[str, float]) -> None:
        trainer = self._trainer
        if trainer is None or trainer.state.fn != "fit" or partial_check(trainer):
            return
        rewards, self._rewards = self._rewards, []
        self._say(self.validation.seen(metrics, rewards))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self.skip_non_finite:
            return
        slopes = ((name, _mine(p.grad)) for name, p in pl_module.named_parameters() if p.grad is not None)
        bad = next((name for name, slope in slopes if not torch.isfinite(slope).all()), None)
        anywhere = trainer.strategy.reduce_boolean_decision(bad is not None, all=False)
        if anywhere:
            for parameter in pl_module.parameters():
                parameter.grad = None  # an optimizer leaves parameters without gradient as they are
            self._say(self.finite.seen(bad or "another process", trainer.global_step))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._fresh:  # several steps may learn from one rollout
            self._look(trainer.callback_metrics)
        self._fresh = False
        pl_module.log("guards/spoken", float(len(self.said)))
        pl_module.log("guards/skipped", float(self.finite.skipped))

    def state_dict(self) -> dict[str, Any]:
        watches = {"flat": asdict(self.flat), "refused": asdict(self.refused), "finite": asdict(self.finite)}
        return watches | {"validation": asdict(self.validation), "rewards": self._rewards, "said": self.said}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.flat.row, self.finite.skipped = state_dict["flat"]["row"], state_dict["finite"]["skipped"]
        self.refused.row = state_dict.get("refused", {"row": 0})["row"]  # checkpoints before this guard have none
        kept = state_dict["validation"]
        self.validation.first, self.validation.first_reward = kept["first"], kept["first_reward"]
        self.validation.told = kept["told"]
        self._rewards, self.said = state_dict["rewards"], state_dict["said"]

    def _look(self, metrics: Mapping[str, Tensor]) -> None:
        """At what was logged of a fresh rollout, over all processes."""
        names = "reward", "frac_reward_zero_std", "frac_accepted"
        reward, flat, accepted = (float(metrics.get(name, math.nan)) for name in names)
        self._rewards.append(reward)
        if self._module.rollout.group_size > 1:  # one sample has nobody to be compared with
            self._say(self.flat.seen(flat, reward))
        if self._module.update.learns_from_accepted:
            self._say(self.refused.seen(accepted, reward))

    def _say(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.said.append(sentence)
            if self._trainer is None or self._trainer.is_global_zero:
                Console(stderr=True).print(f"[yellow]guard:[/] {sentence}.", highlight=False)


def _mine(slope: Tensor) -> Tensor:
    """This process's share of a sharded gradient: to look at it must wait for nobody."""
    return slope.to_local() if isinstance(slope, DTensor) else slope
