"""`unirl evaluate`: a benchmark's images by any checkpoint, judged, with a score that comes again."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, Trainer
from rich.console import Console
from typing_extensions import override

from unirl.backbones import Backbone
from unirl.backbones.sampling_config import SamplingConfig
from unirl.benchmark.comparison import compare
from unirl.benchmark.runner import evaluate, make_trainer
from unirl.benchmark.scores import RESULTS, BenchmarkResults
from unirl.callbacks.status import clock
from unirl.cli.parser import PluginParser
from unirl.cli.run_errors import translate
from unirl.distributed import strategies
from unirl.errors import UserError
from unirl.hooks.arguments import registered_name
from unirl.judges import Judge
from unirl.report.page import REPORT

DEFAULT_CHECKPOINT = "unirl_shapes:checkpoints/{}"
USAGE = """usage: unirl evaluate --benchmark NAME --out FOLDER [--checkpoint FOLDER|ID] [options]
       unirl evaluate --benchmark NAME --out FOLDER --judge-only    judge the images that are in FOLDER
       unirl evaluate --compare A B                                 A, B: folders of results, or several by commas
"""
FLAGS = ("judge_only",)


class Options:
    """Options of `unirl evaluate`.

    Args:
        benchmark: A judge with prompts or questions of its own, such as shapes, geneval or vqa.
        out: Folder of images, verdicts and results. The same command goes on where it was stopped.
        backbone: The model: a registered name, with its options below it.
        images: Images of each prompt.
        batch_size: Images generated at a time.
        seed: Of the images: each is seeded by (seed, prompt, number).
        judge_only: Judge the images that are in `out`, in GenEval's layout.
        num_understanding: Questions about given images, of benchmarks that make as many as they are asked for.
        limit: The first so many prompts only, for trials.
        steps: Sampling steps of a masked model. By default as the checkpoint says, like the next five.
        guidance: Classifier-free guidance; 0 is none.
        temperature: Of image codes.
        confidence_noise: Noise on the order in which a masked model fixes codes.
        max_tokens: Longest answer in tokens.
        accelerator: Of Lightning: auto, cpu, gpu.
        devices: Processes of each machine: a number, or auto.
        num_nodes: Machines.
        strategy: Of Lightning: auto, ddp.
        precision: Of Lightning: 32-true, bf16-mixed.
    """

    def __init__(
        self,
        benchmark: Judge,
        out: str,
        backbone: Backbone | None = None,
        images: int = 4,
        batch_size: int = 16,
        seed: int = 0,
        judge_only: bool = False,
        num_understanding: int = 240,
        limit: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        confidence_noise: float | None = None,
        max_tokens: int | None = None,
        accelerator: str = "auto",
        devices: int | str = 1,
        num_nodes: int = 1,
        strategy: str = "auto",
        precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    ) -> None:
        self.values = {name: value for name, value in locals().items() if name != "self"}


def main(argv: list[str]) -> None:
    """Evaluate a model on a benchmark, or compare two evaluations.

    Args:
        argv: Arguments after `unirl evaluate`.

    Raises:
        UserError: an argument is wrong, or the evaluation cannot be made.
    """
    if {"-h", "--help"} & set(argv):
        print(USAGE + _help())
        return
    if "--compare" in argv:
        _compare(argv)
        return
    parser = PluginParser(prog="unirl evaluate", description="Evaluate a model on a benchmark.")
    parser.add_class_arguments(Options, as_group=False)
    parser.add_argument("--config", action="config", help="a file of these options")
    parsed = parser.parse_args(list(_arguments(argv)))
    name = registered_name("judge", parsed.benchmark.class_path)
    values = dict(parser.instantiate_classes(parsed))
    values.pop("config", None)
    _print(_evaluate(values, name), Path(values["out"]))


def _arguments(argv: list[str]) -> Iterator[str]:
    """Hyphens in options become underscores, flags get a value, and `--checkpoint` is the backbone's."""
    if not argv:
        raise UserError("give --benchmark NAME and --out FOLDER; see `unirl evaluate --help`")
    checkpoint, words = None, iter(argv)
    given = []
    for word in words:
        option, equals, value = word.partition("=")
        if option == "--checkpoint":
            checkpoint = value if equals else next(words, "")
            continue
        if option.startswith("--"):
            head, dot, rest = option[2:].partition(".")
            option = f"--{head.replace('-', '_')}{dot}{rest}"
        is_flag = option[2:] in FLAGS and not equals
        given.append(f"{option}=true" if is_flag else f"{option}{equals}{value}")
    names = [word.partition("=")[0] for word in given]
    if "--judge_only=true" not in given:
        if "--backbone" not in names and "--config" not in names:
            given.append("--backbone=showo")
        if checkpoint is None and not any(name.startswith(("--backbone.", "--config")) for name in names):
            chosen = dict(zip(given, [*given[1:], ""], strict=True))
            backbone = next((w.partition("=")[2] or chosen[w] for w in given if w.startswith("--backbone")), "showo")
            checkpoint = DEFAULT_CHECKPOINT.format(backbone)
        if checkpoint is not None:
            given.append(f"--backbone.init_args.checkpoint={checkpoint}")
    yield from given


