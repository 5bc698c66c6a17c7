"""The attribute reward, and the reading of English answers that it is made of."""

from unirl.rewards.attribute.attribute import Attribute
from unirl.rewards.attribute.facts import Facts, extract_facts, recall

__all__ = ["Attribute", "Facts", "extract_facts", "recall"]
