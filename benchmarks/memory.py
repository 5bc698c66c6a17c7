"""The doctor's peak of memory on fake tensors against the measured peak of a really run step.

python benchmarks/memory.py
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import checkpoints
import short_runs
from forked import run_forked

from unirl.doctor.measure import measure
from unirl.doctor.setup import Setup

SIZES = ("tiny", "middle", "large")
IMAGES = {"tiny": (12, 8), "middle": (1, 4), "large": (1, 2)}
"""Prompts of a step and images of each: enough for activations to matter beside weights."""
CASES = (("showo", False), ("showo", True), ("janus", False), ("janus", True))
"""Backbone, and whether gradient checkpointing is used."""
LINE = "{:<6} {:<7} {:<14} {:<22} {:>9} {:>13} {:>13} {:>6}"


@dataclass(frozen=True)
class Comparison:
    """Bytes of the phase with the largest peak.

    Args:
        phase: Its name.
        fake: On fake tensors.
        real: Of all tensors while the step was run.
    """

    phase: str
    fake: float
    real: float

    @property
    def ratio(self) -> float:
        return self.fake / self.real


def main(arguments: Sequence[str] | None = None) -> dict[tuple[Any, ...], Comparison]:
    parser = argparse.ArgumentParser(description="The peak of memory on fake tensors against that of a really run step")
    parser.add_argument("--size", choices=SIZES, nargs="+", default=SIZES)
    parser.add_argument("--only", choices=("showo", "janus"))
    parser.add_argument("--rule", choices=short_runs.RULES, nargs="+", default=short_runs.RULES)
    options = parser.parse_args(arguments)
    columns = ("size", "model", "rule", "gradient_checkpointing", "phase", "fake, MB", "run, MB", "ratio")
    print(LINE.format(*columns), flush=True)
    results = {}
    for size in options.size:
        for (backbone, checkpointing), rule in product(CASES, short_runs.RULES):
            if rule in options.rule and options.only in (None, backbone):
                result = results[size, backbone, rule, checkpointing] = compare(backbone, size, rule, checkpointing)
                cells = result.phase, f"{result.fake / 1e6:.0f}", f"{result.real / 1e6:.0f}", f"{result.ratio:.2f}"
                print(LINE.format(size, backbone, rule, "yes" if checkpointing else "no", *cells), flush=True)
    return results


def compare(backbone: str, size: str, rule: str, checkpointing: bool) -> Comparison:
    """Measure one case both ways, each in a process of its own."""
    with TemporaryDirectory() as folder:
        run_forked(checkpoints.write, backbone, size, Path(folder))
        case = (backbone, size, rule, checkpointing, Path(folder))
        (fake,), (real,) = (run_forked(peaks, *case, is_real) for is_real in (False, True))
    phase = max(real, key=real.__getitem__)
    return Comparison(phase, fake[phase], real[phase])


def peaks(backbone: str, size: str, rule: str, checkpointing: bool, folder: Path, real: bool) -> dict[str, int]:
    """Peaks of a step by phase, without a validation."""
    prompts, group_size = IMAGES[size]
    model = short_runs.make_model(short_runs.make_backbone(backbone, folder, checkpointing), rule, group_size)
    return measure(model, short_runs.make_data(prompts), Setup("cpu", validates=False), real=real).peaks


if __name__ == "__main__":
    main()
