"""What this package offers the framework."""

from unirl.hooks import hookimpl
from unirl.hooks.specs import Register


@hookimpl
def unirl_register_backbones(register: Register) -> None:
    register("emu3", "unirl_emu3.emu3:Emu3")
