"""What an update rule returns, checked: a loss is one real number with a gradient, and so are its metrics without."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.plugin_outputs import find_mismatch
from unirl.updates.base import UpdateRule


def check_loss(rule: UpdateRule, result: object, device: torch.device) -> tuple[Tensor, Mapping[str, Tensor]]:
    """What `UpdateRule.loss` returned.

    Args:
        rule: The update rule, for the message.
        result: The loss and the metrics.
        device: Where the loss must be.

    Raises:
        UserError: the loss is no scalar with gradient, or a metric is no scalar.

    Example:
        >>> from unirl.updates import SFT
        >>> loss = torch.ones((), requires_grad=True)
        >>> check_loss(SFT(), (loss, {"kl": torch.zeros(())}), loss.device)[1]
        {'kl': tensor(0.)}
        >>> try:
        ...     check_loss(SFT(), (loss[None], {}), loss.device)
        ... except UserError as error:
        ...     print(error)
        update rule SFT: the loss: got shape (1,), expected (): a single number
    """
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        raise UserError(f"{_name(rule)}: loss returned {type(result).__name__}, expected a loss and a dict of metrics")
    loss, metrics = result
    check_scalar(rule, "the loss", loss, device)
    for name, value in metrics.items():
        if not isinstance(value, int | float) and (mismatch := find_mismatch(value, ())) is not None:
            raise UserError(f"{_name(rule)}: the metric {name!r}: got {mismatch}")
    return loss, metrics


def check_scalar(rule: UpdateRule, what: str, loss: object, device: torch.device) -> None:
    """Refuse a loss that cannot be minimized.

    Args:
        rule: The update rule, for the message.
        what: The loss, for the message.
        loss: What was returned.
        device: Where it must be.

    Raises:
        UserError: it is no scalar with gradient.
    """
    mismatch = find_mismatch(loss, (), device)
    if mismatch is None and isinstance(loss, Tensor) and not loss.requires_grad:
        mismatch = "a number without a gradient; add unirl.functional.zero_loss(backbone) where no sample gives one"
    if mismatch is not None:
        raise UserError(f"{_name(rule)}: {what}: got {mismatch}")


def _name(rule: UpdateRule) -> str:
    return f"update rule {type(rule).__name__}"
