"""A short training run of either backbone with either update rule under any strategy, recorded on every rank."""

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl.backbones.janus import Janus
from unirl.backbones.lora import LoRA
from unirl.backbones.showo import Showo
from unirl.backbones.showo import backbone as showo_backbone
from unirl.callbacks import ExportPretrained, Guards
from unirl.checkpoint import AtomicTrainer
from unirl.distributed.strategies import register
from unirl.functional.seeding import generator_for
from unirl.rewards.likelihood import Likelihood
from unirl.testing.tiny_backbone import TinyBackbone
from unirl.training import EvaluationConfig, PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.types import AnswerLabels, Answers, AnswerSampling, Example, ImageSampling, Rollout
from unirl.updates import PosteriorLabels, UpdateRule
from unirl.updates.grpo import GRPO, KLPenalty
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

BACKBONES = {"showo": Showo, "janus": Janus, "tiny": TinyBackbone}
ROLLOUT = RolloutConfig(
    group_size=2,
    image_sampling=ImageSampling(steps=3, guidance=0.5, temperature=1.5),
    answer_sampling=AnswerSampling(3),
    accept_threshold=0.0,
)


def update_rule(name: str) -> UpdateRule:
    if name == "sft":
        return SFT(end_to_end=True, straight_through_steps=2)
    if name == "posterior":
        labels = PosteriorLabels(num_candidates=2, min_posterior=0.2, model="reference")
        images: dict[str, Any] = {"answer_images": "reference", "answer_images_per_prompt": 3}
        return GRPO(kl=KLPenalty(beta=0.1), answer_labels="posterior", posterior=labels, **images)
    return GRPO(answer_labels="self", kl=KLPenalty(beta=0.1, answer_beta=0.5))


class Recorder(SelfImprovement):
    """Records losses and codes. One process can generate what several would, with the generators of their ranks."""

    simulated_ranks: int = 1

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        assert self._current is not None
        mean = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
        codes = self.all_gather(self._current.images.codes).flatten(0, -2)
        self.losses = [*getattr(self, "losses", []), float(mean)]
        self.codes = [*getattr(self, "codes", []), codes.tolist()]
        return loss

    def _fresh_rollout(self, batch: Sequence[Example], first: int) -> Rollout:
        per_rank = len(batch) // self.simulated_ranks
        rollouts = []
        for rank in range(self.simulated_ranks):
            self.rng_rank = self.global_rank * self.simulated_ranks + rank
            rollouts.append(super()._fresh_rollout(batch[rank * per_rank : (rank + 1) * per_rank], first))
        return rollouts[0] if self.simulated_ranks == 1 else concatenate(rollouts)

    def rng(self, purpose: str, step: int | None = None) -> torch.Generator:
        step = self.trainer.fit_loop.total_batch_idx if step is None else step
        return generator_for(self.device, self.seed, step, getattr(self, "rng_rank", self.global_rank), purpose)


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    first = rollouts[0]
    tensors = {name: _cat(rollouts, name) for name in ("scores", "accepted", "normalized_rewards", "weights")}
    images = [rollout.images for rollout in rollouts]
    image_values = {f.name: _cat(images, f.name) for f in fields(images[0]) if f.name != "memory"}
    image_values["memory"] = {name: torch.cat([image.memory[name] for image in images]) for name in images[0].memory}
    labels = [rollout.answer_labels for rollout in rollouts if rollout.answer_labels]
    others = [rollout.answer_rollout for rollout in rollouts if rollout.answer_rollout]
    answers = concatenate_answers([label.answers for label in labels]) if labels else None
    return replace(
        first,
        examples=[example for rollout in rollouts for example in rollout.examples],
        images=replace(images[0], **image_values),
        answers=concatenate_answers([rollout.answers for rollout in rollouts]),
        answer_labels=None if answers is None else AnswerLabels(answers, _cat(labels, "weights")),
        candidates=None,
        answer_rollout=concatenate(others) if others else None,
        score_parts={name: torch.cat([r.score_parts[name] for r in rollouts]) for name in first.score_parts},
        **tensors,
    )


def concatenate_answers(batches: Sequence[Answers]) -> Answers:
    longest = max(batch.ids.shape[1] for batch in batches)
    values: dict[str, Any] = {"text": [text for batch in batches for text in batch.text]}
    for name in ("ids", "mask", "log_probs"):
        rows = [getattr(batch, name) for batch in batches]
        if rows[0] is not None:
            values[name] = torch.cat([torch.nn.functional.pad(row, (0, longest - row.shape[1])) for row in rows])
    return Answers(**values)


def _cat(items: Sequence[Any], name: str) -> Any:
    values = [getattr(item, name) for item in items]
    return None if values[0] is None else torch.cat(values)


def train(
    folder: Path,
    backbone: str,
    checkpoint: Path,
    rule: str,
    strategy: str,
    devices: int,
    ckpt_path: Path | None = None,
    *,
    simulated_ranks: int = 1,
    prompts_per_step: int = 2,
    lora: LoRA | None = None,
    lr: float = 1e-3,
    max_steps: int = 2,
    save_every: int | None = None,
    exclude_frozen_parameters: bool = False,
    sampler: Literal["uniform", "adaptive"] = "uniform",
) -> dict[str, Any]:
    """Train and return losses, codes, the folder of the exported model and the number of skipped steps.

    For a process of its own: Gumbel noise is replaced by a constant, since one process and two draw different noise.
    AdamW's `eps` is far above the rounding of gradients: where a gradient is almost zero, the default would divide
    rounding by itself, and two sums in another order would give steps of up to `lr` in opposite directions.
    """
    register()
    gumbel_softmax: Any = sys.modules[showo_backbone.straight_through.__module__]
    gumbel_softmax.gumbel = lambda like, generator=None: torch.full_like(like, 0.5)
    model = Recorder(
        BACKBONES[backbone](str(checkpoint)),
        update_rule(rule),
        [Likelihood()],
        None if backbone == "tiny" else ShapesJudge(),
        ROLLOUT,
        EvaluationConfig(num_understanding=3, num_diversity_prompts=1),
        optimizer=lambda p: torch.optim.AdamW(p, lr=lr, eps=1e-4),
        lora=lora,
        exclude_frozen_parameters=exclude_frozen_parameters,
    )
    model.simulated_ranks = simulated_ranks
    data = PromptsDataModule(
        ShapesPrompts(),
        prompts_per_step=prompts_per_step,
        steps_per_epoch=4,
        num_val_prompts=max(3, devices),
        val_batch_size=2,
        sampler=sampler,
    )
    guards = Guards()
    saving = [ModelCheckpoint(folder, "{step}", every_n_train_steps=save_every, save_top_k=-1)] if save_every else []
    trainer = AtomicTrainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        default_root_dir=folder,
        max_steps=max_steps,
        max_epochs=1,
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        enable_checkpointing=save_every is not None,
        callbacks=[*saving, guards, ExportPretrained()],
    )
    trainer.fit(model, data, ckpt_path=None if ckpt_path is None else str(ckpt_path))
    exported = Path(str(trainer.log_dir)) / "pretrained"
    return {"losses": model.losses, "codes": model.codes, "exported": exported, "skipped": guards.non_finite.skipped}
