"""The training loop: draw, answer, score, learn."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from transformers import get_scheduler

from unirl.backbones import Backbone
from unirl.backbones.lora import LoRA, choose_trained
from unirl.distributed.collectives import of_all, own
from unirl.distributed.fsdp2 import hold, settle, shard
from unirl.distributed.strategies import in_turns
from unirl.errors import within
from unirl.functional.advantages import flat_groups
from unirl.functional.seeding import generator_for
from unirl.hooks.lifecycle import Lifecycle
from unirl.judges import Judge
from unirl.rewards import Reward
from unirl.rewards.scoring import contrasts, score
from unirl.training.config import check_answering, check_drawing, check_optimizer, check_scoring, check_trained
from unirl.training.evaluation import Measuring
from unirl.types import AnswerSampling, Example, ImageSampling, Rollout, moved
from unirl.updates import UpdateRule

DECAYING = ("linear", "cosine")


class SelfImprovement(Measuring):
    """A unified model that learns from what it says about what it drew (UniRL, arXiv 2505.23380).

    Args:
        backbone: The model.
        update: How samples and scores become a loss.
        rewards: How good a sample was; several are added up by their weights.
        judge: Measures drawing and seeing in validation; training never asks it.
        group_size: Drawings of each prompt.
        updates_per_rollout: Training steps that learn from the same drawings; the prompts of all but the first pass by.
        sampling: How to draw.
        answering: How to answer in training; validation answers greedily.
        validation_sampling: How to draw in validation: where the untrained model draws best, lest training win by
            undoing a bad setting. As in training by default.
        accept: Least weighted sum of rewards with which a drawing counts as right, in learning and where the critic is
            measured. By default the rewards decide: all that can tell must accept it (docs/method.md).
        reward_timeout: Seconds that a reward may take for a rollout before the run stops; None for as long as it likes.
        exam_size: Given pictures that validation asks about.
        diversity_prompts: Held-out prompts that validation draws four times, to see how much they differ; 0 for none.
        features: A timm model in whose features they are compared, too: a name, a folder, or `package:folder`.
        trained: Parts of the names of the backbone's parameters to train, such as "self_attn"; all of them by default.
        lora: Train low-rank adapters instead of the weights (the extra `lora`); the exported model has them merged.
        lr: Learning rate of AdamW.
        betas: Of AdamW.
        weight_decay: Of AdamW.
        warmup_steps: Steps in which the learning rate rises to `lr`.
        lr_schedule: What it does afterwards, by transformers' names: stay, or fall to 0 by the last step.
        seed: Of everything that is drawn, together with step, rank and purpose.

    Raises:
        UserError: settings that cannot train.
    """

    def __init__(
        self,
        backbone: Backbone,
        update: UpdateRule,
        rewards: list[Reward],
        judge: Judge | None = None,
        group_size: int = 4,
        updates_per_rollout: int = 1,
        sampling: ImageSampling = ImageSampling(),
        answering: AnswerSampling = AnswerSampling(),
        validation_sampling: ImageSampling | None = None,
        accept: float | None = None,
        reward_timeout: float | None = None,
        exam_size: int = 240,
        diversity_prompts: int = 12,
        features: str | None = None,
        trained: list[str] | None = None,
        lora: LoRA | None = None,
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        lr_schedule: Literal["constant_with_warmup", "linear", "cosine"] = "constant_with_warmup",
        seed: int = 0,
    ) -> None:
        super().__init__()
        within(1, 10_000, "model", group_size=group_size, updates_per_rollout=updates_per_rollout)
        within(0, 100_000, "model", exam_size=exam_size, diversity_prompts=diversity_prompts)
        check_scoring(rewards, accept)
        check_drawing("model.sampling", backbone, sampling)
        check_drawing("model.validation_sampling", backbone, validation_sampling)
        check_answering("model.answering", answering)
        check_optimizer(lr, betas, weight_decay, warmup_steps)
        check_trained(trained, lora)
        update.check(backbone, group_size, sampling)
        self.backbone, self.update, self.rewards, self.judge = backbone, update, rewards, judge
        self.group_size, self.sampling, self.answering, self.accept = group_size, sampling, answering, accept
        self.reward_timeout, self.exam_size, self.diversity_prompts = reward_timeout, exam_size, diversity_prompts
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.warmup_steps, self.lr_schedule, self.seed = warmup_steps, lr_schedule, seed
        self.validation_sampling = validation_sampling or sampling
        self.updates_per_rollout, self.trained, self.lora, self.features = updates_per_rollout, trained, lora, features
        self._rollout: Rollout | None = None
        self._built, self._lifecycle = False, Lifecycle()
        self.greedy = replace(answering, temperature=0.0)

    def configure_model(self) -> None:
        if self._built:  # a second call must not take a trained model for the reference
            return
        in_turns(self._build, None if self._trainer is None else self.trainer.strategy)
        self.update.attach(self.backbone)
        for reward in self.rewards:
            reward.attach(self.backbone)
        self._built = True

    def _build(self, mesh: DeviceMesh | None) -> None:
        self.backbone.build()
        choose_trained(self.backbone, self.trained, self.lora)
        if mesh is not None:
            shard(self.backbone, mesh)

    def on_after_backward(self) -> None:
        settle(self.backbone)

    def setup(self, stage: str) -> None:
        self._lifecycle = Lifecycle(self.trainer.callbacks)  # type: ignore[attr-defined]

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        hold(self.backbone)  # until the backward pass is over
        rollout = self._rollout_of(batch)
        loss, logs = self.update.loss(self.backbone, rollout, self.sampling, self.counted("update"))
        self._log({"loss": loss, "reward": rollout.scores.mean()}, rollout, prog_bar=True)
        logs |= {f"reward_{name}": part.mean() for name, part in rollout.score_parts.items()}
        flat = flat_groups(rollout.compared, self.group_size, rollout.kept)
        logs |= {"flat_groups": flat.float().mean()}
        logs |= {"accepted": (rollout.accepted & (rollout.kept > 0)).float().mean()}
        self._log({f"train/{name}": value for name, value in logs.items()}, rollout)
        return loss

    def _rollout_of(self, batch: Sequence[Example]) -> Rollout:
        """A fresh rollout, or the one that the steps before have learnt from."""
        step, every = self.trainer.fit_loop.total_batch_idx, self.updates_per_rollout
        if self._rollout is None or step % every == 0:
            self._rollout = self.rollout(batch)
            first = step - step % every  # a resumed run may have to draw between two updates
            generators = [self.counted("update", first + i) for i in range(every)]
            with torch.no_grad():
                self._rollout = self.update.prepare(self.backbone, self._rollout, self.sampling, generators)
            if torch.is_autocast_enabled(self.device.type):
                torch.clear_autocast_cache()  # casts made without gradient would be used with it
        # One from a checkpoint comes on the CPU.
        self._rollout = replace(moved(self._rollout, self.device), update=step % every)
        return self._rollout

    @torch.no_grad()
    def rollout(self, batch: Sequence[Example]) -> Rollout:
        """Draw a group for each prompt, answer the question about each drawing, and score the answers."""
        examples = [example for example in batch for _ in range(self.group_size)]
        prompts, questions = [e.prompt for e in examples], [e.question for e in examples]
        images = self.backbone.sample_images(prompts, self.sampling, self.counted("images"))
        if self.backbone.sees_pixels or any(reward.needs_pixels for reward in self.rewards):
            images = replace(images, pixels=self.backbone.decode(images))
        answers = self.backbone.sample_answers(images, questions, self.answering, self.counted("answers"))
        scores, parts, accepted = score(self.rewards, examples, images, answers, self.accept, self.reward_timeout)
        rollout = Rollout(examples, images, answers, scores, parts, accepted, self.group_size)
        weights = self._lifecycle.weights(rollout)
        return replace(rollout, weights=weights, contrasts=contrasts(self.rewards, parts, self.group_size, weights))

    def _log(self, values: Mapping[str, Tensor], rollout: Rollout, prog_bar: bool = False) -> None:
        self.log_dict(values, prog_bar=prog_bar, sync_dist=True, batch_size=len(rollout.examples))

    def counted(self, purpose: str, step: int | None = None) -> torch.Generator:
        """The generator of a step (this one), this process and a purpose; a resumed run gets the same ones."""
        step = self.trainer.fit_loop.total_batch_idx if step is None else step
        return generator_for(self.device, self.seed, step, self.global_rank, purpose)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, self.lr, self.betas, weight_decay=self.weight_decay)
        total = int(self.trainer.estimated_stepping_batches) if self.lr_schedule in DECAYING else None
        schedule = get_scheduler(self.lr_schedule, optimizer, self.warmup_steps, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.updates_per_rollout > 1:  # a run may stop between two of them
            checkpoint["rollout"] = of_all(moved(self._rollout, torch.device("cpu")))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept: Rollout | None = own(checkpoint.get("rollout"))
        if kept is None or not hasattr(kept, "accepted"):  # of a version that did not keep it: draw afresh
            return
        if len(kept.old_log_probs) in (0, self.updates_per_rollout):
            self._rollout = kept
