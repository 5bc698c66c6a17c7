"""How much two measured accuracies differ by chance."""

from collections.abc import Mapping
from math import sqrt


def difference_errors(
    first: Mapping[str, float], second: Mapping[str, float], counts: Mapping[str, int]
) -> dict[str, float]:
    """Standard errors of the differences of two measurements of accuracy, by category and of their mean.

    That of a category is that of two proportions with a pooled mean. It does not use that both measurements are of the
    same prompts, and is therefore rather too large. Categories are independent in the mean.

    Args:
        first: Accuracies by category, in [0, 1].
        second: The same, measured later.
        counts: Samples of each category in each of the two measurements.

    Returns:
        In [0, 1], by category; "overall" for the mean over categories. Categories that are not in all three are left
        out, and without any there is no "overall".

    Example:
        >>> errors = difference_errors({"colors": 0.75}, {"colors": 0.25}, {"colors": 8})
        >>> errors
        {'colors': 0.25, 'overall': 0.25}
    """
    means = {name: (first[name] + second[name]) / 2 for name in counts if name in first and name in second}
    variances = {name: 2 * mean * (1 - mean) / max(1, counts[name]) for name, mean in means.items()}
    errors = {name: sqrt(max(0.0, variance)) for name, variance in variances.items()}
    return errors | ({"overall": sqrt(sum(variances.values())) / len(variances)} if variances else {})
