"""Runs a benchmark: images, verdicts, answers, by Lightning's `Trainer.predict` on any number of processes.

Every image is seeded by (seed, prompt, its number), and is generated in the batch in which it is in any run: which
process does it, and what was there before, changes nothing. Images, verdicts and answers are on disk as soon as they
are there, and a run that was killed goes on with the rest.
"""

import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from unirl.backbones import Backbone
from unirl.backbones.given_images import answer_given, check_reads
from unirl.backbones.precision import cached_casts
from unirl.benchmark.benchmark_report import write_report
from unirl.benchmark.folder import (
    ImageFile,
    checked_folder,
    found_images,
    planned_images,
    read_image,
    write_image,
    write_metadata,
)
from unirl.benchmark.given_questions import GivenQuestions
from unirl.benchmark.provenance import (
    answer_settings,
    claim,
    example_fingerprint,
    fingerprint,
    image_settings,
    judge_settings,
    saved_settings,
    versions,
)
from unirl.benchmark.records import Records
from unirl.benchmark.scores import RESULTS, BenchmarkResults, count_by_category, doubts, score
from unirl.benchmark.understanding import accuracies, answer_doubts
from unirl.errors import UserError, check_plugin, check_range
from unirl.functional.seeding import PerImageGenerator, generator_for
from unirl.judges import Judge, Verdict
from unirl.judges.verdict_checks import checked_explanations, checked_understanding_set
from unirl.training.config import check_image_sampling
from unirl.training.lengths import find_long_texts
from unirl.types import AnswerSampling, ImageSampling


def evaluate(
    backbone: Backbone | None,
    benchmark: Judge,
    out: str | Path,
    images: int = 4,
    batch_size: int = 16,
    seed: int = 0,
    image_sampling: ImageSampling | None = None,
    answer_sampling: AnswerSampling | None = None,
    num_understanding: int = 240,
    limit: int | None = None,
    name: str | None = None,
    trainer: Trainer | None = None,
) -> BenchmarkResults:
    """Generate and judge the images of a benchmark, and write them, `results.json`, `results.md` and `report.html`.

    Args:
        backbone: The model. None judges the images that are in `out`, in GenEval's layout.
        benchmark: A judge that has prompts of its own, or questions about images.
        out: Folder of the results. Images and verdicts that are there are not made again.
        images: Images of each prompt.
        batch_size: Images generated at a time. Another batch size changes images by rounding at most.
        seed: Of the images: each is seeded by (seed, prompt, number).
        image_sampling: How images are generated. Defaults to `backbone.sampling_config`.
        answer_sampling: How questions are answered, greedily. The same default.
        num_understanding: Questions about given images, of benchmarks that make as many as they are asked for.
        limit: The first so many prompts only, for trials; questions, of a benchmark without prompts.
        name: Of the benchmark, in the results. Defaults to that of its class.
        trainer: Decides devices, strategy and precision. Defaults to one process.

    Raises:
        UserError: a setting is out of range, `out` holds images of other settings, the benchmark has nothing to ask,
            or an image is broken.

    Example:
        >>> import tempfile
        >>> from unirl import Example
        >>> from unirl.testing import TinyBackbone
        >>> class Bright(Judge):
        ...     def verdicts(self, examples, pixels):
        ...         return pixels.mean((1, 2, 3)) >= 0
        ...
        ...     def benchmark(self):
        ...         return [Example("a cat"), Example("a dog")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     evaluate(TinyBackbone(), Bright(), folder, images=2).score
        1.0
    """
    check_plugin("benchmark", benchmark, Judge)
    check_range(1, 10_000, "evaluate", images=images)
    check_range(1, 100_000, "evaluate", batch_size=batch_size)
    check_range(0, 10**9, "evaluate", num_understanding=num_understanding)
    check_range(1, 10**9, "evaluate", limit=10**9 if limit is None else limit)
    name = name or type(benchmark).__name__.removesuffix("Judge").lower()
    folder, trainer = checked_folder(out), trainer or make_trainer()
    every = list(benchmark.benchmark())
    examples = every[:limit]
    if backbone is None:
        if not examples:
            raise UserError(f"{name} has no prompts, so there are no images to judge; leave --judge-only out")
        wanted = {example.prompt for example in examples}
        files = [file for file in found_images(folder, every) if file.example.prompt in wanted]
    else:
        check_plugin("backbone", backbone, Backbone)
        backbone.build()
        files = planned_images(folder, examples, images)
    asks = backbone is not None and num_understanding > 0
    given, questions = checked_understanding_set(benchmark, num_understanding) if asks else None, None
    if given is not None and given[0]:
        first = slice(None if examples else limit)
        questions = GivenQuestions(given[0][first], given[1][first], folder)
    if backbone is not None:
        check_reads(backbone, None if questions is None else questions.images)
    if not files and questions is None:
        raise UserError(f"{name} is no benchmark: it has neither prompts nor questions of its own")
    run = _Run(backbone, benchmark, name, folder, files, questions, batch_size, seed)
    if backbone is not None:
        run.use(image_sampling or backbone.sampling_config.image_sampling, answer_sampling)
    else:
        run.earlier = BenchmarkResults.load(folder) if (folder / RESULTS).is_file() else None
    try:
        trainer.predict(run, return_predictions=False)
    except OSError as error:
        raise UserError(f"{_describe(error)}; what is in {folder} is kept, and the same command goes on") from error
    return run.results


