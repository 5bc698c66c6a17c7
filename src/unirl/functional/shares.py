"""How often to draw each of several alternatives, by how much is learned from them."""

from collections.abc import Sequence
from math import fsum


def variance_shares(shares: Sequence[float], variances: Sequence[float | None], floor: float) -> list[float]:
    """Shares in proportion to own share times reward variance, mixed with the own shares.

    Groups of equal rewards teach nothing: the advantages of their samples are 0. An unknown variance counts as the mean
    of the known ones, which leaves the alternative its own share. Where all variances are 0, all have their own shares.

    Args:
        shares: Share that each alternative has of its own, 0 or more. They are scaled to sum to 1.
        variances: Reward variance of each alternative, 0 or more. None where it is unknown.
        floor: Part of the draws, in [0, 1], that follows the own shares: none falls below `floor` times its own one.

    Returns:
        Shares that sum to 1; the same in every process, since sums are exactly rounded.

    Source: the reward variance of groups as a measure of what is learned is that of CGPO (arXiv 2605.17807).

    Example:
        >>> variance_shares([0.5, 0.5], [0.0, 0.25], floor=0.2)
        [0.1, 0.9]
        >>> variance_shares([0.5, 0.25, 0.25], [0.1, 0.3, None], floor=0.0)[2]
        0.25
    """
    whole = fsum(shares)
    own = [share / whole for share in shares]
    known = [(share, variance) for share, variance in zip(own, variances, strict=True) if variance is not None]
    mean = fsum(s * v for s, v in known) / (fsum(s for s, _ in known) or 1.0)
    weights = [s * (mean if v is None else v) for s, v in zip(own, variances, strict=True)]
    total = fsum(weights)
    if total == 0:
        return own
    return [floor * share + (1 - floor) * (weight / total) for share, weight in zip(own, weights, strict=True)]
