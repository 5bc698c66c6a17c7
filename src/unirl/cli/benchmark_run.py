"""What `unirl evaluate` does: options, trainer, table."""

import sys
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from typing_extensions import override

from unirl.backbones import Backbone
from unirl.backbones.sampling_config import SamplingConfig
from unirl.benchmark.paired import compare
from unirl.benchmark.runner import evaluate, make_trainer
from unirl.benchmark.scores import RESULTS, BenchmarkResults
from unirl.callbacks.status import clock
from unirl.cli.lightning_messages import silence_lightning
from unirl.cli.parser import PluginParser
from unirl.cli.run_errors import translate
from unirl.cli.sample_backbone import choose_backbone
from unirl.distributed import strategies
from unirl.errors import UserError
from unirl.hooks.arguments import registered_name
from unirl.judges import Judge
from unirl.report.page import REPORT

DEFAULT_CHECKPOINT = "unirl_shapes:checkpoints/{}"
FLAGS = ("judge_only",)


class Options:
    """Options of `unirl evaluate`.

    Args:
        benchmark: A judge with prompts or questions of its own, such as shapes, geneval or vqa.
        out: Folder of images, verdicts and results. The same command goes on where it was stopped.
        backbone: The model: a registered name, its options below it. By default by the checkpoint's format.
        images: Images of each prompt.
        batch_size: Images generated at a time.
        seed: Of the images: each is seeded by (seed, prompt, number).
        judge_only: Judge the images that are in `out`, in GenEval's layout.
        num_understanding: Questions about given images, of benchmarks that make as many as they are asked for.
        limit: The first so many prompts only, for trials; questions, of a benchmark without prompts.
        steps: Sampling steps of a masked model. By default as the checkpoint says, like the next four.
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


def run(argv: list[str]) -> None:
    """Evaluate a model on a benchmark.

    Args:
        argv: Arguments of `unirl evaluate`.

    Raises:
        UserError: an argument is wrong, or the evaluation cannot be made.
    """
    parser = PluginParser(prog="unirl evaluate", description="Evaluate a model on a benchmark.")
    parser.add_class_arguments(Options, as_group=False)
    parser.add_argument("--config", action="config", help="a file of these options")
    try:
        parsed = parser.parse_args(_arguments(argv))
    except UserError as error:
        advice = "; `unirl plugins show NAME` lists the options of a benchmark"
        raise UserError(str(error).replace("; give them in a file: --config FILE", advice)) from None
    name = registered_name("judge", parsed.benchmark.class_path)
    values = dict(parser.instantiate_classes(parsed))
    values.pop("config", None)
    with _recorded_warnings() as said:
        results = _evaluate(values, name)
    _print(results, Path(values["out"]), said)


def _arguments(argv: list[str]) -> list[str]:
    """Hyphens in options become underscores, flags get a value, and `--checkpoint` is the backbone's."""
    given, checkpoint = _take_checkpoint([_with_underscores(word) for word in argv])
    names = [word.partition("=")[0] for word in given]
    for name in ("--benchmark", "--out"):
        if name not in names and "--config" not in names:
            raise UserError(f"give --benchmark NAME and --out FOLDER ({name} is missing); see `unirl evaluate --help`")
    if "--judge_only=true" in given or "--config" in names:
        return given
    following = [*given[1:], ""]
    named = [w.partition("=")[2] or following[i] for i, w in enumerate(given) if names[i] == "--backbone"]
    backbone = choose_backbone(named[0] if named else None, checkpoint)
    given += [] if named else [f"--backbone={backbone}"]
    if checkpoint is None and not any(name.startswith("--backbone.") for name in names):
        checkpoint = DEFAULT_CHECKPOINT.format(backbone)
    return given if checkpoint is None else [*given, f"--backbone.init_args.checkpoint={checkpoint}"]


def _with_underscores(word: str) -> str:
    """An option as the parser knows it."""
    option, equals, value = word.partition("=")
    if not option.startswith("--"):
        return word
    head, dot, rest = option[2:].partition(".")
    name = f"{head.replace('-', '_')}{dot}{rest}"
    return f"--{name}=true" if name in FLAGS and not equals else f"--{name}{equals}{value}"


