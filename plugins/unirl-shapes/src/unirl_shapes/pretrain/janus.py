"""Pre-training of the tiny Janus on rendered images: generation from prompts, and answering questions."""

from functools import partial
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unirl import AnswerSampling, ImageSampling, SamplingConfig
from unirl.backbones.janus import Janus
from unirl_shapes.pretrain.continued import Continuation, Trained, continue_pretraining, copy_weights
from unirl_shapes.pretrain.data import Phase, combined_loss, generation_batch, understanding_batch
from unirl_shapes.pretrain.janus_model import VISION_SIZES, untrained
from unirl_shapes.pretrain.loop import Metrics, train
from unirl_shapes.pretrain.measure import measure
from unirl_shapes.pretrain.tokenizer import scene_codes
from unirl_shapes.pretrain.vq import SIZES as VQ_SIZES
from unirl_shapes.pretrain.vq import pretrain_vq
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import random_scene
from unirl_shapes.vocabulary import CATEGORIES

BEST_SAMPLING = ImageSampling(guidance=0.5, temperature=0.6)
"""Best setting in pre-training."""
SAMPLING_CONFIG = SamplingConfig(ImageSampling(guidance=0.25, temperature=0.6), AnswerSampling(max_tokens=6))
"""How the finished model is sampled by default, as configs/janus_grpo.yaml measures it."""
VISION_STEPS = 500
FOCUS_AFTER = 800
"""From this step on, most questions are about position, or about rows and columns, which help to learn it."""
COUNTING_AFTER = 2600
"""From this step on, more questions are about counting, too."""
GENERATION_AFTER = 3200
"""From this step on, generation is trained, too."""
CONTINUATION = Continuation(
    word_steps=800,
    weight_noise=4.0,
    lr=2e-4,
    category_weights={"single_object": 2.0, "position": 2.0, "complex": 2.0},
)
"""What makes room for self-improvement: plugins/unirl-shapes/docs/janus.md has the figures."""
PROMPT_DROPOUT = 0.1
"""Share of images trained without their prompt, for classifier-free guidance."""


def pretrain_janus(out: Path, steps: int, tokenizer_steps: int, seed: int, init: str | None = None) -> Janus:
    """Train the tiny Janus, resuming where an earlier run stopped.

    Args:
        out: Folder of logs and training states; the finished checkpoint is `out/janus`.
        steps: Training steps of all but the image tokenizer, before pre-training is continued.
        tokenizer_steps: Training steps of the image tokenizer.
        seed: Seed of weights and scenes.
        init: A checkpoint whose pre-training is continued; it replaces these steps. Its vocabulary may be smaller.
    """
    out.mkdir(parents=True, exist_ok=True)
    backbone = _from_scratch(out, steps, tokenizer_steps, seed) if init is None else _from_checkpoint(out, init, seed)
    backbone.sampling_config = SAMPLING_CONFIG
    losses = partial(understanding_loss, backbone), partial(generation_loss, backbone)
    tower = backbone.transformer.base_model.vision_model

    def evaluate() -> Metrics:
        return measure(backbone, 360, BEST_SAMPLING, categories=(*CATEGORIES, "complex"))

    continue_pretraining(Trained("janus", backbone, [tower], *losses, evaluate), CONTINUATION, out, seed)
    backbone.save_pretrained(out / "janus")
    return backbone


def _from_scratch(out: Path, steps: int, tokenizer_steps: int, seed: int) -> Janus:
    """Train the image tokenizer, the vision tower and the rest."""
    backbone = untrained(out / "untrained", pretrain_vq(out, tokenizer_steps, seed), seed)
    pretrain_vision(backbone, out, VISION_STEPS, seed)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} janus {step}")
        return combined_loss(
            rng, phase_of(step), partial(understanding_loss, backbone), partial(generation_loss, backbone)
        )

    def evaluate() -> Metrics:
        return measure(backbone, 360, BEST_SAMPLING)

    train("janus", backbone, loss, out, steps, lr=1e-3, decay=600, evaluate=evaluate)
    return backbone


def _from_checkpoint(out: Path, init: str, seed: int) -> Janus:
    """A trained model, with the words of today."""
    source = Janus.from_pretrained(init)
    backbone = untrained(out / "untrained", source.transformer.base_model.vqmodel, seed)
    tokenizers = source.processor.tokenizer, backbone.processor.tokenizer
    copy_weights(source.transformer, tokenizers[0], backbone.transformer, tokenizers[1])
    return backbone


def pretrain_vision(backbone: Janus, out: Path, steps: int, seed: int) -> None:
    """Train the vision tower to classify the content of each cell. Janus's own is pre-trained, too (SigLIP).

    Args:
        backbone: The model with the tower.
        out: Folder of the log and of the training state.
        steps: Training steps of 32 images.
        seed: Seed of images and of the classifier, which is discarded.
    """
    torch.manual_seed(seed)
    tower = backbone.transformer.base_model.vision_model
    classifier = nn.Linear(VISION_SIZES["hidden_size"], VQ_SIZES["num_embeddings"])

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} vision {step}")
        scenes = [random_scene(rng, rng.randint(0, 12)) for _ in range(32)]
        logits = classifier(tower(render_batch(scenes) * 2 - 1).last_hidden_state).flatten(0, 1)
        codes = scene_codes(scenes).flatten()
        error = (logits.argmax(-1) != codes).float().mean()
        return F.cross_entropy(logits, codes), {"error": error.item()}

    train("vision", nn.ModuleList([tower, classifier]), loss, out, steps, lr=1e-3, warmup=50, decay=steps // 2)


def phase_of(step: int) -> Phase:
    """What a step trains: understanding, with more difficult questions later; generation, too, in the end.

    Args:
        step: Number of the step.
    """
    if step < FOCUS_AFTER:
        return Phase(0, 48)
    if step < COUNTING_AFTER:
        return Phase(0, 48, {"position": 6.0}, num_location=24)
    weights = {"position": 6.0, "counting": 5.0}
    return Phase(0, 48, weights, num_location=12) if step < GENERATION_AFTER else Phase(32, 20, weights, num_location=4)


def generation_loss(backbone: Janus, rng: Random, phase: Phase) -> Tensor:
    """Cross-entropy of each code given its prompt, which is sometimes left out, and the codes before it.

    Args:
        backbone: The model.
        rng: The only source of randomness.
        phase: Size of the batch.
    """
    prompts, scenes = generation_batch(rng, phase)
    codes = scene_codes(scenes).flatten(1)  # equal to the tokenizer's codes of the rendered images
    prefix = backbone.prompt_prefix(prompts, guidance=1.0)  # twice as many rows: with and without prompts
    rows = torch.tensor(
        [i + phase.num_generation * (rng.random() < PROMPT_DROPOUT) for i in range(phase.num_generation)]
    )
    hidden = backbone.code_hidden(prefix.select(rows), codes)
    return F.cross_entropy(backbone.transformer.code_logits(hidden).flatten(0, 1), codes.flatten())


def understanding_loss(backbone: Janus, rng: Random, phase: Phase) -> Tensor:
    """Negative log-likelihood of true answers about rendered images.

    Args:
        backbone: The model.
        rng: The only source of randomness.
        phase: Size and content of the batch.
    """
    scenes, questions, true_answers = understanding_batch(rng, phase)
    answers = backbone.tokenize_answers(true_answers)
    log_probs = backbone.answer_log_probs(backbone.encode(render_batch(scenes)), questions, answers)
    return -log_probs.sum() / answers.mask.sum()
