"""What this package offers the framework."""

from unirl.hooks import hookimpl
from unirl.hooks.specs import Register


@hookimpl
def unirl_register_updates(register: Register) -> None:
    register("dpo", "unirl_dpo.dpo:DPO")
    register("best_of_n", "unirl_dpo.best_of_n:BestOfN")
