"""The plugin system: `hookimpl` marks implementations of the hooks that `unirl.hooks.specs` lists."""

import pluggy

PROJECT = "unirl"
"""Name of the pluggy project, and of the entry-point group of plugins."""
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

__all__ = ["PROJECT", "hookimpl", "hookspec"]
