"""Guards: each watches for one thing that goes wrong silently, and says what it means and what to try."""

from unirl.callbacks.guards.guards import Guards

__all__ = ["Guards"]
