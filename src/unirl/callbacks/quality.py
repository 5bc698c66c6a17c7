"""Quality control of self-made data: what a model should not learn from."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from unirl.errors import check_range
from unirl.functional.policy_gradient import geometric_mean
from unirl.hooks import hookimpl
from unirl.types import Rollout


class QualityControl(Callback):
    """Drops drawings, or counts them less, before anything is learnt from them; the user of `unirl_rollout_scored`.

    What was dropped and why goes to the logs as shares (`quality/...`), and to `quality.jsonl` in the run's folder one
    line a sample of the first process; a run without a logger has no such folder.

    Args:
        duplicates: A drawing that its group has already counts this much; 1 keeps all, 0 keeps the first only, of
            those that are not dropped for something else.
        saturation: Largest share of strongly colored pixels (chroma above a half); None does not look. Guidance and
            rewards that are gamed fill pictures with color.
        confidence: Least probability that the model gives its own answer (geometric mean over tokens); 0 takes all.
        down_weight: Answers below `confidence` count by their probability instead of not at all.

    Raises:
        UserError: a number outside [0, 1].
    """

    def __init__(
        self,
        duplicates: float = 0.0,
        saturation: float | None = None,
        confidence: float = 0.5,
        down_weight: bool = False,
    ) -> None:
        check_range(0, 1, "QualityControl", duplicates=duplicates, confidence=confidence)
        check_range(0, 1, "QualityControl", saturation=1.0 if saturation is None else saturation)
        self.duplicates, self.saturation, self.confidence = duplicates, saturation, confidence
        self.down_weight = down_weight
        self._module: Any = None
        self._dropped: list[dict[str, Any]] = []
        self._shares: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._module = pl_module

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> Tensor:
        weights = torch.ones_like(rollout.scores)
        reasons: dict[str, Tensor] = {}
        if self.saturation is not None:
            reasons["saturated"] = colored_share(self._pixels(rollout)) > self.saturation
            weights[reasons["saturated"]] = 0
        sure = confidence(rollout)
        if self.confidence and sure is not None:
            reasons["unlikely"] = sure < self.confidence
            weights = torch.where(reasons["unlikely"], weights * (sure if self.down_weight else 0), weights)
        reasons["duplicate"] = is_duplicate(rollout.images.codes, rollout.group_size, weights > 0)
        weights = torch.where(reasons["duplicate"], weights * self.duplicates, weights)
        self._note(rollout, reasons, weights)
        return weights

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._shares:
            pl_module.log_dict({f"quality/{name}": value for name, value in self._shares.items()}, sync_dist=True)
        folder = trainer.log_dir  # all processes must ask
        if self._dropped and trainer.loggers and folder is not None and trainer.is_global_zero:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with (Path(folder) / "quality.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": trainer.global_step, **row}) + "\n" for row in self._dropped)
        self._dropped, self._shares = [], {}

    def _pixels(self, rollout: Rollout) -> Tensor:
        if rollout.images.pixels is not None:
            return rollout.images.pixels
        return self._module.backbone.decode(rollout.images)

    def _note(self, rollout: Rollout, reasons: dict[str, Tensor], weights: Tensor) -> None:
        self._shares = {name: which.float().mean().item() for name, which in reasons.items()}
        self._shares["kept"] = weights.mean().item()
        for i in (weights < 1).nonzero().flatten().tolist():
            why = [name for name, which in reasons.items() if which[i]]
            said = {"prompt": rollout.examples[i].prompt, "answer": rollout.answers.text[i]}
            self._dropped.append(said | {"score": rollout.scores[i].item(), "weight": weights[i].item(), "why": why})


def is_duplicate(codes: Tensor, group_size: int, kept: Tensor | None = None) -> Tensor:
    """Whether an earlier drawing of the group, of those that are kept, has the same codes.

    Shapes:
        codes (B, N), prompt-major, kept (B,) bool; returns (B,) bool.

    Example:
        >>> repeats(torch.tensor([[1, 2], [1, 2], [1, 2], [3, 4]]), 2).tolist()
        [False, True, False, False]
    """
    seen: Counter[tuple[int, ...]] = Counter()
    found = []
    counts = [True] * len(codes) if kept is None else kept.tolist()
    for i, row in enumerate(codes.tolist()):
        key = (i // group_size, *row)
        found.append(seen[key] > 0)
        seen[key] += counts[i]
    return torch.tensor(found, device=codes.device)


def colored_share(pixels: Tensor, chroma: float = 0.5) -> Tensor:
    """Share of pixels whose strongest and weakest channel are further apart than `chroma`.

    Shapes:
        pixels (B, 3, H, W) in [0, 1]; returns (B,).
    """
    return ((pixels.amax(1) - pixels.amin(1)) > chroma).float().mean((1, 2))


def confidence(rollout: Rollout) -> Tensor | None:
    """Geometric mean of the probabilities of each answer's tokens, or None where they are not known.

    Shapes:
        returns (B,), in [0, 1].
    """
    answers = rollout.answers
    if answers.log_probs is None:
        return None
    return geometric_mean(answers.log_probs, answers.mask)
