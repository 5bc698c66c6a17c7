"""Check that no prompt of a benchmark is trained on."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from unirl.doctor.findings import Finding, Level
from unirl.hooks.host import host
from unirl.judges import Judge
from unirl.training.scorable import NUM_SAMPLED
from unirl.unicode import normalize_text

MANY = 20
"""Prompts that are not those of a benchmark by chance."""


def check_benchmark_prompts(run: Any) -> Iterator[Finding]:
    """Refuse training prompts that are those of the run's judge or of an installed benchmark.

    Prompts of another benchmark than the run's judge may be the same by chance, as simple ones are: a warning, unless
    they are half of the benchmark's, or many and half of the training prompts. Of prompts that are drawn, the first
    ones are looked at. Benchmarks that need options, such as a file, are known where the run names them only.

    Args:
        run: A parsed command line, not started.
    """
    source = getattr(run.datamodule, "prompts", None)
    if source is None or getattr(run, "subcommand", "fit") != "fit":
        return
    examples = list(source.train_examples()) or [
        source.sample(run.datamodule.seed, index) for index in range(NUM_SAMPLED)
    ]
    prompts = {normalize_text(example.prompt): example for example in examples}
    own = getattr(run.model, "judge", None)
    for name, judge in _benchmarks(own):
        benchmark = {normalize_text(example.prompt) for example in judge.benchmark()}
        found = [prompts[key] for key in prompts if key in benchmark]
        if not found:
            continue
        many = 2 * len(found) >= len(benchmark) or len(found) >= max(MANY, len(prompts) / 2)
        level: Level = "error" if many or judge is own else "warning"
        place = source.location(found[0])
        where = f"{place}, " if place else ""
        text = f"{len(found)} training prompts are prompts of the benchmark {name}, such as {where}{found[0].prompt!r}"
        yield Finding(level, "prompts", text, "remove them: a score on prompts that were trained on means nothing")


def _benchmarks(own: Judge | None) -> Iterator[tuple[str, Judge]]:
    """The run's judge, and those that are registered and need no options, by name."""
    if own is not None:
        yield type(own).__name__, own
    for name, item in sorted(host().registry["judge"].items()):
        module, _, attribute = item.class_path.rpartition(".")
        try:
            cls = getattr(import_module(module), attribute)
            judge = None if own is not None and type(own) is cls else cls()
        except Exception:  # one that needs options, or whose package is broken
            continue
        if isinstance(judge, Judge):
            yield name, judge
