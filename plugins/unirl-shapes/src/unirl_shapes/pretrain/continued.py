"""Continued pre-training: new words, and mistakes of understanding that are not systematic."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from unirl_shapes.pretrain.data import CAPTION_NOISE, Phase, combined_loss
from unirl_shapes.pretrain.loop import Metrics, train, write_log

Loss = Callable[[Random, Phase], Tensor]
"""The loss of one task, of a batch that depends on the random generator and the phase only."""

_TRUE = CAPTION_NOISE | {"position": 0.0, "color_attr": 0.0}
"""Captions of relations and of bound colors are true now."""
_RELATIONS = Phase(48, 0, None, 0, {"position": 12.0, "color_attr": 3.0, "complex": 2.0}, _TRUE)
"""Generation only, mostly of relations: a tiny model learns nothing about them for long, and then all at once."""
_WORDS = {"single_object": 0.5, "position": 4.0, "color_attr": 4.0, "complex": 4.0}


@dataclass(frozen=True)
class Continuation:
    """How a base model is trained on.

    Args:
        word_steps: Steps of both tasks.
        weight_noise: Standard deviation of the noise, relative to that of the weights of each matrix.
        lr: Maximum learning rate.
        category_weights: Relative frequency of categories in questions.
        num_location: Questions about the row and column of an object.
        relation_steps: Steps of generation only, mostly of relations, before all others.
        relation_lr: Their maximum learning rate.
        relation_noise: Share of wrong captions of relations, once they are known.
    """

    word_steps: int
    weight_noise: float
    lr: float
    category_weights: Mapping[str, float]
    num_location: int = 0
    relation_steps: int = 0
    relation_lr: float = 1e-3
    relation_noise: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What is trained on.

    Args:
        name: Prefix of logs and training states.
        model: The model.
        noisy: Its parts that get the noise.
        understanding_loss: Computes the loss of answers.
        generation_loss: Computes the loss of images.
        evaluate: Returns measurements for the log.
    """

    name: str
    model: nn.Module
    noisy: Sequence[nn.Module]
    understanding_loss: Loss
    generation_loss: Loss
    evaluate: Callable[[], Metrics]


def continue_pretraining(trained: Trained, settings: Continuation, out: Path, seed: int) -> None:
    """Teach relations and the words of complex prompts, then blur the model by weight noise.

    Args:
        trained: The model and its losses.
        settings: Numbers of steps, and the size of the noise.
        out: Folder of logs and training states; an earlier run is resumed.
        seed: Seed of scenes and of the noise.
    """
    name, losses = trained.name, (trained.understanding_loss, trained.generation_loss)

    def loss(step: int, stage: str, phase: Phase) -> tuple[Tensor, Metrics]:
        return combined_loss(Random(f"{seed} {name} {stage} {step}"), phase, *losses)

    def stage(of_name: str, phase: Phase, steps: int, lr: float = settings.lr) -> None:
        of_step = partial(loss, stage=of_name, phase=phase)
        decay = max(steps // 2, 1)
        train(f"{name}_{of_name}", trained.model, of_step, out, steps, lr, 100, decay, evaluate=trained.evaluate)

    captions = _TRUE | {"position": settings.relation_noise}
    both = Phase(24, 40, settings.category_weights, settings.num_location, _WORDS, captions)
    stage("relations", _RELATIONS, settings.relation_steps, settings.relation_lr)
    stage("words", both, settings.word_steps)
    add_weight_noise(trained.noisy, settings.weight_noise, seed)
    if not (log := out / f"{name}_noise.log.jsonl").is_file():
        write_log(log, {"noise": settings.weight_noise} | trained.evaluate())


@torch.no_grad()
def copy_weights(
    source: nn.Module, words: PreTrainedTokenizerBase, target: nn.Module, new_words: PreTrainedTokenizerBase
) -> None:
    """Copy a model into one with a larger vocabulary of text. Rows of new words stay as they are.

    Args:
        source: The smaller model.
        words: Its text tokenizer. Rows that follow those of its words (image codes) are the last ones of both models.
        target: The larger model, changed in place: the same architecture.
        new_words: Its text tokenizer, which has all of `words`.
    """
    weights = target.state_dict()
    ids = sorted(words.get_vocab().items(), key=lambda item: item[1])
    new_ids = torch.tensor([new_words.get_vocab()[word] for word, _ in ids])
    for name, weight in source.state_dict().items():
        if weight.shape == weights[name].shape:
            weights[name].copy_(weight)
            continue
        weights[name][new_ids] = weight[: len(ids)]
        if others := len(weight) - len(ids):
            weights[name][-others:] = weight[-others:]


@torch.no_grad()
def add_weight_noise(modules: Sequence[nn.Module], scale: float, seed: int) -> None:
    """Add Gaussian noise to all weight matrices: the model confuses what it could hardly tell apart, in all directions.

    Mistakes that a model was taught, or that come from too little training, are the same for all images of a kind, and
    cannot be averaged away; these can.

    Args:
        modules: Changed in place.
        scale: Standard deviation of the noise, relative to that of the weights of each matrix.
        seed: Seed of the noise.

    Example:
        >>> layer = nn.Linear(64, 64)
        >>> before = layer.weight.clone()
        >>> add_weight_noise([layer], 0.5, seed=0)
        >>> round(((layer.weight - before).std() / before.std()).item(), 1)
        0.5
    """
    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        for weight in module.parameters():
            if weight.ndim > 1:
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
                weight.add_(noise, alpha=scale * weight.std().item())
