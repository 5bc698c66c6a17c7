"""Self-improvement as a LightningModule: generate, answer, score, learn."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from typing_extensions import override

from unirl.backbones import Backbone
from unirl.backbones.frozen import DIGEST, check_digest, exclude_from_state_dict, frozen_digest, frozen_names
from unirl.backbones.lora import LoRA, select_trainable
from unirl.backbones.precision import AUTOCAST_DTYPES, cached_casts, cast_frozen_weights
from unirl.backbones.sampling_config import SamplingConfig
from unirl.distributed.collectives import gather_object, local_item
from unirl.distributed.fsdp2 import finish_backward, is_sharded, reshard, shard, unshard, unsharded
from unirl.distributed.strategies import build_rank_by_rank, mixed_precision_policy
from unirl.functional.seeding import generator_for
from unirl.hooks.lifecycle import Lifecycle
from unirl.judges import Judge
from unirl.rewards import Reward
from unirl.rewards.scoring import normalized_rewards
from unirl.training.adaptive import AdaptiveSampler
from unirl.training.config import (
    EvaluationConfig,
    RolloutConfig,
    check_evaluation,
    check_plugins,
    check_precision,
    check_rollout,
    check_trainable,
    loss_batch_size,
    missing_verdicts,
    reward_timeout,
)
from unirl.training.evaluation import Evaluator, Metrics, flatten
from unirl.training.held_settings import SETTINGS, Settings, check_held, held_settings, same_sampling
from unirl.training.optimizers import (
    average_gradients,
    check_optimizer,
    check_run_length,
    check_trained_weights,
    gradient_norm,
    use_fused_step,
    with_total_steps,
)
from unirl.training.rollout import Rollouts
from unirl.training.step_metrics import step_metrics
from unirl.types import Example, Rollout, to_device
from unirl.updates import UpdateRule
from unirl.updates.loss_checks import check_loss, check_scalar


class SelfImprovement(LightningModule):
    """A unified model that improves by answering questions about its own images (UniRL, arXiv 2505.23380).

    Args:
        backbone: The model.
        update: Turns a scored rollout into a loss.
        rewards: Score the samples; several are added up by their weights.
        judge: Decides in validation whether an image is correct. It is not used in training.
        rollout: How training samples are generated.
        evaluation: What validation measures.
        optimizer: Makes the optimizer from the trainable parameters: any class of `torch.optim`, or a function.
        lr_scheduler: Makes the learning rate scheduler from the optimizer; it steps after each optimizer step. None
            keeps the learning rate constant.
        trainable_modules: Parts of the names of the parameters to train, such as "self_attn". None trains all.
        lora: Train low-rank adapters instead of the weights (needs the extra `lora`). They are merged on export.
        exclude_frozen_parameters: Leave parameters that are not trained out of checkpoints. A resumed run takes them
            from the base model, and refuses one that has changed.
        seed: Seed of all random numbers, together with step, rank and purpose. None is 0; in `unirl fit` it is the
            value of `--seed_everything`.

    Raises:
        UserError: a setting is out of range, or the update rule cannot train this backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        update: UpdateRule,
        rewards: list[Reward],
        judge: Judge | None = None,
        rollout: RolloutConfig = RolloutConfig(),
        evaluation: EvaluationConfig = EvaluationConfig(),
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-5),
        lr_scheduler: LRSchedulerCallable | None = None,
        trainable_modules: list[str] | None = None,
        lora: LoRA | None = None,
        exclude_frozen_parameters: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_plugins(backbone, update, rewards, judge)
        check_rollout(rollout, backbone, rewards)
        check_evaluation(evaluation, backbone)
        check_trainable(trainable_modules, lora)
        check_optimizer(optimizer, lr_scheduler)
        update.check(backbone, rollout.group_size, rollout.image_sampling)
        if problem := missing_verdicts(update, rewards, rollout.accept_threshold):
            rank_zero_warn("; ".join(problem))
        self.backbone, self.update, self.rewards, self.judge = backbone, update, rewards, judge
        self.rollout, self.evaluation, self.seed = rollout, evaluation, seed or 0
        self.loss_batch_size = loss_batch_size(rollout, update)
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.trainable_modules, self.lora = trainable_modules, lora
        self.exclude_frozen_parameters = exclude_frozen_parameters
        self.frozen_digest: str | None = None
        self.rollouts = Rollouts(backbone, rewards, rollout.accept_threshold, reward_timeout(rollout))
        self.evaluator = Evaluator(self.rollouts, judge, evaluation, rollout.image_sampling, rollout.answer_sampling)
        self.val_metrics: Metrics = {}
        self._current: Rollout | None = None
        self._kept: list[Rollout] = []  # with `num_iterations`, a rollout for each batch of an optimizer step
        self._built, self._lifecycle = False, Lifecycle()
        self._settings: Settings = {}

    @property
    def sampling_config(self) -> SamplingConfig:
        """The settings that validation measures the model by; they are exported with it."""
        return SamplingConfig(self.evaluator.image_sampling, self.evaluator.answer_sampling)

    # --- building ---

    @override
    def configure_model(self) -> None:
        if self._built:  # a second call must not take a trained model as the reference
            self._cast_frozen_weights()
            return
        with torch.device("cpu"):  # Lightning calls it inside its own device, where transformers wants accelerate
            build_rank_by_rank(self._build, None if self._trainer is None else self.trainer.strategy)
            self.update.attach(self.backbone)
            for reward in self.rewards:
                reward.attach(self.backbone)
        if self.exclude_frozen_parameters:
            exclude_from_state_dict(self, [f"backbone.{name}" for name in frozen_names(self.backbone)])
            if self._trainer is not None:
                self.frozen_digest = self.trainer.strategy.broadcast(self.frozen_digest)
        self._built = True
        if self._trainer is not None:
            trains, data = self.trainer.state.fn == "fit", getattr(self.trainer, "datamodule", None)
            self.rollouts.lengths.warn_of_run(data, self.rollout.answer_sampling.max_tokens, trains)

    def _build(self, mesh: DeviceMesh | None) -> None:
        self.backbone.build()
        select_trainable(self.backbone, self.trainable_modules, self.lora)
        if self.exclude_frozen_parameters and self.global_rank == 0:
            self.frozen_digest = frozen_digest(self.backbone)  # of the weights as they were read, before any cast
        if mesh is not None:
            strategy, policy = self.trainer.strategy, mixed_precision_policy(self.trainer.precision)
            offload = [getattr(strategy, name, False) for name in ("offload", "offload_reference")]
            shard(self.backbone, mesh, policy, *offload)
        self._cast_frozen_weights()

    def _cast_frozen_weights(self) -> None:
        if not is_sharded(self.backbone):  # shards are float32
            precision = "" if self._trainer is None else str(self.trainer.precision)
            cast_frozen_weights(self.backbone, AUTOCAST_DTYPES.get(precision, torch.float32))

    @override
    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_precision(str(self.trainer.precision))
            check_run_length(self.lr_scheduler, self.trainer.max_epochs, self.trainer.max_steps)
            self._settings = held_settings(self, self.trainer, getattr(self.trainer, "datamodule", None))
        self._lifecycle = Lifecycle(self.trainer.callbacks)  # type: ignore[attr-defined]
        self.rollouts.reward_timeout = reward_timeout(self.rollout, self.trainer.strategy)
        for loop in (self.trainer.fit_loop.epoch_loop.val_loop, self.trainer.validate_loop, self.trainer.test_loop):
            loop.inference_mode = False  # under FSDP2, a first forward pass in inference mode breaks training

    @override
    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([p for p in self.backbone.parameters() if p.requires_grad])
        check_trained_weights(optimizer)
        use_fused_step(optimizer)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = with_total_steps(self.lr_scheduler(optimizer), lambda: int(self.trainer.estimated_stepping_batches))
        settings: dict[str, Any] = {"scheduler": scheduler, "interval": "step"}
        if isinstance(scheduler, ReduceLROnPlateau):
            every = self.trainer.check_val_every_n_epoch if scheduler.monitor.startswith("val/") else None
            settings |= {"interval": "epoch", "monitor": scheduler.monitor, "frequency": every or 1, "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": settings}

    # --- training ---

    @override
    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        rollout = self._rollout(batch)
        loss, metrics = self._loss(rollout)
        self._log_step(loss, metrics, rollout)
        return loss

    @override
    def on_train_batch_start(self, batch: Sequence[Example], batch_idx: int) -> None:
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.optimizers().zero_grad()  # type: ignore[union-attr]

    @override
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Lightning calls it between `training_step` and the backward pass: too late for gradients of micro-batches."""

    @override
    def on_after_backward(self) -> None:
        finish_backward(self.backbone)

    @override
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        check_trained_weights(optimizer)  # a callback may have added some
        self.log("grad_norm", gradient_norm(self.backbone.parameters()))
        self.log("learning_rate", float(optimizer.param_groups[0]["lr"]))

    def _loss(self, rollout: Rollout) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and metrics of a rollout. Only the last micro-batch is left for Lightning to backpropagate."""
        *first, last = rollout.micro_batches()
        parts = [self._backpropagated(self._loss_of(part)) for part in first]
        loss, metrics = self._loss_of(last)
        for value, logged in parts:
            loss = loss + value
            metrics = {name: metrics[name] + logged[name] for name in metrics}
        return loss, metrics

    def _loss_of(self, rollout: Rollout) -> tuple[Tensor, Mapping[str, Tensor]]:
        result = self.update.loss(self.backbone, rollout, self.rollout.image_sampling, self.rng("update"))
        return check_loss(self.update, result, self.device)

    def _backpropagated(self, result: tuple[Tensor, Mapping[str, Tensor]]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Backpropagate a loss as Lightning does that of a batch whose gradients are accumulated.

        DDP reduces gradients in the backward pass after `training_step`, which is its forward pass, and not in here.
        """
        loss, metrics = result
        device = self.device.type
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            self.trainer.strategy.backward(loss / self.trainer.accumulate_grad_batches, None)
        return loss.detach(), metrics

    @property
    def has_task_losses(self) -> bool:
        """Whether the update rule tells the losses of the tasks apart."""
        return type(self.update).task_losses is not UpdateRule.task_losses

    def task_gradient_norms(self) -> dict[str, Tensor]:
        """Norms of the gradients of both tasks' losses of the current samples, at the current weights.

        Collective: call it on every rank, between two steps. Gradients are deleted.

        Returns:
            Scalars by task, see `UpdateRule.task_losses`.
        """
        assert self._current is not None, "a training step comes first"
        norms: dict[str, Tensor] = {}
        for task in ("image", "answer"):
            self.backbone.zero_grad()
            for part in self._current.micro_batches():
                with self.trainer.precision_plugin.forward_context():
                    losses = self._task_losses(part)
                torch.autograd.backward(losses[task])
            finish_backward(self.backbone)
            if not is_sharded(self.backbone):
                average_gradients(self.backbone.parameters())
            norms[task] = gradient_norm(self.backbone.parameters())
        self.backbone.zero_grad()
        return norms

    def _task_losses(self, rollout: Rollout) -> dict[str, Tensor]:
        losses = self.update.task_losses(self.backbone, rollout, self.rollout.image_sampling, self.rng("update"))
        for task, loss in losses.items():
            check_scalar(self.update, f"the {task} loss", loss, self.device)
        return losses

    def position(self) -> tuple[int, int]:
        """Which iteration on its rollout the current batch is, and which of the batches of an optimizer step.

        With `accumulate_grad_batches`, a rollout of its own for each batch of a step is trained on `num_iterations`
        times, so that each iteration sees the weights of the one before. Steps begin anew with each epoch then.
        """
        accumulated, loop = self.trainer.accumulate_grad_batches, self.trainer.fit_loop
        index = loop.total_batch_idx if accumulated == 1 else loop.epoch_loop.batch_idx
        return divmod(index % (accumulated * self.rollout.num_iterations), accumulated)

    def _rollout(self, batch: Sequence[Example]) -> Rollout:
        """A fresh rollout, or one that is there where `num_iterations` steps train on it."""
        step, (iteration, position) = self.trainer.fit_loop.total_batch_idx, self.position()
        if iteration == 0:
            del self._kept[position:]
        if position >= len(self._kept):
            accumulated = self.trainer.accumulate_grad_batches
            with unsharded(self.backbone), cached_casts(self.device):
                # A resumed run may start between two iterations.
                fresh = self._fresh_rollout(batch, first=step - iteration * accumulated)
            self._kept = [*self._kept, fresh] if self.rollout.num_iterations > 1 else [fresh]
            if (sampler := self._adaptive_sampler()) is not None:
                sampler.observe(step, fresh)
        # A rollout from a checkpoint is on the CPU.
        current = to_device(self._kept[position if self.rollout.num_iterations > 1 else 0], self.device)
        self._current = replace(current, iteration=iteration, loss_batch_size=self.loss_batch_size)
        return self._current

    @torch.no_grad()
    def _fresh_rollout(self, batch: Sequence[Example], first: int) -> Rollout:
        config, rngs = self.rollout, (self.rng("images"), self.rng("answers"))
        self.rollouts.lengths.watch(batch, config.answer_sampling.max_tokens)
        rollout = self.rollouts.sample(batch, config.image_sampling, config.answer_sampling, *rngs, config.group_size)
        weights = self._lifecycle.weights(rollout)
        normalized = normalized_rewards(self.rewards, rollout.score_parts, config.group_size, weights)
        rollout = replace(rollout, weights=weights, normalized_rewards=normalized, loss_batch_size=self.loss_batch_size)
        answer_rollout = self._answer_rollout(batch)
        if answer_rollout is None:
            rollout = self._add_candidates(rollout)
        else:
            rollout = replace(rollout, answer_rollout=self._add_candidates(answer_rollout))
        between = self.trainer.accumulate_grad_batches
        generators = [self.rng("update", first + i * between) for i in range(config.num_iterations)]
        return self.update.prepare(self.backbone, rollout, config.image_sampling, generators)

    def _adaptive_sampler(self) -> AdaptiveSampler | None:
        return getattr(getattr(self.trainer, "datamodule", None), "adaptive_sampler", None)

    def _answer_rollout(self, batch: Sequence[Example]) -> Rollout | None:
        """Samples of another model that understanding learns from, where the update rule generates some."""
        config, prompts = self.rollout, [example.prompt for example in batch]
        rng = self.rng("answer_images")
        images = self.update.sample_answer_images(self.backbone, prompts, config.image_sampling, rng)
        if images is None:
            return None
        rollout = self.rollouts.ask(batch, images, config.answer_sampling, self.rng("answers about answer_images"))
        return replace(rollout, loss_batch_size=self.loss_batch_size)

    def _add_candidates(self, rollout: Rollout) -> Rollout:
        sampling, max_tokens = self.update.candidate_sampling, self.rollout.answer_sampling.max_tokens
        if sampling is None:
            return rollout
        return self.rollouts.add_candidates(rollout, sampling, max_tokens, self.rng("candidates"))

    def rng(self, purpose: str, step: int | None = None) -> torch.Generator:
        """The generator for a purpose in a step, the current one by default. A resumed run gets the same ones.

        Args:
            purpose: Such as "images".
            step: Number of the training batch.
        """
        step = self.trainer.fit_loop.total_batch_idx if step is None else step
        return generator_for(self.device, self.seed, step, self.global_rank, purpose)

    def _log_step(self, loss: Tensor, metrics: Mapping[str, Tensor], rollout: Rollout) -> None:
        values = step_metrics(rollout, self.rollout, self.backbone.eos_token_ids) | dict(metrics)
        shared: dict[str, Any] = {"sync_dist": True, "batch_size": len(rollout.examples)}
        self.log_dict({"loss": loss, "reward": rollout.scores.mean()}, prog_bar=True, **shared)
        self.log_dict(values, **shared)
        if (sampler := self._adaptive_sampler()) is not None:
            category_shares = sampler.shares(self.trainer.fit_loop.total_batch_idx)
            self.log_dict({f"data/share/{name}": share for name, share in category_shares.items()})

    # --- evaluation ---

    @override
    def on_validation_start(self) -> None:
        unshard(self.backbone)  # ranks may have unequally many batches
        examples = self.trainer.datamodule.val_examples  # type: ignore[attr-defined]
        self.evaluator.start(examples, self.device, self.global_rank, self.trainer.world_size)

    @override
    def validation_step(self, batch: Sequence[Example], batch_idx: int) -> dict[str, Any]:
        with cached_casts(self.device):
            return {"rollout": self.evaluator.step(batch, batch_idx), "verdicts": self.evaluator.verdicts}

    @override
    def on_validation_epoch_end(self) -> None:
        with self.trainer.precision_plugin.forward_context(), cached_casts(self.device):  # no step, but it answers
            self.val_metrics = self.evaluator.finish()
        values = flatten(self.val_metrics)
        # All ranks compute the same values, also a rank without a batch: computing them is collective.
        logged = {f"val/{name}": value for name, value in values.items()}
        self.log_dict(logged)
        if self.trainer.sanity_checking and self.trainer.num_sanity_val_steps == float("inf"):
            self._log_before_training(logged)
        self._lifecycle.validated(values)
        reshard(self.backbone)

    def _log_before_training(self, values: Mapping[str, float]) -> None:
        """Log a whole validation before the first step, which Lightning does not log, as it logs the others."""
        for logger in self.trainer.loggers:
            logger.log_metrics({**values, "epoch": self.trainer.current_epoch}, self.trainer.global_step)
            logger.save()

    @override
    def on_test_start(self) -> None:
        self.on_validation_start()

    @override
    def test_step(self, batch: Sequence[Example], batch_idx: int) -> dict[str, Any]:
        return self.validation_step(batch, batch_idx)

    @override
    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end()

    # --- checkpoints ---

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[SETTINGS] = self._settings
        if self.frozen_digest is not None:
            checkpoint[DIGEST] = self.frozen_digest
        if self.rollout.num_iterations > 1:  # a run may stop between two of them
            checkpoint["rollouts"] = gather_object(to_device(self._kept, torch.device("cpu")))

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_checkpoint(checkpoint, str(self.trainer.ckpt_path))
        saved: list[Rollout] = local_item(checkpoint.get("rollouts")) or []
        same = same_sampling(checkpoint.get(SETTINGS, {}), self._settings)
        if same and all(len(rollout.old_log_probs) in (0, self.rollout.num_iterations) for rollout in saved):
            self._kept = saved

    def check_checkpoint(self, checkpoint: Mapping[str, Any], ckpt_path: str) -> None:
        """Refuse a checkpoint whose state holds other settings than this run has, before it is loaded.

        Args:
            checkpoint: What it holds besides tensors.
            ckpt_path: Its path, for the message.

        Raises:
            UserError: names the settings.
        """
        settings, training = self._settings or held_settings(self), self.trainer.state.fn == "fit"
        check_held(checkpoint.get(SETTINGS, {}), settings, ckpt_path, training)
        check_digest(checkpoint.get(DIGEST), self.frozen_digest)
