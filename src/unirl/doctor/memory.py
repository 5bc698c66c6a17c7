"""How much memory a device will need: a pure function of a model's sizes and a run's settings."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.sampling.packing import packable
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
        gradient_checkpointing: Whether layers keep their input only.
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
    gradient_checkpointing: bool = False
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
        reference=sum(tensor.numel() for tensor in _reachable(rule, {id(tensor) for tensor in own})),
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


def _reachable(owner: object, seen: set[int]) -> Iterable[Tensor]:
    """Tensors that can be reached from an object and are not among those seen."""
    if id(owner) in seen or owner is None or isinstance(owner, type):
        return
    seen.add(id(owner))
    if isinstance(owner, Tensor):
        yield owner
    elif isinstance(owner, nn.Module):
        for tensor in (*owner.parameters(), *owner.buffers()):
            yield from _reachable(tensor, seen)
    elif isinstance(owner, dict):
        for value in owner.values():
            yield from _reachable(value, seen)
    elif isinstance(owner, list | tuple):
        for value in owner:
            yield from _reachable(value, seen)
    elif hasattr(owner, "__dict__"):
        yield from _reachable(vars(owner), seen)


FLOAT = 4
"""Bytes of float32, in which weights, gradients and optimizer states are held, and most of what layers keep."""
LOGITS = 4
"""Copies of logits that are alive at once: as computed, divided by the temperature, log-softmax, and its gradient."""
PAINTED = 4
"""Copies of the widest layer while a picture is painted: in, normalised, convolved, and the shortcut."""
MARKS = 4
"""Rows around a picture or a question that are neither codes nor words."""


@dataclass(frozen=True)
class Step:
    """What a device does in a step.

    Args:
        drawings: Drawings of a rollout, on one device.
        validated: Held-out prompts drawn at once.
        prompt: Tokens of the longest prompt.
        answer: Tokens of the longest question with its answer.
        num_masks: Contexts in which a drawing is scored: random masks, scored steps, or one.
        scored: How often each code of it is: once in the step that drew it, or under every mask.
        guided: Whether drawings are scored under guidance, which doubles the rows.
        learns_drawing: Whether drawings are scored with gradient.
        learns_answer: Whether answers are.
        painted: Whether training needs pixels.
        through: Whether the gradient goes through painting.
        shards: Processes that share weights, gradients and optimizer states (FSDP); 1 otherwise.
        gathered: Whether weights and gradients are whole while a step is taken, as under `fsdp2`.
        half: Bytes of an element of what layers keep: 2 under 16 bit, else 4.
        packs: Whether the language model's large layers are packed while it draws, as on a CPU (`decoding/packing.py`).
    """

    drawings: int
    validated: int = 0
    prompt: int = 16
    answer: int = 32
    num_masks: int = 1
    scored: int = 1
    guided: bool = False
    learns_drawing: bool = True
    learns_answer: bool = True
    painted: bool = False
    through: bool = False
    shards: int = 1
    gathered: bool = False
    half: int = FLOAT
    packs: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what they are for.

    Args:
        weights: Of the model; where they are gathered for a step, the whole and the process's share of it.
        gradients: Of what is trained.
        optimizer: AdamW's two moments.
        reference: What the update rule keeps beside the model.
        activations: What the backward pass needs, without recomputation: what all layers, the tower and the painter
            keep, and as much again for one layer, the gradients of what it kept.
        recomputed: The same where layers keep their inputs only: those, prefixes, and one layer, tower or painter in
            full.
        logits: Of the training step.
        rollout: Caches, logits, packed weights and pictures while drawing; training's activations are gone by then, and
            it is above them only where drawings are validated in large batches, or little is trained of much.
    """

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    recomputed: float
    logits: float
    rollout: float

    def total(self, gradient_checkpointing: bool = False) -> float:
        """The peak: what is always held, and the larger of training and drawing."""
        held = self.weights + self.gradients + self.optimizer + self.reference
        return held + max((self.recomputed if gradient_checkpointing else self.activations) + self.logits, self.rollout)


def estimate(shape: Shape, step: Step) -> Memory:
    """Memory of one device.

    All drawings are learnt from, and all answers are as long as the longest. Reward models, the process itself, and
    what an allocator wastes, are left out. `benchmarks/memory.py` compares it with measured peaks.

    Args:
        shape: Of the model.
        step: Of the run.
    """
    passes = _passes(shape, step)
    layer = max((one for one, _ in passes), default=0.0)
    seen = shape.tower * step.learns_answer, shape.painting * step.through
    looked, painted = (float(step.half * step.drawings * one) for one in seen)
    share = min(1.0, (shape.together or step.drawings) / step.drawings)
    weights, gradients, reference = _held(shape, step)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=2 * FLOAT * shape.trained / step.shards,
        reference=reference,
        activations=shape.layers * sum(one for one, _ in passes) + layer + looked + painted,
        recomputed=sum(again for _, again in passes) + max(2 * layer, looked * share, painted * share),
        logits=_logits(shape, step),
        rollout=_rollout(shape, step),
    )


def _held(shape: Shape, step: Step) -> tuple[float, float, float]:
    """Weights, gradients and reference. A gathered model is copied together from shares, which stay where they are.

    The gathered reference is let go of before the backward pass: either it is whole, or the gradients are.
    """
    weights, gradients, reference = (float(FLOAT * n) for n in (shape.weights, shape.trained, shape.reference))
    if not step.gathered:
        return weights / step.shards, gradients / step.shards, reference
    share = 1 / step.shards
    return weights * (1 + share), max(gradients, gradients * share + reference), reference * share


def _passes(shape: Shape, step: Step) -> list[tuple[float, float]]:
    """What one layer keeps, and all layers with recomputation, in each pass: drawings; pictures; questions about them.

    With recomputation, the pass over pictures still leaves the cache that questions read.
    """
    picture, passes = shape.length + MARKS, []
    if step.learns_drawing:
        contexts = step.drawings * step.num_masks * (2 if step.guided else 1)
        passes.append(_pass(shape, step, contexts, picture, step.prompt))
    if step.learns_answer:
        one, again = _pass(shape, step, step.drawings, picture, 0)
        cache = float(step.half * step.drawings * picture * shape.cached * shape.layers)
        passes.append((one, again + cache))
        passes.append(_pass(shape, step, step.drawings, step.answer, picture))
    return passes


def _pass(shape: Shape, step: Step, sequences: int, rows: int, prefix: int) -> tuple[float, float]:
    cached = prefix * shape.cached  # as taken for each sequence, and once more before the rows that attend to it
    one = sequences * (rows * shape.row + 2 * cached)
    again = sequences * (rows * shape.width + 2 * cached) * shape.layers  # its gradients wait for those of all layers
    return float(step.half * one), float(step.half * again)


def _logits(shape: Shape, step: Step) -> float:
    codes = step.scored * shape.length * shape.codebook if step.learns_drawing else 0
    words = step.answer * shape.vocabulary if step.learns_answer else 0
    return float(FLOAT * LOGITS * step.drawings * (codes + words))


def _rollout(shape: Shape, step: Step) -> float:
    drawings = max(step.drawings, step.validated)
    sequences = drawings * (2 if step.guided else 1)
    caches = FLOAT * sequences * (step.prompt + shape.length + step.answer) * shape.cached * shape.layers
    logits = FLOAT * LOGITS * drawings * shape.length * shape.codebook
    pictures = step.drawings if step.painted else 0
    painted = FLOAT * PAINTED * max(pictures, step.validated) * shape.painted
    packed = FLOAT * shape.packed * step.packs
    return float(max(caches + logits + packed, painted))
