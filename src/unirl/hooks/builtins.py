"""The built-in plugins, registered by the same hooks as any other plugin."""

from unirl.hooks import hookimpl
from unirl.hooks.specs import Register


@hookimpl
def unirl_register_backbones(register: Register) -> None:
    """Register the built-in backbones."""
    register("showo", "unirl.backbones.showo:Showo")
    register("janus", "unirl.backbones.janus:Janus")


@hookimpl
def unirl_register_rewards(register: Register) -> None:
    """Register the built-in rewards."""
    register("attribute", "unirl.rewards.attribute:Attribute")
    register("caption", "unirl.rewards.caption:CaptionReward")
    register("clip", "unirl.rewards.clip:CLIP")
    register("keyword", "unirl.rewards.keyword:Keyword")
    register("likelihood", "unirl.rewards.likelihood:Likelihood")
    register("oracle", "unirl.rewards.oracle:Oracle")
    register("questions", "unirl.rewards.questions:Questions")


@hookimpl
def unirl_register_updates(register: Register) -> None:
    """Register the built-in update rules."""
    register("grpo", "unirl.updates.grpo:GRPO")
    register("sft", "unirl.updates.sft:SFT")


@hookimpl
def unirl_register_judges(register: Register) -> None:
    """Register the built-in judges."""
    register("vqa", "unirl.judges.vqa:VQA")


@hookimpl
def unirl_register_prompts(register: Register) -> None:
    """Register the built-in sources of prompts."""
    register("geneval", "unirl.prompts.geneval:GenEval")
    register("jsonl", "unirl.prompts.jsonl:JsonLines")
