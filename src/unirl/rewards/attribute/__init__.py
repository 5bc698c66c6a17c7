"""The attribute reward, and the reading of English answers that it is made of."""

from unirl.rewards.attribute.facts import Facts, extract_facts, recall
from unirl.rewards.attribute.reward import Attribute

__all__ = ["Attribute", "Facts", "extract_facts", "recall"]
