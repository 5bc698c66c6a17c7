"""What this package offers the framework."""

from unirl.hooks import hookimpl
from unirl.hooks.specs import Register


@hookimpl
def unirl_register_prompts(register: Register) -> None:
    register("shapes", "unirl_shapes.prompts:ShapesPrompts")


@hookimpl
def unirl_register_judges(register: Register) -> None:
    register("shapes", "unirl_shapes.judge:ShapesJudge")
