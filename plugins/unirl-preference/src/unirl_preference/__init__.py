"""Rewards from public preference models that transformers can load."""
