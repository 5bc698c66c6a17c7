"""Registers the judges and the prompts."""

from collections.abc import Callable

from unirl import hookimpl


@hookimpl
def unirl_register_judges(register: Callable[[str, str], None]) -> None:
    register("geneval", "unirl_geneval.judge:GenEvalJudge")
    register("geneval2", "unirl_geneval.geneval2:GenEval2Judge")


@hookimpl
def unirl_register_prompts(register: Callable[[str, str], None]) -> None:
    register("geneval_coco", "unirl_geneval.prompts:GenEvalCoco")
