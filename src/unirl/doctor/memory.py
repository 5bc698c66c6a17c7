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
        guided: Whether drawings are scored under guidance, which doubles the rows.
        learns_drawing: Whether drawings are scored with gradient.
        learns_answer: Whether answers are.
        painted: Whether training needs pixels.
        shards: Processes that share weights, gradients and optimizer states (FSDP); 1 otherwise.
        half: Bytes of an element of what layers keep: 2 under 16 bit, else 4.
    """

    drawings: int
    validated: int = 0
    prompt: int = 16
    answer: int = 32
    views: int = 1
    guided: bool = False
    learns_drawing: bool = True
    learns_answer: bool = True
    painted: bool = False
    shards: int = 1
    half: int = FLOAT


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what they are for.

    Args:
        weights: Of the model.
        gradients: Of what is trained.
        optimizer: AdamW's two moments.
        reference: What the update rule keeps beside the model.
        activations: What the backward pass needs, without recomputation.
        recomputed: The same where each layer keeps its input only.
        logits: Of the training step.
        rollout: Caches, logits and pictures while drawing; training's activations are gone by then, and it is above
            them only where drawings are validated in large batches.
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

    Meant as an upper estimate: all drawings are learnt from, and all answers are as long as the longest. It has not
    been compared with measured peaks yet. Reward models, and what an allocator wastes, are left out.

    Args:
        shape: Of the model.
        step: Of the run.
    """
    kept, again, logits = _drawing(shape, step) if step.learns_drawing else (0.0, 0.0, 0.0)
    if step.learns_answer:
        more = _answering(shape, step)
        kept, again, logits = kept + more[0], again + more[1], logits + more[2]
    return Memory(
        weights=FLOAT * shape.weights / step.shards,
        gradients=FLOAT * shape.trained / step.shards,
        optimizer=2 * FLOAT * shape.trained / step.shards,
        reference=FLOAT * shape.reference,
        activations=kept,
        recomputed=again,
        logits=logits,
        rollout=_rollout(shape, step),
    )


def _drawing(shape: Shape, step: Step) -> tuple[float, float, float]:
    contexts = step.drawings * step.views
    sequences = contexts * (2 if step.guided else 1)
    kept, again = _layers(shape, step, sequences, shape.length + MARKS, step.prompt)
    return kept, again, float(FLOAT * LOGITS * contexts * shape.length * shape.codebook)


def _answering(shape: Shape, step: Step) -> tuple[float, float, float]:
    kept, again = _layers(shape, step, step.drawings, step.answer, shape.length + MARKS)
    seen, seen_again = _layers(shape, step, step.drawings, shape.length + MARKS, 0)
    return kept + seen, again + seen_again, float(FLOAT * LOGITS * step.drawings * step.answer * shape.vocabulary)


def _layers(shape: Shape, step: Step, sequences: int, rows: int, prefix: int) -> tuple[float, float]:
    """What the layers keep of some sequences after cached prefixes: all of it, and their inputs only."""
    cached = 2 * prefix * shape.cached  # once as taken for each sequence, once before the rows that attend to it
    one = sequences * (rows * shape.row + cached)
    inputs = sequences * rows * shape.width * shape.layers
    return float(step.half * one * shape.layers), float(step.half * (inputs + one))


def _rollout(shape: Shape, step: Step) -> float:
    drawings = max(step.drawings, step.validated)
    sequences = drawings * (2 if step.guided else 1)
    caches = FLOAT * sequences * (step.prompt + shape.length + step.answer) * shape.cached * shape.layers
    logits = FLOAT * LOGITS * drawings * shape.length * shape.codebook
    pictures = step.drawings if step.painted else 0
    painted = FLOAT * PAINTED * max(pictures, step.validated) * shape.painted
    return float(max(caches + logits, painted))
