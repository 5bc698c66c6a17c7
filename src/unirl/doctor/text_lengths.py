"""Checks of texts that are longer than the model reads or writes; `fit` warns of the same ones."""

from collections.abc import Iterator
from typing import Any

from unirl.backbones.checkpoints import describe_error
from unirl.doctor.findings import Finding
from unirl.training.lengths import counts_tokens, find_long_texts, sources_of_run


def check_lengths(model: Any, data: Any) -> Iterator[Finding]:
    """Count prompts, questions and right answers that are too long.

    Args:
        model: A `SelfImprovement` whose backbone is built, perhaps on the meta device.
        data: A `PromptsDataModule`.
    """
    if not counts_tokens(model.backbone):
        name = getattr(model.backbone, "checkpoint", type(model.backbone).__name__)
        yield Finding("ok", "lengths", f"not counted: the tokenizer of {name} is not on this machine; fit counts them")
        return
    problems, count = False, 0
    for source, examples in sources_of_run(data):
        count += len(examples)
        try:
            found = list(find_long_texts(model.backbone, examples, model.rollout.answer_sampling.max_tokens, source))
        except Exception as error:  # plugins may need what is not there on the meta device
            yield Finding("warning", "lengths", f"not counted: {describe_error(error)}; fit counts them")
            return
        for _, text, advice in found:
            problems = True
            yield Finding("warning", "lengths", text, advice)
    if count and not problems:
        yield Finding("ok", "lengths", f"the model reads all of {count} prompts with their questions and answers")
