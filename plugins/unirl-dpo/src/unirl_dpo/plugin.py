"""Registers the update rules."""

from collections.abc import Callable

from unirl import hookimpl


@hookimpl
def unirl_register_updates(register: Callable[[str, str], None]) -> None:
    register("dpo", "unirl_dpo.dpo:DPO")
    register("best_of_n", "unirl_dpo.best_of_n:BestOfN")
