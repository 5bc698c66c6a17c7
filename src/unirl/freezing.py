"""Training a part of a model."""

from collections.abc import Sequence

from torch import nn

from unirl.adapters import LoRA, add_adapters
from unirl.errors import UserError, nearest


def choose_trained(model: nn.Module, trained: Sequence[str] | None = None, lora: LoRA | None = None) -> None:
    """Add adapters, and freeze what is not trained, as a run's settings say.

    Args:
        model: Built; changed in place.
        trained: As for `freeze_others`; None for everything.
        lora: As for `add_adapters`; None for no adapters.

    Raises:
        UserError: settings that do not fit the model.
    """
    if lora is not None:
        add_adapters(model, lora)
    if trained is not None:
        freeze_others(model, trained)


def freeze_others(model: nn.Module, trained: Sequence[str]) -> None:
    """Leave gradients to the parameters whose name contains one of the given parts; what is frozen stays frozen.

    Args:
        model: Whose parameters.
        trained: Parts of names, such as "self_attn" or "layers.3".

    Raises:
        UserError: a part that no trainable parameter's name contains.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        >>> freeze_others(model, ["1."])
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for part in trained:
        if not any(part in name for name in names):
            parts = sorted({word for name in names for word in name.split(".") if not word.isdigit()})
            raise UserError(
                f"trained: no trainable parameter's name contains {part!r}; nearest: {nearest(part, parts)}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and any(part in name for part in trained))
