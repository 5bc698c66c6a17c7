"""Quality control of self-generated data: which samples a model should not train on."""

import json
from collections import Counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from unirl.callbacks.results import run_dir
from unirl.errors import check_range
from unirl.functional.policy_gradient import geometric_mean
from unirl.hooks import hookimpl
from unirl.types import Rollout


class QualityControl(Callback):
    """Drops or down-weights samples before they are trained on, through the hook `unirl_rollout_scored`.

    Logs the fraction of samples with each problem (`quality/frac_duplicate`, `quality/frac_low_confidence`,
    `quality/frac_saturated`) and the mean weight (`quality/mean_weight`). Rank 0 also writes a line for each of its
    dropped samples to `quality.jsonl` in the folder of the run, if it has one.

    Args:
        duplicate_weight: Weight of an image that is already in its group: 1 keeps duplicates, 0 drops them. Images that
            are dropped for another reason do not count as the first.
        max_saturation: Largest fraction of strongly colored pixels (chroma above 0.5). Strong guidance and reward
            hacking fill images with color. None switches the check off.
        min_confidence: Smallest probability that the model gives its own answer, as the geometric mean over tokens. 0
            switches the check off.
        down_weight: Weight answers below `min_confidence` by their probability instead of dropping them.

    Raises:
        UserError: a number is outside [0, 1].

    Example:
        >>> QualityControl(min_confidence=0.3).duplicate_weight
        0.0
    """

    def __init__(
        self,
        duplicate_weight: float = 0.0,
        max_saturation: float | None = None,
        min_confidence: float = 0.5,
        down_weight: bool = False,
    ) -> None:
        check_range(0, 1, "QualityControl", duplicate_weight=duplicate_weight, min_confidence=min_confidence)
        check_range(0, 1, "QualityControl", max_saturation=1.0 if max_saturation is None else max_saturation)
        self.duplicate_weight, self.down_weight = duplicate_weight, down_weight
        self.max_saturation, self.min_confidence = max_saturation, min_confidence
        self._module: Any = None
        self._dropped: list[dict[str, Any]] = []
        self._metrics: dict[str, float] = {}

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What it may log, by its settings."""
        checks = {
            "saturated": self.max_saturation is not None,
            "low_confidence": self.min_confidence,
            "duplicate": True,
        }
        return (*(f"quality/frac_{name}" for name, checked in checks.items() if checked), "quality/mean_weight")

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._module = pl_module

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> Tensor:
        """Weight the samples of a rollout in the loss.

        Shapes:
            returns (B,), in [0, 1].
        """
        weights = torch.ones_like(rollout.scores)
        problems: dict[str, Tensor] = {}
        if self.max_saturation is not None:
            problems["saturated"] = saturation(self._pixels(rollout)) > self.max_saturation
            weights[problems["saturated"]] = 0
        confidence = answer_confidence(rollout)
        if self.min_confidence and confidence is not None:
            problems["low_confidence"] = confidence < self.min_confidence
            factor = confidence if self.down_weight else 0
            weights = torch.where(problems["low_confidence"], weights * factor, weights)
        problems["duplicate"] = is_duplicate(rollout.images.codes, rollout.group_size, weights > 0)
        weights = torch.where(problems["duplicate"], weights * self.duplicate_weight, weights)
        self._record(rollout, problems, weights)
        return weights

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._metrics:
            pl_module.log_dict({f"quality/{name}": value for name, value in self._metrics.items()}, sync_dist=True)
        folder = run_dir(trainer)  # collective
        if self._dropped and folder is not None and trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "quality.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": trainer.global_step, **row}) + "\n" for row in self._dropped)
        self._dropped, self._metrics = [], {}

    def _pixels(self, rollout: Rollout) -> Tensor:
        if rollout.images.pixels is not None:
            return rollout.images.pixels
        return self._module.backbone.decode(rollout.images)

    def _record(self, rollout: Rollout, problems: dict[str, Tensor], weights: Tensor) -> None:
        self._metrics = {f"frac_{name}": rows.float().mean().item() for name, rows in problems.items()}
        self._metrics["mean_weight"] = weights.mean().item()
        # Lists first: each number that is read alone waits for the device.
        answers = rollout.first_answers.text
        scores, found = rollout.scores.tolist(), {name: rows.tolist() for name, rows in problems.items()}
        for i, weight in enumerate(weights.tolist()):
            if weight < 1:
                self._dropped.append(
                    {
                        "prompt": rollout.examples[i].prompt,
                        "answer": answers[i],
                        "score": scores[i],
                        "weight": weight,
                        "problems": [name for name, rows in found.items() if rows[i]],
                    }
                )


def is_duplicate(codes: Tensor, group_size: int, counts: Tensor | None = None) -> Tensor:
    """Whether an earlier image of the same group has the same codes.

    Args:
        codes: Image codes, prompt-major.
        group_size: Images of each prompt.
        counts: Which images count as earlier ones; all by default.

    Shapes:
        codes (B, N), counts (B,) bool; returns (B,) bool.

    Example:
        >>> is_duplicate(torch.tensor([[1, 2], [1, 2], [1, 2], [3, 4]]), 2).tolist()
        [False, True, False, False]
    """
    seen: Counter[tuple[int, ...]] = Counter()
    duplicate = []
    counted = [True] * len(codes) if counts is None else counts.tolist()
    for i, row in enumerate(codes.tolist()):
        key = (i // group_size, *row)
        duplicate.append(seen[key] > 0)
        seen[key] += counted[i]
    return torch.tensor(duplicate, device=codes.device)


def saturation(pixels: Tensor, chroma: float = 0.5) -> Tensor:
    """Fraction of pixels whose chroma, the difference of their largest and smallest channel, is above a threshold.

    Args:
        pixels: RGB images in [0, 1].
        chroma: The threshold.

    Shapes:
        pixels (B, 3, H, W); returns (B,).

    Example:
        >>> saturation(torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1)).tolist()
        [1.0]
    """
    return ((pixels.amax(1) - pixels.amin(1)) > chroma).float().mean((1, 2))


def answer_confidence(rollout: Rollout) -> Tensor | None:
    """Geometric mean of the probabilities of an answer's tokens; None where they are not known.

    Where there are several questions about an image, it is the mean over them.

    Shapes:
        returns (B,), in [0, 1].
    """
    answers = rollout.answers
    if answers.log_probs is None:
        return None
    confidence = geometric_mean(answers.log_probs, answers.mask) * rollout.answer_weights
    return confidence.view(len(rollout), -1).sum(1)
