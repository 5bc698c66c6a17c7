"""The plugin surface: `hookimpl` marks an implementation, `spec` lists what can be implemented, `host` loads it."""

import pluggy

PROJECT = "unirl"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

__all__ = ["PROJECT", "hookimpl", "hookspec"]
