"""What the command line adds to jsonargparse: registered names in place of class paths, and errors of one line."""

from unirl.config.parser import PluginParser

__all__ = ["PluginParser"]
