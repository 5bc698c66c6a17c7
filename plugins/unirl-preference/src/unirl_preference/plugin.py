"""Registers the rewards."""

from collections.abc import Callable

from unirl import hookimpl


@hookimpl
def unirl_register_rewards(register: Callable[[str, str], None]) -> None:
    register("hpsv2", "unirl_preference.clips:HPSv2")
    register("pickscore", "unirl_preference.clips:PickScore")
    register("vlm_judge", "unirl_preference.vlm:VLMJudge")
