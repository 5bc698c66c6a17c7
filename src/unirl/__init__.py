"""Self-improvement of unified multimodal models: draw, answer, learn."""

from unirl.hooks import hookimpl

__version__ = "0.1.0"
__all__ = ["__version__", "hookimpl"]
