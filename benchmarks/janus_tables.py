"""Tables of what was measured on Janus."""

from janus_generation import Generation
from janus_scoring import WAYS, Scoring
from measure import Spread
from rich.table import Table


def generation_table(size: str, groups: dict[int, Generation], repeats: int) -> Table:
    """Images per second, a row for each group size."""
    table = Table(title=f"{size}: generation, medians of {repeats} alternations (smallest to largest)")
    for column in ("group", "transformers", "UniRL", "faster", "compiled", "faster", "same codes"):
        table.add_column(column, justify="right", no_wrap=True)
    for group, measured in groups.items():
        speeds = [f"{group / spread.median:.3g}/s" for spread in measured.seconds] + [""]
        ratios = [times(spread) for spread in measured.faster] + [""]
        checked = "yes" if measured.same_codes else "NO"
        table.add_row(str(group), *speeds[:2], ratios[0], speeds[2], ratios[1], checked)
    return table


def parts_table(size: str, groups: dict[int, Generation]) -> Table:
    """Where the time of a step goes, not compiled."""
    table = Table(title=f"{size}: a step of UniRL")
    for column in ("group", "step", "products", "attention", "rest"):
        table.add_column(column, justify="right", no_wrap=True)
    for group, measured in groups.items():
        rest = measured.step - measured.products - measured.attention
        parts = (measured.products, measured.attention, rest)
        shares = [f"{1e3 * part:.3g} ms, {part / measured.step:.0%}" for part in parts]
        table.add_row(str(group), f"{1e3 * measured.step:.3g} ms", *shares)
    return table


def scoring_table(size: str, scorings: dict[int, dict[str, Scoring]], repeats: int) -> Table:
    """Peak memory and seconds of both ways, a row for each group size."""
    table = Table(title=f"{size}: scoring, forward and backward, medians of {repeats} processes each")
    for column in ("group", "transformers", "UniRL", "of it", "transformers", "UniRL", "faster", "same scores"):
        table.add_column(column, justify="right", no_wrap=True)
    for group, ways in scorings.items():
        if any(way not in ways for way in WAYS):
            table.add_row(str(group), *(alone(ways.get(way)) for way in WAYS))
            continue
        plain, own = (ways[way] for way in WAYS)
        memory = [f"{one.memory.median / 1e9:.3g} GB" for one in (plain, own)]
        seconds = [f"{one.seconds.median:.3g} s" for one in (plain, own)]
        share = f"{own.memory.median / plain.memory.median:.0%}" if plain.memory.median else ""  # too small to measure
        faster = plain.seconds.median / own.seconds.median
        table.add_row(str(group), *memory, share, *seconds, f"{faster:.2f} times", same(plain, own))
    return table


def alone(one: Scoring | None) -> str:
    """Memory of a way where the other way did not run."""
    return f"{one.memory.median / 1e9:.3g} GB" if one else "out of memory"


def same(plain: Scoring, own: Scoring) -> str:
    """Whether mean score and norm of the gradient agree."""
    agree = abs(plain.log_prob - own.log_prob) <= 1e-4 and abs(plain.norm / own.norm - 1) <= 1e-3
    return "yes" if agree else "NO"


def times(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"