def _take_checkpoint(words: list[str]) -> tuple[list[str], str | None]:
    """The arguments without `--checkpoint`, and its value."""
    rest, checkpoint, remaining = [], None, iter(words)
    for word in remaining:
        option, equals, value = word.partition("=")
        if option == "--checkpoint":
            checkpoint = value if equals else next(remaining, "")
        else:
            rest.append(word)
    return rest, checkpoint


def _evaluate(values: dict[str, Any], name: str) -> BenchmarkResults:
    backbone = None if values.pop("judge_only") else values["backbone"]
    strategies.register()
    silence_lightning()
    values |= {"backbone": backbone, "name": name, "trainer": _trainer(values)}
    sampling = {key: values.pop(key) for key in ("steps", "guidance", "temperature", "confidence_noise")}
    max_tokens = values.pop("max_tokens")
    with translate("the evaluation stops, and the same command goes on"):
        if backbone is not None:
            backbone.build()
            own: SamplingConfig = backbone.sampling_config
            given = {key: value for key, value in sampling.items() if value is not None}
            values["image_sampling"] = replace(own.image_sampling, **given)
            if max_tokens is not None:
                values["answer_sampling"] = replace(own.answer_sampling, max_tokens=max_tokens)
            settings = ", ".join(f"{key} {value:g}" for key, value in asdict(values["image_sampling"]).items())
            _print_sampling(f"sampling: {settings}")
        return evaluate(**values)


def _trainer(values: dict[str, Any]) -> Trainer:
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    options = {key: values.pop(key) for key in names}
    if str(options["devices"]).isdecimal():
        options["devices"] = int(options["devices"])
    with translate():
        trainer = make_trainer(**options, enable_progress_bar=sys.stderr.isatty(), callbacks=[_Lines()])
    if isinstance(trainer.strategy, ModelParallelStrategy | FSDPStrategy | DeepSpeedStrategy):
        raise UserError(f"--strategy {options['strategy']!r} shards weights, and evaluation does not; take ddp or auto")
    return trainer


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


@rank_zero_only
def _print_sampling(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def _recorded_warnings() -> Iterator[set[str]]:
    """The warnings that are printed within a `with` block, so that none is printed again at the end."""
    said: set[str] = set()
    show = warnings.showwarning

    def record(message: Warning | str, *args: Any, **options: Any) -> None:
        said.add(str(message))
        show(message, *args, **options)

    warnings.showwarning = record
    try:
        yield said
    finally:
        warnings.showwarning = show


@rank_zero_only
def _print(results: BenchmarkResults, folder: Path, said: Collection[str]) -> None:
    console = Console()
    if results.scores:
        console.print(results.table())
    if results.understanding:
        for name, count, accuracy in results.understanding_rows():
            print(f"understanding, {name}: {accuracy} ({count} questions)")
        for name, value in results.understanding.get("yes_no", {}).items():
            print(f"yes/no questions, {name}: {100 * value:.1f}")
    for warning in (one for one in results.warnings if one not in said):
        print(f"warning: {warning}")
    details = "the verdict and reason of each image" if results.images else "each answer"
    print(f"results, with {details}: {folder / RESULTS}")
    print(f"the same as a page, with the images: {folder / REPORT}")


def run_comparison(argv: list[str]) -> None:
    """Compare two evaluations.

    Args:
        argv: `--compare` and two folders, or two lists of them.

    Raises:
        UserError: the arguments are wrong, or there is nothing to compare.
    """
    rest = [word.removeprefix("--compare=") for word in argv if word != "--compare"]
    if len(rest) != 2 or any(word.startswith("--") for word in rest):
        raise UserError("--compare takes two folders of `unirl evaluate`, or two lists of them with commas")
    comparison = compare(*([one] if Path(one).exists() else [*filter(None, one.split(","))] for one in rest))
    Console().print(comparison.table())
    for note in comparison.notes:
        print(f"note: {note}")
