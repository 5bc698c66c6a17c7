"""Trains the world's tiny Janus on renderings: drawing from prompts, and seeing in cluttered scenes."""

from functools import partial
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unirl.backbones.janus import Janus
from unirl.types import ImageSampling
from unirl_shapes.pretrain.janus_model import VISION_SIZES, untrained
from unirl_shapes.pretrain.lessons import Phase, both_losses, drawing_lesson, seeing_lesson
from unirl_shapes.pretrain.measure import measure
from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.pretrain.tokenizer import wanted_codes
from unirl_shapes.pretrain.vq import SIZES as VQ_SIZES
from unirl_shapes.pretrain.vq import pretrain_vq
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import clutter

BEST = ImageSampling(guidance=0.5, temperature=0.6)
"""Where the finished model draws training prompts best, by the sweep in docs/results.md."""
VISION_STEPS = 500
FOCUS_AFTER = 800
"""From this step on it is mostly position that is asked about, and rows and columns, which prepare it."""
COUNTING_AFTER = 2600
"""From this step on it is counting, too."""
DRAWING_AFTER = 3200
"""It draws last, when it can see."""
DROPPED = 0.1
"""Share of drawings learnt without their prompt, so that guidance has something to lead away from."""


def pretrain_janus(out: Path, steps: int, tokenizer_steps: int, seed: int) -> Janus:
    """Train the tiny Janus, continuing where a killed run stopped.

    Args:
        out: Folder of logs and states; the finished checkpoint is `out/janus`.
        steps: Training steps of all but the image tokenizer.
        tokenizer_steps: Training steps of the image tokenizer.
        seed: Of weights and scenes.
    """
    out.mkdir(parents=True, exist_ok=True)
    backbone = untrained(out / "untrained", pretrain_vq(out, tokenizer_steps, seed), seed)
    pretrain_vision(backbone, out, VISION_STEPS, seed)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} janus {step}")
        return both_losses(rng, phase_of(step), partial(seeing_loss, backbone), partial(drawing_loss, backbone))

    def evaluate() -> Metrics:
        return measure(backbone, 360, BEST)

    train("janus", backbone, loss, out, steps, lr=1e-3, decay=600, evaluate=evaluate)
    backbone.save_pretrained(out / "janus")
    return backbone


def pretrain_vision(backbone: Janus, out: Path, steps: int, seed: int) -> None:
    """Teach the vision tower to tell what is in each cell. Janus's own comes pre-trained (SigLIP), too.

    Args:
        backbone: Whose tower it is.
        out: Folder of the log and the state.
        steps: Training steps of 32 pictures.
        seed: Of pictures and of the classifier, which is thrown away.
    """
    torch.manual_seed(seed)
    tower = backbone.transformer.base_model.vision_model
    namer = nn.Linear(VISION_SIZES["hidden_size"], VQ_SIZES["num_embeddings"])

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} vision {step}")
        scenes = [clutter(rng, rng.randint(0, 12)) for _ in range(32)]
        logits = namer(tower(render_batch(scenes) * 2 - 1).last_hidden_state).flatten(0, 1)
        codes = wanted_codes(scenes).flatten()
        wrong = (logits.argmax(-1) != codes).float().mean()
        return F.cross_entropy(logits, codes), {"wrong": wrong.item()}

    train("vision", nn.ModuleList([tower, namer]), loss, out, steps, lr=1e-3, warmup=50, decay=steps // 2)


def phase_of(step: int) -> Phase:
    """What a step trains: seeing, first all of it, then what is learnt last; and at the end drawing beside it."""
    if step < FOCUS_AFTER:
        return Phase(0, 48)
    if step < COUNTING_AFTER:
        return Phase(0, 48, {"position": 6.0}, located=24)
    asked = {"position": 6.0, "counting": 5.0}
    return Phase(0, 48, asked, located=12) if step < DRAWING_AFTER else Phase(32, 20, asked, located=4)


def drawing_loss(backbone: Janus, rng: Random, phase: Phase) -> Tensor:
    """Cross-entropy of each code after those before it, under its prompt; now and then under none.

    Args:
        backbone: The model.
        rng: Where chance comes from.
        phase: How many.
    """
    prompts, scenes = drawing_lesson(rng, phase.drawn)
    codes = wanted_codes(scenes).flatten(1)  # what the tokenizer makes of their renderings
    prefix = backbone.prompt_prefix(prompts, guidance=1.0)  # twice as many rows: with prompts, and without
    rows = torch.tensor([i + phase.drawn * (rng.random() < DROPPED) for i in range(phase.drawn)])
    hidden = backbone.code_hidden(prefix.select(rows), codes)
    return F.cross_entropy(backbone.transformer.code_logits(hidden).flatten(0, 1), codes.flatten())


def seeing_loss(backbone: Janus, rng: Random, phase: Phase) -> Tensor:
    """Negative log-likelihood of true answers about renderings.

    Args:
        backbone: The model.
        rng: Where chance comes from.
        phase: How many, and about what.
    """
    scenes, questions, truths = seeing_lesson(rng, phase)
    answers = backbone.tokenize_answers(truths)
    log_probs = backbone.answer_log_probs(backbone.encode(render_batch(scenes)), questions, answers)
    return -log_probs.sum() / answers.mask.sum()
