"""The guards as a callback of the trainer."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from unirl.callbacks.guards.watches import FlatGroups, NonFinite, Refused, ScoringGap, Validation
from unirl.callbacks.sanity import partial_check
from unirl.hooks import hookimpl
from unirl.types import Rollout


class Guards(Callback):
    """Says in a plain sentence what goes wrong silently, and skips steps whose gradient is not finite.

    Each sentence is printed once per event, counted in the logs (`guards/spoken`), and kept in `said`.

    Args:
        flat_rollouts: Rollouts in a row in which all groups scored alike, not counting what quality control dropped; 0
            switches it off. So it is with all of these.
        refused_rollouts: Rollouts in a row in which nothing was accepted and kept; looked at where the update rule
            learns from accepted samples.
        scoring_gap: Largest difference of log-probabilities between sampling and scoring, nats, before the first step;
            in lower precision than 32 bits, 1 at least.
        diversity: Least share of the first validation's diversity.
        reward_rise: Rise of the training reward that is suspicious where drawing falls by `fall`.
        fall: Fall of accuracy below the first validation, [0, 1], of drawing as a whole, or of a category in drawing or
            seeing. Mind the size of the validation: with 60 pictures a category, 0.1 is a standard error and a half.
        skip_non_finite: Whether steps with a gradient that is not finite are skipped.
    """

    def __init__(
        self,
        flat_rollouts: int = 20,
        refused_rollouts: int = 20,
        scoring_gap: float = 1e-3,
        diversity: float = 0.7,
        reward_rise: float = 0.02,
        fall: float = 0.1,
        skip_non_finite: bool = True,
    ) -> None:
        self.flat, self.refused = FlatGroups(flat_rollouts), Refused(refused_rollouts)
        self.gap, self.finite = ScoringGap(scoring_gap), NonFinite()
        self.validation, self.skip_non_finite = Validation(diversity, reward_rise, fall), skip_non_finite
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
            scored, mask = backbone.image_log_probs(rollout.prompts[one], images, self._module.sampling, 4, generator)
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
        names = "reward", "train/flat_groups", "train/accepted"
        reward, flat, accepted = (float(metrics.get(name, math.nan)) for name in names)
        self._rewards.append(reward)
        if self._module.group_size > 1:  # one sample has nobody to be compared with
            self._say(self.flat.seen(flat, reward))
        if self._module.update.learns_accepted:
            self._say(self.refused.seen(accepted, reward))

    def _say(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.said.append(sentence)
            if self._trainer is None or self._trainer.is_global_zero:
                Console(stderr=True).print(f"[yellow]guard:[/] {sentence}.", highlight=False)


def _mine(slope: Tensor) -> Tensor:
    """This process's share of a sharded gradient: to look at it must wait for nobody."""
    return slope.to_local() if isinstance(slope, DTensor) else slope
