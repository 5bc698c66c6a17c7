"""Check that the rewards of a run can score its prompts, and that its judge can judge the held-out ones."""

from collections.abc import Iterator
from typing import Any

from unirl.doctor.findings import Finding

PROMPTS = "prompts"


def check_prompts(run: Any, trainer: Any) -> Iterator[Finding]:
    """Check all prompts of files, the held-out ones, and the first ones that are sampled.

    Args:
        run: A parsed command line, not started.
        trainer: Of the run; None where this machine lacks the devices.
    """
    data = run.datamodule
    check = getattr(data, "check", None)
    if check is None:  # a custom module
        return
    problems = check(run.model, getattr(run, "subcommand", "fit"), trainer)
    for problem in problems:
        yield Finding(problem.level, PROMPTS, problem.text, problem.advice)
    if not problems:
        train, held_out = len(data.prompts.train_examples()), len(data.val_examples)
        fewer = f" (fewer than data.num_val_prompts {data.num_val_prompts})" if held_out < data.num_val_prompts else ""
        text = f"{train or 'the first'} training and {held_out} held-out prompts{fewer} fit rewards and judge"
        yield Finding("ok", PROMPTS, text)