def _evaluate(values: dict[str, Any], name: str) -> BenchmarkResults:
    backbone = None if values.pop("judge_only") else values["backbone"]
    strategies.register()
    values |= {"backbone": backbone, "name": name, "trainer": _trainer(values)}
    sampling = {key: values.pop(key) for key in ("steps", "guidance", "temperature", "confidence_noise")}
    max_tokens = values.pop("max_tokens")
    with translate():
        if backbone is not None:
            backbone.build()
            own: SamplingConfig = backbone.sampling_config
            given = {key: value for key, value in sampling.items() if value is not None}
            values["image_sampling"] = replace(own.image_sampling, **given)
            if max_tokens is not None:
                values["answer_sampling"] = replace(own.answer_sampling, max_tokens=max_tokens)
            settings = ", ".join(f"{key} {value:g}" for key, value in asdict(values["image_sampling"]).items())
            print(f"sampling: {settings}", file=sys.stderr)
        return evaluate(**values)


def _trainer(values: dict[str, Any]) -> Trainer:
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    options = {key: values.pop(key) for key in names}
    if str(options["devices"]).isdecimal():
        options["devices"] = int(options["devices"])
    with translate():
        return make_trainer(**options, enable_progress_bar=sys.stderr.isatty(), callbacks=[_Lines()])


class _Lines(Callback):
    """A line every half minute where the output is not a terminal."""

    def __init__(self, interval: float = 30.0) -> None:
        self.interval, self._began, self._last = interval, 0.0, 0.0

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._began = self._last = time.monotonic()

    @override
    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        now, total = time.monotonic(), int(trainer.num_predict_batches[0])
        if sys.stderr.isatty() or not trainer.is_global_zero or now - self._last < self.interval:
            return
        self._last = now
        left = (now - self._began) / (batch_idx + 1) * (total - batch_idx - 1)
        print(f"batch {batch_idx + 1} of {total}, {clock(left)} left", file=sys.stderr, flush=True)


def _print(results: BenchmarkResults, folder: Path) -> None:
    console = Console()
    if results.scores:
        console.print(results.table())
    if results.understanding:
        for name, value in results.understanding["accuracy"].items():
            error = results.understanding["standard_error"][name]
            print(f"understanding, {name}: {100 * value:.1f} ± {100 * error:.1f}")
        for name, value in results.understanding.get("yes_no", {}).items():
            print(f"yes/no questions, {name}: {100 * value:.1f}")
    for warning in results.warnings:
        print(f"warning: {warning}")
    print(f"results, with the verdict and reason of each image: {folder / RESULTS}")
    print(f"the same as a page, with the images: {folder / REPORT}")


def _compare(argv: list[str]) -> None:
    rest = [word for word in argv if word != "--compare"]
    if len(rest) != 2 or any(word.startswith("--") for word in rest):
        raise UserError("--compare takes two folders of `unirl evaluate`, or two lists of them with commas")
    comparison = compare(rest[0].split(","), rest[1].split(","))
    Console().print(comparison.table())
    for note in comparison.notes:
        print(f"note: {note}")


def _help() -> str:
    lines = (Options.__doc__ or "").partition("Args:\n")[2].splitlines()
    return "\n" + "\n".join(
        line.replace("        ", "  --", 1) if line.startswith("        ") else line for line in lines
    )
