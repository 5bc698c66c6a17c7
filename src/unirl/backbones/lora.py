"""Low-rank adapters (peft), and which parameters are trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unirl.errors import UserError, suggest


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters on linear layers.

    Args:
        targets: Names of the layers, or their last parts, such as "q_proj".
        rank: Rank of the adapters.
        alpha: The adapters are scaled by alpha / rank.

    Source: Hu et al. 2021 (arXiv 2106.09685).
    """

    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    rank: int = 16
    alpha: int = 32


def add_adapters(model: nn.Module, lora: LoRA) -> None:
    """Add adapters to a model, in place, and freeze everything else.

    Args:
        model: A built model.
        lora: Which layers, and how large.

    Raises:
        UserError: peft is not installed, or no linear layer has one of the names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise UserError(f'lora needs peft ({error}); pip install "lightning-unirl[lora]"') from error
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for target in lora.targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            parts = sorted({name.rpartition(".")[2] for name in layers})
            hint = f"{suggest(target, parts)}"
            raise UserError(f"model.lora.targets: no linear layer is called {target!r}; {hint}")
    model.requires_grad_(False)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
    inject_adapter_in_model(config, model)


def is_adapter(module: nn.Module) -> bool:
    """Whether a module is a layer that peft has wrapped; imports no peft."""
    return any(base.__name__ == "BaseTunerLayer" for base in type(module).__mro__)


@contextmanager
def merged(model: nn.Module) -> Iterator[nn.Module]:
    """Merge adapters into the weights and hide them, in a `with` block. All weights are float32 there.

    Afterwards the weights are what they were, to the bit.

    Args:
        model: A model with or without adapters.
    """
    weights = {parameter: parameter.data for parameter in model.parameters() if _is_16_bit(parameter)}
    adapters: list[tuple[nn.Module, str, Any]] = []
    for parent in list(model.modules()):
        if not is_adapter(parent):
            adapters += [(parent, name, child) for name, child in parent.named_children() if is_adapter(child)]
    for _, _, layer in adapters:
        weights |= {parameter: parameter.data for parameter in layer.get_base_layer().parameters()}
    for parameter, value in weights.items():
        parameter.data = value.clone() if value.dtype == torch.float32 else value.float()
    for parent, name, layer in adapters:
        layer.merge()
        setattr(parent, name, layer.get_base_layer())
    try:
        yield model
    finally:
        for parent, name, layer in adapters:
            setattr(parent, name, layer)
            layer.unmerge()
        for parameter, value in weights.items():
            parameter.data = value


def _is_16_bit(parameter: nn.Parameter) -> bool:
    return parameter.is_floating_point() and parameter.itemsize == 2


def select_trainable(
    model: nn.Module, trainable_modules: Sequence[str] | None = None, lora: LoRA | None = None
) -> None:
    """Add adapters and freeze parameters, as the settings of a run say.

    Args:
        model: A built model; changed in place.
        trainable_modules: As for `freeze_except`; None for everything.
        lora: As for `add_adapters`; None for no adapters.

    Raises:
        UserError: the settings do not fit the model.
    """
    if lora is not None:
        add_adapters(model, lora)
    if trainable_modules is not None:
        freeze_except(model, trainable_modules)


def freeze_except(model: nn.Module, trainable_modules: Sequence[str]) -> None:
    """Freeze all parameters whose name contains none of the given parts; frozen parameters stay frozen.

    Args:
        model: A built model; changed in place.
        trainable_modules: Parts of names, such as "self_attn" or "layers.3".

    Raises:
        UserError: no trainable parameter's name contains one of the parts.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        >>> freeze_except(model, ["1."])
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for part in trainable_modules:
        if not any(part in name for name in names):
            parts = sorted({word for name in names for word in name.split(".") if not word.isdigit()})
            raise UserError(
                f"model.trainable_modules: no trainable parameter's name contains {part!r}; {suggest(part, parts)}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and any(part in name for part in trainable_modules))
