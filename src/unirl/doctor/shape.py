"""Sizes of a model that was built on the meta device: all that an estimate of memory needs to know of it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.decoding.packing import packable
from unirl.types import Images

LENGTH, CODEBOOK = 1024, 16384
"""Codes of a picture, and entries of the codebook, of a backbone that does not say."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, in elements.

    Args:
        weights: Of all parameters and buffers.
        trained: Of the parameters that are trained.
        reference: Held by the update rule beside them, such as a frozen copy.
        layers: Repeated layers of the language model.
        width: Of its hidden states.
        row: What one layer keeps of one row for the gradient.
        cached: Keys and values of one row in one layer.
        vocabulary: Text ids.
        length: Codes of a picture.
        codebook: Entries of the codebook.
        tower: What the tower that looks at a picture keeps of one for the gradient; 0 where there is none.
        painted: What the widest layer that paints a picture holds of one.
        painting: What all modules that paint a picture are given and give, of one: about what they keep for a gradient.
        recompute: Whether layers keep their input only.
        together: Pictures that are painted or looked at together where that is computed again; 0 for all of them.
        packed: Weights of all layers that may be packed while it draws or answers.
    """

    weights: int
    trained: int
    reference: int
    layers: int
    width: int
    row: int
    cached: int
    vocabulary: int
    length: int
    codebook: int
    tower: int
    painted: int
    painting: int = 0
    recompute: bool = False
    together: int = 0
    packed: int = 0


def shape_of(backbone: Backbone, rule: object = None) -> Shape:
    """Read the sizes.

    Args:
        backbone: Built; the meta device will do.
        rule: An update rule that was attached to it.
    """
    layers, *towers = _repeated(backbone) or [[]]
    linear = _linear(layers[0]) if layers else []
    own = [*backbone.parameters(), *backbone.buffers()]
    config: Any = getattr(backbone, "config", None)
    length = _length(backbone, config)
    keys = [m.out_features for name, m in linear if name.endswith(("k_proj", "v_proj"))]
    width = linear[0][1].in_features if linear else 0
    return Shape(
        weights=sum(tensor.numel() for tensor in own),
        trained=sum(p.numel() for p in backbone.parameters() if p.requires_grad),
        reference=sum(tensor.numel() for tensor in _held(rule, {id(tensor) for tensor in own})),
        layers=len(layers),
        width=width,
        row=_row(linear),
        cached=sum(keys) or 2 * width,
        vocabulary=max((m.num_embeddings for m in backbone.modules() if isinstance(m, nn.Embedding)), default=0),
        length=length,
        codebook=int(getattr(config, "codebook_size", 0) or _codebook(backbone) or CODEBOOK),
        tower=length * sum(_row(_linear(layer)) for tower in towers for layer in tower),
        painted=_painted(backbone, length),
        painting=_painting(backbone, length),
        recompute=bool(getattr(backbone, "recompute", False)),
        together=int(getattr(backbone, "recomputed_together", 0)),
        packed=sum(layer.weight.numel() for layer in packable(getattr(backbone, "transformer", backbone))),
    )


def _length(backbone: Backbone, config: Any) -> int:
    side = int(getattr(backbone, "side", 0) or 0)
    return int(getattr(config, "num_vq_tokens", 0) or getattr(backbone, "length", 0) or side**2 or LENGTH)


def _repeated(backbone: Backbone) -> list[list[nn.Module]]:
    """The repeated layers by kind: first the language model's, which hold most weights, then those of towers."""
    kinds: dict[type, list[nn.Module]] = defaultdict(list)
    for module in backbone.modules():
        if isinstance(module, backbone.blocks):
            kinds[type(module)].append(module)
    return sorted(kinds.values(), key=lambda ms: sum(p.numel() for m in ms for p in m.parameters()), reverse=True)


def _linear(layer: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in layer.named_modules() if isinstance(m, nn.Linear)]


def _row(linear: list[tuple[str, nn.Linear]]) -> int:
    """What the linear layers are given and give, of one row: nearly all that a layer keeps for the gradient."""
    return sum(m.in_features + m.out_features for _, m in linear)


def _codebook(backbone: Backbone) -> int:
    """The second largest embedding is the codebook's, where text and codes have one each."""
    sizes = sorted((m.num_embeddings for m in backbone.modules() if isinstance(m, nn.Embedding)), reverse=True)
    return sizes[1] if len(sizes) > 1 else 0


def _painted(backbone: Backbone, length: int) -> int:
    """The last convolution gives three colors; what enters it has the picture's size and the decoder's base width."""
    last = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 3]
    if not last:
        return 0
    halvings = sum(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in backbone.modules())
    return length * 4**halvings * last[-1].in_channels


def _painting(backbone: Backbone, length: int) -> int:
    """Painted once on the meta device, where it costs nothing."""
    sizes: list[int] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        sizes.extend(one.numel() for one in (*inputs, output) if isinstance(one, Tensor))

    leaves = [module for module in backbone.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(note) for module in leaves]
    try:
        backbone.decode(Images(torch.zeros(1, length, dtype=torch.long, device="meta")))
    except Exception:  # what comes after painting may need more than a model without weights has
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes)


def _held(owner: object, seen: set[int]) -> Iterable[Tensor]:
    """Tensors that can be reached from an object and are not among those seen."""
    if id(owner) in seen or owner is None or isinstance(owner, type):
        return
    seen.add(id(owner))
    if isinstance(owner, Tensor):
        yield owner
    elif isinstance(owner, nn.Module):
        for tensor in (*owner.parameters(), *owner.buffers()):
            yield from _held(tensor, seen)
    elif isinstance(owner, dict):
        for value in owner.values():
            yield from _held(value, seen)
    elif isinstance(owner, list | tuple):
        for value in owner:
            yield from _held(value, seen)
    elif hasattr(owner, "__dict__"):
        yield from _held(vars(owner), seen)
