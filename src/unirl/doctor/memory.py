"""How much memory a device will need: a pure function of a model's sizes and a run's settings."""

from dataclasses import dataclass

from unirl.doctor.shape import Shape

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
        views: Contexts in which a drawing is scored: random masks, scored steps, or one.
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
    views: int = 1
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

    def total(self, recompute: bool = False) -> float:
        """The peak: what is always held, and the larger of training and drawing."""
        held = self.weights + self.gradients + self.optimizer + self.reference
        return held + max((self.recomputed if recompute else self.activations) + self.logits, self.rollout)


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
        contexts = step.drawings * step.views * (2 if step.guided else 1)
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
