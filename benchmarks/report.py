"""What the page of a run costs: fits with and without it, in turns.

Run `python benchmarks/report.py` (the packages unirl and unirl-shapes must be installed).
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from unirl import PromptsDataModule, Report, SelfImprovement, UserError
from unirl.backbones.showo import Showo
from unirl.rewards import Keyword
from unirl.training import EvaluationConfig, RolloutConfig
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

HOOKS = ("on_train_batch_end", "on_validation_batch_end", "on_validation_end", "on_fit_end", "state_dict")


class Timed(Report):
    """Adds up the CPU time of its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = dict.fromkeys(HOOKS, 0.0)
        for name in HOOKS:
            setattr(self, name, self._timed(name, getattr(self, name)))

    def _timed(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            began = time.process_time()
            try:
                return hook(*args)
            finally:
                self.seconds[name] += time.process_time() - began

        return call


def fit(folder: Path, steps: int, callbacks: list[Callback]) -> float:
    """CPU seconds of a fit of the embedded world's Show-o, with a validation before and after."""
    sampling, answers = ImageSampling(steps=16, temperature=1.0, confidence_noise=1e9), AnswerSampling(6)
    module = SelfImprovement(
        Showo("unirl_shapes:checkpoints/showo"),
        SFT(end_to_end=False),
        [Keyword()],
        ShapesJudge(),
        RolloutConfig(group_size=8, image_sampling=sampling, answer_sampling=answers),
        EvaluationConfig(num_understanding=60),
    )
    data = PromptsDataModule(ShapesPrompts(), 12, steps_per_epoch=steps, num_val_prompts=120, val_batch_size=60)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    settings = {"accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": -1, "log_every_n_steps": 1}
    logger = CSVLogger(folder)
    trainer = Trainer(logger=logger, callbacks=callbacks, use_distributed_sampler=False, **quiet, **settings)
    began = time.process_time()
    trainer.fit(module, data)
    return time.process_time() - began


def main(argv: list[str] | None = None) -> None:
    """Print the share of a fit that the page takes, and the ratio of fits with and without it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    ratios, shares, parts = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        fit(Path(folder), 1, [Report()])  # what is imported and compiled once counts for neither
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            report, seconds = Timed(), dict[bool, float]()
            for has_page in (repeat % 2 == 0, repeat % 2 == 1):
                seconds[has_page] = fit(Path(folder), options.steps, [report] if has_page else [])
        with_page, without = seconds[True], seconds[False]
        ratios.append(with_page / without)
        shares.append(sum(report.seconds.values()) / with_page)
        parts.append(report.seconds)
        print(f"with the page {with_page:.1f} s of CPU, without {without:.1f} s", flush=True)
    print(f"with / without: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"share of the page's hooks: {100 * min(shares):.2f} to {100 * max(shares):.2f} %")
    for name in HOOKS:
        print(f"  {name}: {1000 * statistics.median(part[name] for part in parts):.1f} ms in a run")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
