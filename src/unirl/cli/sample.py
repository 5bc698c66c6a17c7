"""`unirl sample`: generates images from prompts, and asks about them."""

import argparse
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from unirl.cli.messages import CommandParser
from unirl.errors import UserError
from unirl.hooks.host import host

if TYPE_CHECKING:
    from unirl.backbones import Backbone

DEFAULT_CHECKPOINT = "unirl_shapes:checkpoints/{}"


def main(argv: list[str]) -> None:
    """Generate images for each prompt, and write them with prompts and answers as one PNG.

    Args:
        argv: Arguments after `unirl sample`.

    Raises:
        UserError: the checkpoint, a name or a number is wrong.
    """
    options = _parse(argv)
    out = Path(options.out)
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out!r}: expected a file name that ends in .png")
    if not out.parent.is_dir():
        raise UserError(f"--out {options.out!r}: there is no folder {str(out.parent)!r}; create it first")
    if options.steps < 1 or options.count < 1:
        raise UserError(f"--steps {options.steps} --count {options.count}: both must be at least 1")
    _sample(options, out)
    print(f"wrote {out}")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="unirl sample", description="Generate images from prompts.")
    parser.add_argument("--prompt", action="append", required=True, help="a prompt; can be given several times")
    parser.add_argument("--out", required=True, help="the PNG to write")
    parser.add_argument("--question", help="asked about each image; the answer is written below it")
    parser.add_argument("--backbone", default="showo", help="a registered backbone")
    checkpoint = DEFAULT_CHECKPOINT.format("BACKBONE")
    parser.add_argument("--checkpoint", help=f"folder, package:folder or hub id (default: {checkpoint})")
    parser.add_argument("--count", type=int, default=1, help="images for each prompt (default: 1)")
    parser.add_argument("--steps", type=int, default=16, help="sampling steps of a masked model (default: 16)")
    parser.add_argument("--guidance", type=float, default=0.0, help="classifier-free guidance (default: 0, none)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of image codes (default: 1)")
    order = "noise on the order in which a masked model fixes codes; 1e9 is a random order (default: 1)"
    parser.add_argument("--confidence_noise", type=float, default=1.0, help=order)
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    return parser.parse_args(argv)


def _sample(options: argparse.Namespace, out: Path) -> None:
    from unirl.callbacks.images import Caption, image_grid  # noqa: PLC0415 - `--help` needs no torch
    from unirl.functional.seeding import generator_for  # noqa: PLC0415
    from unirl.training.config import check_image_sampling  # noqa: PLC0415
    from unirl.types import AnswerSampling, ImageSampling  # noqa: PLC0415

    backbone = _load(options.backbone, options.checkpoint or DEFAULT_CHECKPOINT.format(options.backbone))
    prompts = [prompt for prompt in options.prompt for _ in range(options.count)]
    sampling = ImageSampling(options.steps, options.guidance, options.temperature, options.confidence_noise)
    check_image_sampling("sample", backbone, sampling)
    images = backbone.sample_images(prompts, sampling, generator_for("cpu", options.seed, "sample"))
    pixels = backbone.decode(images).detach()
    images = replace(images, pixels=pixels)
    answers = [""] * len(prompts)
    if options.question:
        answers = list(backbone.sample_answers(images, [options.question] * len(prompts), AnswerSampling()).text)
    captions = [Caption(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    image_grid(pixels, captions).save(out)


def _load(name: str, checkpoint: str) -> "Backbone":
    module, _, cls = host().resolve("backbone", name).rpartition(".")
    backbone: Backbone = getattr(import_module(module), cls).from_pretrained(checkpoint)
    return backbone.eval()
