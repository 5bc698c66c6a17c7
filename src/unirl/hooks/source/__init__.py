"""What a class is called, takes and derives from, read from its file: neither it nor its packages are imported."""

from unirl.hooks.source.checking import BASES, problem
from unirl.hooks.source.reading import ClassSource, Parameter, read

__all__ = ["BASES", "ClassSource", "Parameter", "problem", "read"]
