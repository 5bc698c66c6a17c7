"""What was measured of Janus, as tables to read."""

from janus_drawing import Drawing
from janus_scoring import WAYS, Scoring
from measure import Spread
from rich.table import Table


def drawing_table(size: str, drawings: dict[int, Drawing], repeats: int) -> Table:
    """Images per second, a row for each size of group."""
    made = Table(title=f"{size}: drawing, medians of {repeats} alternations (smallest to largest)")
    for column in ("group", "transformers", "UniRL", "faster", "compiled", "faster", "same codes"):
        made.add_column(column, justify="right", no_wrap=True)
    for group, drawing in drawings.items():
        speeds = [f"{group / spread.median:.3g}/s" for spread in drawing.seconds] + [""]
        ratios = [times(spread) for spread in drawing.faster] + [""]
        checked = "yes" if drawing.same_codes else "NO"
        made.add_row(str(group), *speeds[:2], ratios[0], speeds[2], ratios[1], checked)
    return made


def parts_table(size: str, drawings: dict[int, Drawing]) -> Table:
    """Where the time of a step goes that isn't compiled."""
    made = Table(title=f"{size}: a step of UniRL")
    for column in ("group", "whole", "products", "attention", "rest"):
        made.add_column(column, justify="right", no_wrap=True)
    for group, drawing in drawings.items():
        rest = drawing.step - drawing.products - drawing.attention
        parts = (drawing.products, drawing.attention, rest)
        shares = [f"{1e3 * part:.3g} ms, {part / drawing.step:.0%}" for part in parts]
        made.add_row(str(group), f"{1e3 * drawing.step:.3g} ms", *shares)
    return made


def scoring_table(size: str, scorings: dict[int, dict[str, Scoring]], repeats: int) -> Table:
    """Peak memory and seconds of both ways, a row for each size of group."""
    made = Table(title=f"{size}: scoring, forward and backward, medians of {repeats} processes each")
    for column in ("group", "transformers", "UniRL", "of it", "transformers", "UniRL", "faster", "same scores"):
        made.add_column(column, justify="right", no_wrap=True)
    for group, found in scorings.items():
        if any(way not in found for way in WAYS):
            made.add_row(str(group), *(alone(found.get(way)) for way in WAYS))
            continue
        plain, own = (found[way] for way in WAYS)
        memory = [f"{one.memory.median / 1e9:.3g} GB" for one in (plain, own)]
        seconds = [f"{one.seconds.median:.3g} s" for one in (plain, own)]
        share = f"{own.memory.median / plain.memory.median:.0%}" if plain.memory.median else ""  # lost among the rest
        faster = plain.seconds.median / own.seconds.median
        made.add_row(str(group), *memory, share, *seconds, f"{faster:.2f} times", same(plain, own))
    return made


def alone(one: Scoring | None) -> str:
    """What is known of a way where the other one did not run."""
    return f"{one.memory.median / 1e9:.3g} GB" if one else "out of memory"


def same(plain: Scoring, own: Scoring) -> str:
    """Whether mean score and norm of the gradient agree."""
    agree = abs(plain.log_prob - own.log_prob) <= 1e-4 and abs(plain.norm / own.norm - 1) <= 1e-3
    return "yes" if agree else "NO"


def times(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"
