"""`unirl sample`: generates images from prompts, and asks about them."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from unirl.cli.messages import CommandParser
from unirl.errors import UserError
from unirl.hooks.host import host

if TYPE_CHECKING:
    import torch

    from unirl.backbones import Backbone

DEFAULT_CHECKPOINT = "unirl_shapes:checkpoints/{}"


def main(argv: list[str]) -> None:
    """Generate images for each prompt, and write them with prompts and answers as one PNG.

    With `--best-of N`, each image is the one of N in which the model's own answer is most probably the expected one.

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
    asked = "asked about each image, the answer is written below it; one, or one for each prompt"
    parser.add_argument("--question", action="append", help=asked)
    expected = "the expected answer; its probability is printed. One, or one for each prompt"
    parser.add_argument("--answer", action="append", help=expected)
    source = "take question and expected answer from this source of prompts: a registered name, or a .jsonl file"
    parser.add_argument("--prompts", help=source)
    best = "generate N images in place of each, and keep the one whose expected answer the model finds most probable"
    parser.add_argument("--best-of", type=int, metavar="N", help=best)
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
    devices = "auto (a GPU if there is one), cpu, cuda, cuda:1 or another device of PyTorch (default: auto)"
    parser.add_argument("--device", default="auto", help=devices)
    precision = "32, or bf16 for matrix products in 16 bits, as trainer.precision bf16-mixed (default: 32)"
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help=precision)
    return parser.parse_args(argv)


def _sample(options: argparse.Namespace, out: Path) -> None:
    import torch  # noqa: PLC0415 - `--help` needs no torch

    from unirl.callbacks.images import Caption, image_grid  # noqa: PLC0415
    from unirl.cli.best_of import best_of, generate, report, requested_examples  # noqa: PLC0415
    from unirl.functional.seeding import generator_for  # noqa: PLC0415
    from unirl.training.config import check_image_sampling  # noqa: PLC0415
    from unirl.types import ImageSampling  # noqa: PLC0415

    requested = requested_examples(options)
    device = choose_device(options.device)
    backbone = _load(options.backbone, options.checkpoint or DEFAULT_CHECKPOINT.format(options.backbone)).to(device)
    prompts = [prompt for prompt in options.prompt for _ in range(options.count)]
    examples = [example for example in requested or () for _ in range(options.count)]
    sampling = ImageSampling(options.steps, options.guidance, options.temperature, options.confidence_noise)
    check_image_sampling("sample", backbone, sampling)
    generator = generator_for(device, options.seed, "sample")
    with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
        best, scores = best_of(lambda: generate(backbone, prompts, examples, sampling, generator), options.best_of or 1)
    captions = [Caption(prompt, answer) for prompt, answer in zip(prompts, best.answers, strict=True)]
    image_grid(best.pixels, captions).save(out)
    for line in report(examples, scores):
        print(line)


def choose_device(name: str) -> "torch.device":
    """The device that a name means.

    Args:
        name: "auto" for a GPU if there is one, or a device of PyTorch.

    Raises:
        UserError: there is no such device.
    """
    import torch  # noqa: PLC0415 - `--help` needs no torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch without CUDA raises the second one
        cause = str(error).splitlines()[0]
        raise UserError(
            f"--device {name!r} cannot be used ({cause}); give auto, cpu, or a device of this machine"
        ) from None
    return device


def _load(name: str, checkpoint: str) -> "Backbone":
    module, _, cls = host().resolve("backbone", name).rpartition(".")
    backbone: Backbone = getattr(import_module(module), cls).from_pretrained(checkpoint)
    return backbone.eval()
