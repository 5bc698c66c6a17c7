"""`unirl sample`: generates images from prompts, and asks about them."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from unirl.cli.messages import CommandParser
from unirl.cli.sample_backbone import choose_backbone
from unirl.cli.sample_output import Output, Requested
from unirl.errors import UserError
from unirl.hooks.host import host

if TYPE_CHECKING:
    import torch

    from unirl.backbones import Backbone, SamplingConfig
    from unirl.types import AnswerSampling, Example, ImageSampling

DEFAULT_CHECKPOINT = "unirl_shapes:checkpoints/{}"
MAX_WARNINGS = 10
"""Texts with unknown words that are named."""


def main(argv: list[str]) -> None:
    """Generate images for each prompt, and write them with prompts, questions and answers as one PNG, or one by one.

    The answers go to stdout, one a line in the order of the images; everything else goes to stderr. Image k of a prompt
    depends on the seed, the prompt and k, and not on what else is generated. With `--best-of N`, each image is the one
    of N in which the model's own answer is most probably the expected one.

    Args:
        argv: Arguments after `unirl sample`.

    Raises:
        UserError: the checkpoint, a name or a number is wrong.
    """
    options = _parse(argv)
    output = Output(options.out, options.json, options.prompts)
    _sample(options, output)
    _tell(f"wrote {output.out}")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="unirl sample",
        description="Generate images from prompts. Sampling settings that are not given are those of the checkpoint, "
        "by which it was measured. Answers go to stdout, one a line; everything else goes to stderr.",
    )
    parser.add_argument("--prompt", action="append", help="a prompt; can be given several times")
    where = "a PNG with all images, or a folder with a / at its end for a PNG of each"
    parser.add_argument("--out", required=True, metavar="FILE.png|FOLDER/", help=where)
    asked = "asked about each image, the answer is written below it; one, or one for each prompt"
    parser.add_argument("--question", action="append", help=asked)
    expected = "the expected answer; its probability is printed. One, or one for each prompt"
    parser.add_argument("--answer", action="append", help=expected)
    source = (
        "without --prompt, all prompts of a file: .jsonl, or .txt with one prompt per line. With --prompt, a source "
    )
    source += "of prompts, a registered name or a .jsonl file, whose question and expected answer are taken"
    parser.add_argument("--prompts", metavar="FILE|NAME", help=source)
    best = "generate N images in place of each, and keep the one whose expected answer the model finds most probable"
    parser.add_argument("--best-of", type=int, metavar="N", help=best)
    parser.add_argument(
        "--backbone", help="a registered backbone (default: that of the checkpoint, or showo without one)"
    )
    checkpoint = DEFAULT_CHECKPOINT.format("BACKBONE")
    parser.add_argument("--checkpoint", help=f"folder, package:folder or hub id (default: {checkpoint})")
    parser.add_argument("--n", type=int, default=1, help="images for each prompt (default: 1)")
    parser.add_argument("--steps", type=int, help="sampling steps of a masked model")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance; 0 is none")
    parser.add_argument("--temperature", type=float, help="of image codes")
    order = "noise on the order in which a masked model fixes codes; 1e9 is a random order"
    parser.add_argument("--confidence-noise", type=float, help=order)
    parser.add_argument("--answer-temperature", type=float, help="of answers; 0 takes the most likely token")
    parser.add_argument("--max-tokens", type=int, help="longest answer in tokens")
    seed = "image k of a prompt depends on the seed, the prompt and k, and not on what else is generated (default: 0)"
    parser.add_argument("--seed", type=int, default=0, help=seed)
    parser.add_argument("--batch-size", type=int, default=16, help="images that are generated at once (default: 16)")
    document = "write prompts, answers, scores and settings to this file; - is stdout, in place of the answers"
    parser.add_argument("--json", metavar="FILE|-", help=document)
    devices = "auto (a GPU if there is one), cpu, cuda, cuda:1 or another device of PyTorch (default: auto)"
    parser.add_argument("--device", default="auto", help=devices)
    precision = "32, or bf16 for matrix products in 16 bits, as trainer.precision bf16-mixed (default: 32)"
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help=precision)
    return parser.parse_args(argv)


def _sample(options: argparse.Namespace, output: Output) -> None:
    from unirl.cli.sample_examples import requested_examples  # noqa: PLC0415
    from unirl.training.best_of import number_images  # noqa: PLC0415 - `--help` needs no torch

    requested = requested_examples(options)
    device = choose_device(options.device)
    name = choose_backbone(options.backbone, options.checkpoint)
    backbone = _load(name, options.checkpoint).to(device)
    config = _sampling_config(options, backbone.sampling_config)
    _tell(f"sampling: {_describe(config.image_sampling)}; answers: {_describe(config.answer_sampling)}")
    _tell_unknown_words(backbone, requested)
    for prompt in filter(_is_prompts_file, options.prompt or ()):
        _tell(f"warning: --prompt {prompt!r} is the prompt itself; --prompts {prompt} samples those in the file")
    places = [(i, k) for i in range(len(requested)) for k in range(options.n)]
    numbers = number_images([requested[i] for i, _ in places])
    images = [Requested(requested[i], i, k, number) for (i, k), number in zip(places, numbers, strict=True)]
    _generate(options, backbone, config, images, output)
    settings = {option: getattr(options, option) for option in ("seed", "best_of", "precision")}
    checkpoint = options.checkpoint or DEFAULT_CHECKPOINT.format(name)
    for line in output.finish(
        {"backbone": name, "checkpoint": checkpoint, **settings, "device": str(device), **asdict(config)}
    ):
        _tell(line)


def _generate(
    options: argparse.Namespace,
    backbone: "Backbone",
    config: "SamplingConfig",
    images: Sequence[Requested],
    output: Output,
) -> None:
    """Generate the images in batches, and write each batch."""
    import torch  # noqa: PLC0415 - `--help` needs no torch

    from unirl.cli.sample_examples import report  # noqa: PLC0415
    from unirl.training.best_of import sample  # noqa: PLC0415
    from unirl.training.lengths import clipped_answers  # noqa: PLC0415

    device = next(backbone.parameters()).device
    sampling, num_clipped = (config.image_sampling, config.answer_sampling), 0
    for start in range(0, len(images), options.batch_size):
        rows = slice(start, start + options.batch_size)
        batch = images[rows]
        indices = [image.image_index for image in batch]
        examples = [image.example for image in batch]
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            samples = sample(backbone, examples, options.best_of or 1, *sampling, seed=options.seed, indices=indices)
        output.add(batch, samples)
        if samples.answers is not None:
            clipped = clipped_answers(samples.answers, config.answer_sampling.max_tokens, backbone.eos_token_ids)
            num_clipped += int(clipped.sum())
        for line in report(examples, samples.all_scores):
            _tell(line)
    if num_clipped:
        limit = f"--max-tokens {config.answer_sampling.max_tokens}"
        _tell(f"warning: {num_clipped} of {len(images)} answers were cut off at {limit}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _sampling_config(options: argparse.Namespace, config: "SamplingConfig") -> "SamplingConfig":
    """The settings of the checkpoint, with those that are given as options."""
    names = ("steps", "guidance", "temperature", "confidence_noise")
    images = {name: getattr(options, name) for name in names}
    answers = {"temperature": options.answer_temperature, "max_tokens": options.max_tokens}
    given = [{name: value for name, value in values.items() if value is not None} for values in (images, answers)]
    return replace(
        config,
        image_sampling=replace(config.image_sampling, **given[0]),
        answer_sampling=replace(config.answer_sampling, **given[1]),
    )


def _describe(settings: "ImageSampling | AnswerSampling") -> str:
    return ", ".join(f"{name} {value:g}" for name, value in asdict(settings).items())


def _tell_unknown_words(backbone: "Backbone", examples: "Sequence[Example]") -> None:
    for kind in ("prompt", "question", "answer"):
        texts = dict.fromkeys(getattr(example, kind) for example in examples)
        unknown = {text: words for text in texts if (words := backbone.unknown_words(text))}
        for text, words in islice(unknown.items(), MAX_WARNINGS):
            _tell(f"warning: the model's tokenizer does not know {', '.join(map(repr, words))} of the {kind} {text!r}")
        if len(unknown) > MAX_WARNINGS:
            more = f"{len(unknown) - MAX_WARNINGS} more {kind}s"
            _tell(f"warning: {more} have words that the model's tokenizer does not know")


def _is_prompts_file(text: str) -> bool:
    return text.endswith((".txt", ".jsonl")) and Path(text).expanduser().is_file()


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
        torch.empty(1, dtype=torch.float32, device=device).cpu()  # the device `meta` has no values
    except (RuntimeError, AssertionError, ImportError) as error:  # PyTorch without CUDA raises the second one
        cause = str(error).splitlines()[0].partition(". ")[0]
        raise UserError(
            f"--device {name!r} cannot be used ({cause}); give auto, cpu, or a device of this machine"
        ) from None
    return device


def _load(name: str, checkpoint: str | None) -> "Backbone":
    module, _, cls = host().resolve("backbone", name).rpartition(".")
    backbone: Backbone = getattr(import_module(module), cls).from_pretrained(checkpoint or _shipped(name))
    return backbone.eval()


def _shipped(name: str) -> str:
    """The checkpoint of unirl-shapes for a backbone."""
    from unirl.backbones.checkpoints import locate_local  # noqa: PLC0415 - `--help` needs no torch

    checkpoint = DEFAULT_CHECKPOINT.format(name)
    try:
        locate_local(checkpoint)
    except UserError as error:
        advice = "give --checkpoint with a folder, package:folder or hub id"
        raise UserError(f"--backbone {name}: {advice}, since none is shipped for it ({error})") from None
    return checkpoint
