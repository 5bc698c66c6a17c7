"""A short training run of either backbone by either rule, under any strategy; every process writes down what it saw."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.callbacks import ExportPretrained, Guards
from unirl.checkpoint.io import AtomicTrainer
from unirl.distributed.strategies import register
from unirl.functional import relaxation
from unirl.functional.seeding import generator_for
from unirl.rewards.likelihood import Likelihood
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import AnswerSampling, Example, ImageSampling, Rollout
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

BACKBONES = {"showo": Showo, "janus": Janus}
SAMPLING = ImageSampling(steps=3, guidance=0.5, temperature=1.5)


def rule(name: str) -> UpdateRule:
    if name == "sft":
        return SFT(end_to_end=True, straight_through_steps=2)
    return GRPO(beta=0.1, answer_beta=0.5, answers="all")


class Recorder(SelfImprovement):
    """Keeps losses and drawings. Alone, it draws what two processes would draw: with the generators of both."""

    played: int = 1

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        assert self._rollout is not None
        mean = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
        codes = self.all_gather(self._rollout.images.codes).flatten(0, -2)
        self.losses = [*getattr(self, "losses", []), float(mean)]
        self.drawn = [*getattr(self, "drawn", []), codes.tolist()]
        return loss

    def rollout(self, batch: Sequence[Example]) -> Rollout:
        share = len(batch) // self.played
        parts = []
        for rank in range(self.played):
            self.rank = self.global_rank + rank
            parts.append(super().rollout(batch[rank * share : (rank + 1) * share]))
        return parts[0] if self.played == 1 else joined(parts)

    def rng(self, purpose: str, step: int | None = None) -> torch.Generator:
        step = self.trainer.fit_loop.total_batch_idx if step is None else step
        return generator_for(self.device, self.seed, step, getattr(self, "rank", self.global_rank), purpose)


def joined(parts: Sequence[Rollout]) -> Rollout:
    """One rollout of several."""
    longest = max(part.answers.ids.shape[1] for part in parts)
    tensors: dict[str, Any] = {}
    for name in ("scores", "accepted", "contrasts", "weights"):
        values = [getattr(part, name) for part in parts]
        tensors[name] = None if values[0] is None else torch.cat(values)
    images = [part.images for part in parts]
    drawn: dict[str, Any] = {}
    for name in (f.name for f in fields(images[0]) if f.name != "memory"):
        values = [getattr(image, name) for image in images]
        drawn[name] = None if values[0] is None else torch.cat(values)
    drawn["memory"] = {name: torch.cat([image.memory[name] for image in images]) for name in images[0].memory}
    said: dict[str, Any] = {"text": [text for part in parts for text in part.answers.text]}
    for name in ("ids", "mask", "log_probs"):
        rows = [getattr(part.answers, name) for part in parts]
        said[name] = torch.cat([torch.nn.functional.pad(row, (0, longest - row.shape[1])) for row in rows])
    return replace(
        parts[0],
        examples=[example for part in parts for example in part.examples],
        images=replace(images[0], **drawn),
        answers=replace(parts[0].answers, **said),
        score_parts={k: torch.cat([part.score_parts[k] for part in parts]) for k in parts[0].score_parts},
        **tensors,
    )


def train(
    folder: Path,
    kind: str,
    checkpoint: Path,
    name: str,
    strategy: str,
    devices: int,
    ckpt: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Three steps: losses, drawings, and where the model was written.

    For a process of its own: Gumbel noise is fixed here, for one process would draw other noise than two.
    """
    register()
    relaxation.gumbel = lambda like, generator=None: torch.full_like(like, 0.5)  # type: ignore[assignment]
    settings: dict[str, Any] = {"group_size": 2, "sampling": SAMPLING, "answering": AnswerSampling(3), "lr": 1e-3}
    settings |= {"accept": 0.0, "num_understanding": 3, "diversity_prompts": 1} | options.pop("model", {})
    model = Recorder(BACKBONES[kind](str(checkpoint)), rule(name), [Likelihood()], ShapesJudge(), **settings)
    model.played = options.pop("played", 1)
    data = PromptsDataModule(ShapesPrompts(), prompts_per_step=2, steps_per_epoch=4, num_val_prompts=3, val_batch_size=2)
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    guards = Guards()
    trainer = AtomicTrainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        callbacks=[saving, guards, ExportPretrained()],
        **({"max_steps": 3, "max_epochs": 1, "gradient_clip_val": 1.0} | options),
    )
    trainer.fit(model, data, ckpt_path=None if ckpt is None else str(ckpt))
    written = Path(str(trainer.log_dir)) / "pretrained"
    skipped = guards.finite.skipped
    return {"losses": model.losses, "drawn": model.drawn, "pretrained": written, "skipped": skipped}
