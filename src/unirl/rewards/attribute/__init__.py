"""Reads English answers: what they state, and how much of it is what was wanted."""

from unirl.rewards.attribute.agreement import Facts, agreement, facts

__all__ = ["Facts", "agreement", "facts"]