def _describe(error: OSError) -> str:
    return f"{error.filename or 'evaluate'}: {error.strerror or error}"


def make_trainer(**options: Any) -> Trainer:
    """A trainer that predicts and leaves nothing of its own.

    Args:
        options: As for Lightning's `Trainer`, such as `devices`, `strategy` and `precision`.
    """
    defaults: dict[str, Any] = {"accelerator": "auto", "devices": 1, "enable_progress_bar": False}
    fixed = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(**defaults | options | fixed, use_distributed_sampler=False)


class _Run(LightningModule):
    """The work of an evaluation, in batches that do not depend on the number of processes."""

    results: BenchmarkResults
    earlier: BenchmarkResults | None = None
    """Of the folder, where images of another program are judged: its answers are kept."""

    def __init__(
        self,
        backbone: Backbone | None,
        judge: Judge,
        name: str,
        folder: Path,
        files: Sequence[ImageFile],
        questions: GivenQuestions | None,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.backbone, self.judge, self.name, self.folder = backbone, judge, name, folder
        self.files, self.questions, self.batch_size, self.seed = list(files), questions, batch_size, seed
        count = len(questions) if questions else 0
        self.plan: list[tuple[str, range]] = [
            *(("images", _slice(i, batch_size, len(self.files))) for i in range(0, len(self.files), batch_size)),
            *(("questions", _slice(i, batch_size, count)) for i in range(0, count, batch_size)),
        ]
        self.settings: dict[str, Any] = {}
        self.problems: list[str] = []

    def use(self, image_sampling: ImageSampling, answer_sampling: AnswerSampling | None) -> None:
        """Set how images and answers are sampled."""
        assert self.backbone is not None
        check_image_sampling("evaluate", self.backbone, image_sampling)
        own = answer_sampling or self.backbone.sampling_config.answer_sampling
        self.image_sampling, self.answer_sampling = image_sampling, replace(own, temperature=0.0)
        generated = list({file.example.prompt: file.example for file in self.files}.values())
        sources = [("prompts of the benchmark", generated, True)]
        sources += [("questions about given images", list(self.questions.examples), False)] if self.questions else []
        for source, examples, generates in sources:
            option, count = "answer_sampling.max_tokens (--max-tokens)", self.answer_sampling.max_tokens
            found = find_long_texts(self.backbone, examples, count, source, option, generates)
            self.problems += ["; ".join(problem) for _, *problem in found]
        if self.questions is not None and (unknown := self.questions.find_unknown_words(self.backbone)):
            self.problems.append(unknown)
        for problem in self.problems:
            rank_zero_warn(problem)

    @override
    def setup(self, stage: str) -> None:
        """Compare the settings with those of the folder, on rank 0. Collective."""
        message: list[Any] = [{}, None]
        if self.trainer.is_global_zero:
            try:
                message[0] = self._settings()
            except UserError as error:
                message[1] = str(error)
            except OSError as error:
                message[1] = f"{_describe(error)}; give an --out that can be written"
        self.settings, problem = self.trainer.strategy.broadcast(message)
        if problem is not None:
            raise UserError(problem)
        judged = fingerprint({key: value for key, value in self.settings.items() if key.startswith("judge")})
        answered = fingerprint(self.settings)
        rank = self.trainer.global_rank
        self.verdicts = Records(self.folder / "verdicts" / judged, rank)
        self.answers = Records(self.folder / "answers" / answered, rank)
        if len(self.verdicts.read()) < len(self.files):
            self.judge.load()

    def _settings(self) -> dict[str, Any]:
        judge, settings = judge_settings(self.judge, self.name), saved_settings(self.folder)
        if self.backbone is not None:
            precision = str(self.trainer.precision)
            settings = image_settings(self.backbone, self.image_sampling, self.seed, precision)
            claim(self.folder, settings)
            write_metadata(self.files)
            settings |= answer_settings(self.answer_sampling)
        return settings | judge

    @override
    def on_predict_start(self) -> None:
        """Let SIGTERM stop the evaluation, which Lightning ignores: what is done is on disk."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> NoReturn:
        launcher = self.trainer.strategy.launcher
        if launcher is not None:
            launcher.kill(signal.SIGTERM)
        if self.trainer.is_global_zero:
            print("stopped by SIGTERM; the same command goes on", file=sys.stderr, flush=True)
        raise SystemExit(128 + signal.SIGTERM)

    @override
    def predict_dataloader(self) -> DataLoader[int]:
        mine: Any = range(self.trainer.global_rank, len(self.plan), self.trainer.world_size)
        return DataLoader(mine, batch_size=None)

    @torch.no_grad()
    def predict_step(self, number: int) -> None:
        """Make what is missing of a batch."""
        kind, rows = self.plan[number]
        if kind == "questions":
            self._answer(rows)
            return
        batch = [self.files[row] for row in rows]
        if self.backbone is not None:
            self._generate(self.backbone, batch)
        self._judge(batch)

    def _generate(self, backbone: Backbone, batch: Sequence[ImageFile]) -> None:
        """Generate a batch, and write those of its images that are not there."""
        missing = [i for i, file in enumerate(batch) if not file.path.exists()]
        if not missing:
            return
        generators = [
            generator_for(self.device, "evaluate", self.seed, file.example.prompt, file.index) for file in batch
        ]
        with cached_casts(self.device):
            prompts = [file.example.prompt for file in batch]
            images = backbone.sample_images(prompts, self.image_sampling, PerImageGenerator(generators))
            pixels = backbone.decode(images)
        for i in missing:
            write_image(batch[i].path, pixels[i])

    def _judge(self, batch: Sequence[ImageFile]) -> None:
        """Judge those images of a batch about which there is no verdict, images of a size at once."""
        by_size: dict[tuple[int, ...], list[tuple[ImageFile, Tensor, str]]] = {}
        for file in batch:
            pixels, checksum = self._read(file)
            if (key := self._key(file, checksum)) not in self.verdicts:
                by_size.setdefault(tuple(pixels.shape), []).append((file, pixels, key))
        for group in by_size.values():
            pixels = torch.stack([pixels for _, pixels, _ in group]).to(self.device)
            with torch.autocast(self.device.type, enabled=False):
                verdicts = checked_explanations(self.judge, [file.example for file, _, _ in group], pixels)
            for (_, _, key), verdict in zip(group, verdicts, strict=True):
                self.verdicts.append(key, [verdict.correct, verdict.reason, dict(verdict.scores)])

    def _answer(self, rows: range) -> None:
        """Answer those questions of a batch that have no answer."""
        assert self.backbone is not None
        assert self.questions is not None
        keys = [self.questions.key(row) for row in rows]
        self.questions.write_images(rows)
        if all(key in self.answers for key in keys):
            return
        with cached_casts(self.device):
            answers = answer_given(self.backbone, *self.questions.select(rows), self.answer_sampling)
        for key, text in zip(keys, answers.text, strict=True):
            if key not in self.answers:
                self.answers.append(key, text)

    def _read(self, file: ImageFile) -> tuple[Tensor, str]:
        try:
            return read_image(file.path)
        except UserError as error:
            advice = "remove it, and it is made again" if self.backbone else "replace it, or remove it from the folder"
            raise UserError(f"{error}; {advice}") from None

    def _key(self, file: ImageFile, checksum: str) -> str:
        return f"{file.path.relative_to(self.folder).as_posix()} {checksum} {example_fingerprint(file.example)}"

    @override
    def on_predict_end(self) -> None:
        """Collect what all processes made; rank 0 writes it. Collective."""
        self.trainer.strategy.barrier()
        self.verdicts.refresh()
        self.answers.refresh()
        self.results = self._results()
        if self.trainer.is_global_zero:
            self.results.save(self.folder)
            write_report(self.folder)
        self.trainer.strategy.barrier()

    def _results(self) -> BenchmarkResults:
        records, verdicts, images, sizes = self.verdicts.read(), list[Verdict](), list[dict[str, Any]](), set[str]()
        for file in self.files:
            pixels, checksum = self._read(file)
            sizes.add(f"{pixels.shape[2]}x{pixels.shape[1]}")
            verdict = Verdict(*records[self._key(file, checksum)])
            verdicts.append(verdict)
            images.append(
                {
                    "file": file.path.relative_to(self.folder).as_posix(),
                    "prompt": file.example.prompt,
                    "category": file.example.category,
                    "index": file.index,
                    "correct": verdict.correct,
                    "reason": verdict.reason,
                    "scores": dict(verdict.scores),
                }
            )
        scores, errors, without = score(self.judge, self.files, verdicts) if self.files else ({}, {}, {})
        understanding: dict[str, Any] = {}
        if self.questions is not None:
            answers, rows = self.answers.read(), range(len(self.questions))
            texts = [answers[self.questions.key(row)] for row in rows]
            shown = [self.questions.image(row) for row in rows]
            understanding = accuracies(self.judge, self.questions.examples, texts, shown)
        elif self.earlier is not None and self.earlier.benchmark == self.name:
            understanding = self.earlier.understanding
        settings = {**self.settings, "resolution": sorted(sizes), "versions": versions()}
        counts = count_by_category(self.files)
        warnings = self.problems + doubts(self.files, verdicts, len(self.judge.benchmark()))
        warnings += answer_doubts(understanding) if understanding else []
        return BenchmarkResults(self.name, scores, errors, counts, settings, images, understanding, warnings, without)


def _slice(start: int, length: int, total: int) -> range:
    return range(start, min(start + length, total))
