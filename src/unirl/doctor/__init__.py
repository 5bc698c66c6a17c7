"""What can be known about a run before it loads anything: `unirl doctor`, and the cheap part of it in `unirl fit`."""

from unirl.doctor.findings import Finding

__all__ = ["Finding"]
