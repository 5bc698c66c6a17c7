"""What can be checked about a run before anything is loaded: `unirl doctor`, and the fast part of it in `unirl fit`."""

from unirl.doctor.findings import Finding

__all__ = ["Finding"]
