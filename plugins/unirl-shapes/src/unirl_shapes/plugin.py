"""Registers prompts and judge."""

from collections.abc import Callable

from unirl import hookimpl


@hookimpl
def unirl_register_prompts(register: Callable[[str, str], None]) -> None:
    register("shapes", "unirl_shapes.prompts:ShapesPrompts")


@hookimpl
def unirl_register_judges(register: Callable[[str, str], None]) -> None:
    register("shapes", "unirl_shapes.judge:ShapesJudge")
