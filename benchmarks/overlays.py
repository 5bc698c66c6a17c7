"""What a GPU must hold for each combination of configs/recipes, configs/models and configs/hardware, on fake tensors.

python benchmarks/overlays.py --models janus_pro_7b --hardware 8_gpus
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from forked import run_forked

from unirl.cli.doctor import DryRun
from unirl.distributed import strategies
from unirl.doctor.measure import Measurement, measure
from unirl.doctor.setup import setup_of
from unirl.training import PromptsDataModule, SelfImprovement

CONFIGS = Path(__file__).parents[1] / "configs"


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, str, str], Measurement]:
    parser = argparse.ArgumentParser(description="Peaks of memory of the config overlays, GB a GPU: a Markdown table")
    for folder in ("models", "hardware", "recipes"):
        names = sorted(path.stem for path in (CONFIGS / folder).glob("*.yaml"))
        parser.add_argument(f"--{folder}", nargs="+", choices=names, default=names)
    options = parser.parse_args(arguments)
    print("| | " + " | ".join(f"`{name}`" for name in options.hardware) + " |", flush=True)
    print("|---" * (1 + len(options.hardware)) + "|", flush=True)
    results = {}
    for model in options.models:
        cells = []
        for hardware in options.hardware:
            for recipe in options.recipes:
                (results[recipe, model, hardware],) = run_forked(peak, recipe, model, hardware)
            cells.append(" / ".join(f"{results[one, model, hardware].peak / 1e9:.1f}" for one in options.recipes))
        print(f"| `{model}` | " + " | ".join(cells) + " |", flush=True)
    return results


def peak(recipe: str, model: str, hardware: str) -> Measurement:
    """The peaks of one combination."""
    strategies.register()
    files = (f"recipes/{recipe}.yaml", f"models/{model}.yaml", f"hardware/{hardware}.yaml")
    arguments = [argument for file in files for argument in ("--config", str(CONFIGS / file))]
    run = DryRun(SelfImprovement, PromptsDataModule, ["fit", *arguments])
    return measure(run.model, run.datamodule, setup_of(run.config[run.subcommand].trainer, run.trainer))


if __name__ == "__main__":
    main()
