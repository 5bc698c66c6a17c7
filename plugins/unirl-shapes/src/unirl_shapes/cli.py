"""The command `unirl-shapes`: pre-training and measuring of the tiny models."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import product
from pathlib import Path

from unirl import UserError
from unirl_shapes.vocabulary import ALL_CATEGORIES, CATEGORIES

SHIPPED = "unirl_shapes:checkpoints/showo"
STEPS = {"showo": 5000, "janus": 6200, "clip": 6000, "features": 1500}
"""Default training steps, without those of the image tokenizers of showo and janus."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command. Errors of the user are printed in one line.

    Args:
        argv: Arguments. Defaults to those of the process.
    """
    try:
        options = _parser().parse_args(argv)
        options.run(options)
    except UserError as error:
        print(f"unirl-shapes: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unirl-shapes", description="The shapes world of unirl: tiny models that run without a GPU."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pretrain = commands.add_parser("pretrain", help="pre-train a base model on rendered images; resumes an earlier run")
    pretrain.add_argument("model", choices=["showo", "janus", "clip", "features"])
    pretrain.add_argument("--out", type=Path, required=True, help="folder of logs, training states and the checkpoint")
    pretrain.add_argument("--steps", type=int, help=f"default: {', '.join(f'{n} for {m}' for m, n in STEPS.items())}")
    pretrain.add_argument("--tokenizer-steps", type=int, default=3000, help="(default: %(default)s)")
    pretrain.add_argument(
        "--init", metavar="CHECKPOINT", help="of showo and janus: continue the pre-training of this model"
    )
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    pretrain.set_defaults(run=_pretrain)
    measure = commands.add_parser(
        "measure", help="measure generation, understanding and self-reward with each given sampling setting"
    )
    measure.add_argument("--checkpoint", default=SHIPPED, help="(default: %(default)s)")
    measure.add_argument(
        "--count", type=int, default=360, help="generated images, and rendered ones (default: %(default)s)"
    )
    for option, kind, text in (
        ("--steps", int, "denoising steps; ignored by Janus"),
        ("--guidance", float, "classifier-free guidance"),
        ("--temperature", float, "of image codes"),
        ("--noise", float, "confidence noise; ignored by Janus"),
    ):
        measure.add_argument(option, type=kind, nargs="+", help=f"{text} (default: the checkpoint's own)")
    measure.add_argument("--seed", type=int, default=0)
    measure.add_argument(
        "--split",
        choices=("held_out", "train"),
        default="held_out",
        help="prompts and questions; choose settings on train",
    )
    measure.add_argument(
        "--best-of", type=int, default=1, help="images of each prompt, of which the model picks one (default: 1)"
    )
    measure.add_argument(
        "--categories",
        nargs="+",
        choices=ALL_CATEGORIES,
        default=CATEGORIES,
        metavar="CATEGORY",
        help="what is measured: complex, or some of the six of GenEval, which are the default",
    )
    measure.set_defaults(run=_measure)
    return parser


def _pretrain(options: argparse.Namespace) -> None:
    continues = options.model in ("showo", "janus")
    if options.init and not continues:
        raise UserError(f"pretrain {options.model} starts with random weights; --init is for showo and janus")
    import torch  # noqa: PLC0415 - stays out of --help

    torch.set_num_threads(options.threads)
    steps = options.steps or STEPS[options.model]
    module = import_module(f"unirl_shapes.pretrain.{options.model}")
    more = (options.tokenizer_steps, options.seed, options.init) if continues else (options.seed,)
    getattr(module, f"pretrain_{options.model}")(options.out, steps, *more)


def _measure(options: argparse.Namespace) -> None:
    from unirl import ImageSampling  # noqa: PLC0415 - torch stays out of --help
    from unirl_shapes.pretrain.measure import load, measure  # noqa: PLC0415

    backbone = load(options.checkpoint).eval()
    names = ["overall", *options.categories]
    print(f"{'steps guid. temp. noise':<24} {'':14}" + "".join(f"{name:>14}" for name in names))
    own = backbone.sampling_config.image_sampling
    for steps, guidance, temperature, noise in product(
        options.steps or [own.steps],
        options.guidance or [own.guidance],
        options.temperature or [own.temperature],
        options.noise or [own.confidence_noise],
    ):
        sampling = ImageSampling(steps, guidance, temperature, noise)
        values = measure(
            backbone, options.count, sampling, options.seed, options.split, options.best_of, options.categories
        )
        setting = f"{steps:>5} {guidance:>5} {temperature:>5} {noise:>5g}"
        for task in ("generation", "understanding", "self_reward"):
            row = [values.get(task if name == "overall" else f"{task}/{name}") for name in names]
            print(f"{setting:<24} {task:14}" + "".join(f"{'-' if v is None else f'{v:.3f}':>14}" for v in row))
            setting = ""
