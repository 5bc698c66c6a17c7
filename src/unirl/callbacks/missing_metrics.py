"""What happens where a metric that is watched has no value: the run goes on, and its checkpoints are saved."""

import re
from functools import partial

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from typing_extensions import override

ALWAYS = ("epoch", "step")
"""What Lightning itself puts into the names of checkpoints."""
_TEMPLATE_NAME = re.compile(r"\{(.*?)[:}]")


class TolerateMissingMetrics(Callback):
    """Keeps a run going where a metric that a callback watches is not there after a validation.

    Lightning ends such a run before anything is saved. A validation may leave a metric out: the accuracy of the
    self-reward has no value where every image is correct. For ModelCheckpoint it is then the worst value, so that a
    checkpoint is saved where there is none; EarlyStopping does not count that validation. A warning names the metric.
    In the name of a checkpoint, a metric without a value is nan, where Lightning writes 0.
    """

    def __init__(self) -> None:
        self._warned: set[str] = set()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint):
                callback._monitor_candidates = partial(_candidates, callback)  # type: ignore[method-assign]
            elif isinstance(callback, EarlyStopping):
                callback.strict = False

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            name = getattr(callback, "monitor", None)
            if isinstance(name, str) and name not in trainer.callback_metrics and name not in self._warned:
                self._warned.add(name)
                rank_zero_warn(
                    f"{type(callback).__name__} watches {name!r}, and this validation has no value of it: for "
                    "ModelCheckpoint it counts as the worst value, and other callbacks ignore the validation"
                )


def template_names(filename: str) -> list[str]:
    """The metrics in a `filename` of ModelCheckpoint.

    Args:
        filename: With names in braces.

    Example:
        >>> template_names("{epoch}-{val/generation/overall:.3f}")
        ['val/generation/overall']
    """
    return [name for name in _TEMPLATE_NAME.findall(filename) if name not in ALWAYS]


def _candidates(callback: ModelCheckpoint, trainer: Trainer) -> dict[str, Tensor]:
    """What ModelCheckpoint compares and puts into names. NaN where Lightning would end the run, or write 0."""
    metrics: dict[str, Tensor] = type(callback)._monitor_candidates(callback, trainer)
    names = set(template_names(callback.filename or ""))
    if trainer.fit_loop.epoch_loop.val_loop._has_run and callback.monitor is not None:
        names.add(callback.monitor)  # NaN is the worst value
    return dict.fromkeys(names, torch.tensor(float("nan"))) | metrics
