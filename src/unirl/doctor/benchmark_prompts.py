"""Check that no prompt of a benchmark is trained on."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from unirl.doctor.findings import Finding
from unirl.hooks.host import host
from unirl.judges import Judge
from unirl.training.scorable import NUM_SAMPLED
from unirl.unicode import normalize_text


def check_benchmark_prompts(run: Any) -> Iterator[Finding]:
    """Refuse training prompts that are those of the run's judge or of an installed benchmark.

    Of prompts that are drawn, the first ones are looked at. Benchmarks that need options, such as a file, are known
    where the run names them only.

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
    for name, judge in _benchmarks(getattr(run.model, "judge", None)):
        found = [prompts[key] for example in judge.benchmark() if (key := normalize_text(example.prompt)) in prompts]
        if found:
            place = source.location(found[0])
            text = (
                f"{len(found)} training prompts are prompts of the benchmark {name}, such as "
                f"{f'{place}, ' if place else ''}{found[0].prompt!r}"
            )
            yield Finding(
                "error", "prompts", text, "remove them: a score on prompts that were trained on means nothing"
            )


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
