"""What this package registers; imports nothing heavy."""

from unirl import hookimpl
from unirl.hooks.specs import Register


@hookimpl
def unirl_register_rewards(register: Register) -> None:
    register("hpsv2", "unirl_preference.clips:HPSv2")
    register("pickscore", "unirl_preference.clips:PickScore")
    register("vlm_judge", "unirl_preference.vlm:VLMJudge")
