"""Registers the backbone `emu3`."""

from unirl import Register, hookimpl


@hookimpl
def unirl_register_backbones(register: Register) -> None:
    register("emu3", "unirl_emu3.backbone:Emu3")
