"""Rewards for lightning-unirl from public preference models and vision-language models."""
