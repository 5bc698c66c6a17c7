"""Emu3 as a backbone of lightning-unirl."""
