"""Sizes of a model that was built on the meta device: all that an estimate of memory needs to know of it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unirl.backbones import Backbone

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
        painted: What the widest layer that paints a picture holds of one.
        recompute: Whether layers keep their input only.
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
    painted: int
    recompute: bool = False


def shape_of(backbone: Backbone, rule: object = None) -> Shape:
    """Read the sizes.

    Args:
        backbone: Built; the meta device will do.
        rule: An update rule that was attached to it.
    """
    layers = _language_model(backbone)
    linear = [(name, m) for name, m in layers[0].named_modules() if isinstance(m, nn.Linear)] if layers else []
    own = [*backbone.parameters(), *backbone.buffers()]
    config: Any = getattr(backbone, "config", None)
    side = int(getattr(backbone, "side", 0) or 0)
    length = getattr(config, "num_vq_tokens", 0) or getattr(backbone, "length", 0) or side**2 or LENGTH
    keys = [m.out_features for name, m in linear if name.endswith(("k_proj", "v_proj"))]
    width = linear[0][1].in_features if linear else 0
    return Shape(
        weights=sum(tensor.numel() for tensor in own),
        trained=sum(p.numel() for p in backbone.parameters() if p.requires_grad),
        reference=sum(tensor.numel() for tensor in _held(rule, {id(tensor) for tensor in own})),
        layers=len(layers),
        width=width,
        row=sum(m.in_features + m.out_features for _, m in linear),
        cached=sum(keys) or 2 * width,
        vocabulary=max((m.num_embeddings for m in backbone.modules() if isinstance(m, nn.Embedding)), default=0),
        length=int(length),
        codebook=int(getattr(config, "codebook_size", 0) or _codebook(backbone) or CODEBOOK),
        painted=_painted(backbone, int(length)),
        recompute=bool(getattr(backbone, "recompute", False)),
    )


def _language_model(backbone: Backbone) -> list[nn.Module]:
    """The repeated layers that hold most weights; others belong to a tower that looks at pictures."""
    kinds: dict[type, list[nn.Module]] = defaultdict(list)
    for module in backbone.modules():
        if isinstance(module, backbone.blocks):
            kinds[type(module)].append(module)
    return max(kinds.values(), key=lambda ms: sum(p.numel() for m in ms for p in m.parameters()), default=[])


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
