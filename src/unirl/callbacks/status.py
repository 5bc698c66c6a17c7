"""What a run says about its progress: texts of one line, and an estimate of the time that is left."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from unirl.callbacks.results import Metrics

WIDE = 100
"""Columns from which on a terminal shows the names of the two tasks in full."""
SHORT_NAMES = {"generation": "gen", "understanding": "und"}


@dataclass
class TimeLeft:
    """Estimates the time to the end of a run.

    Args:
        batches: Seconds of the last training batches. Several, since a batch that generates images takes longer than
            one that trains on them again.
        validation: Seconds of the last validation.

    Example:
        >>> estimate = TimeLeft(validation=60.0)
        >>> estimate.add_batch(2.0)
        >>> estimate.seconds(batches_left=100, validations_left=1)
        260.0
    """

    batches: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    validation: float = 0.0

    def add_batch(self, seconds: float) -> None:
        """Record the duration of a training batch."""
        self.batches.append(seconds)

    @property
    def batch(self) -> float:
        """Mean seconds of a training batch."""
        return sum(self.batches) / max(1, len(self.batches))

    def seconds(self, batches_left: float, validations_left: int) -> float | None:
        """Seconds to the end, None before the first batch.

        Args:
            batches_left: Training batches that are left.
            validations_left: Validations that are left.
        """
        if not self.batches:
            return None
        return batches_left * self.batch + validations_left * self.validation


def num_validations(done: int, total: float, interval: float) -> int:
    """Validations between two training batches.

    Args:
        done: The first batch.
        total: The last batch.
        interval: Batches between two validations; infinity for none.

    Example:
        >>> num_validations(100, 400, interval=100)
        3
    """
    return int(total // interval - done // interval)


def accuracies(metrics: Metrics) -> dict[str, float]:
    """The accuracies of both tasks, in percent.

    Args:
        metrics: Values by metric and category.

    Example:
        >>> accuracies({"generation": {"counting": 0.2, "overall": 0.5}, "diversity": {"codes": 0.3}})
        {'generation': 50.0}
    """
    names = [name for name in SHORT_NAMES if "overall" in metrics.get(name, {})]
    return {name: 100 * metrics[name]["overall"] for name in names}


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds.

    Example:
        >>> clock(93784.6)
        '26:03:04'
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def values_text(values: Mapping[str, float], width: int) -> str:
    """Values for a bar, with short names where the terminal is narrow.

    Args:
        values: Reward, loss, and accuracies in percent.
        width: Columns of the terminal.

    Example:
        >>> values_text({"reward": 0.5, "generation": 61.25}, width=80)
        'reward 0.500 gen 61.2'
    """
    names = SHORT_NAMES if width < WIDE else {}
    return " ".join(f"{names.get(name, name)} {_number(name, value)}" for name, value in values.items())


def step_line(
    step: int, total: int | None, step_seconds: float, seconds: float | None, values: Mapping[str, float]
) -> str:
    """The line about a step where the output is not a terminal.

    Args:
        step: Optimizer steps that are done.
        total: Those of the whole run, None if not known.
        step_seconds: Duration of a step.
        seconds: Time left, None if not known.
        values: Reward, loss, and accuracies in percent.

    Example:
        >>> step_line(120, 400, 2.5, 725.0, {"reward": 0.646, "loss": 0.0131, "generation": 61.25})
        'step 120/400, 2.5 s/step, 0:12:05 left, reward 0.646, loss 0.013, generation 61.2'
    """
    left = [] if seconds is None else [f"{clock(seconds)} left"]
    shown = [f"{name} {_number(name, value)}" for name, value in values.items()]
    return ", ".join([f"step {step}{of_total(total)}", f"{step_seconds:.3g} s/step", *left, *shown])


def validation_line(step: int, metrics: Metrics, first: Mapping[str, float]) -> str:
    """The line after a validation: accuracies in percent, with the change since the first validation.

    Args:
        step: Optimizer steps that are done.
        metrics: Values by metric and category.
        first: The accuracies of the first validation; empty where this is the first one.

    Returns:
        Without a judge, the diversity; empty where nothing was measured.

    Example:
        >>> validation_line(100, {"generation": {"overall": 0.5}}, {"generation": 48.0})
        'validation at step 100: generation 50.0 (+2.0)'
    """
    values = accuracies(metrics) or {f"diversity of {k}": 100 * v for k, v in metrics.get("diversity", {}).items()}
    changes = {name: f" ({value - first[name]:+.1f})" for name, value in values.items() if name in first}
    parts = [f"{name} {value:.1f}{changes.get(name, '')}" for name, value in values.items()]
    when = f"validation at step {step}" if step else "validation before training"
    return f"{when}: {', '.join(parts)}" if parts else ""


def of_total(total: float | None) -> str:
    """The text "/total", empty where the total is not known."""
    return "" if total is None or total == float("inf") else f"/{total:.0f}"


def _number(name: str, value: float) -> str:
    return f"{value:.1f}" if name in SHORT_NAMES else f"{value:.3f}"
