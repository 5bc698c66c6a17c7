"""Trains the world's tiny Janus on renderings: drawing from prompts, and seeing in cluttered scenes."""

from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import processors
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessor,
    JanusProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.janus import Janus
from unirl.backbones.janus.checkpoint import save
from unirl.types import ImageSampling
from unirl_shapes.pretrain.lessons import Phase, drawing_lesson, seeing_lesson, text_tokenizer
from unirl_shapes.pretrain.measure import measure
from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.pretrain.tokenizer import wanted_codes
from unirl_shapes.pretrain.vq import SIZES as VQ_SIZES
from unirl_shapes.pretrain.vq import pretrain_vq
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import clutter
from unirl_shapes.vocabulary import CELLS

TEXT_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}
VISION_SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
    "projection_dim": 128,
    "num_image_tokens": CELLS,
}
MARKS = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
TEMPLATE = (
    "{%for message in messages%}{{message['role']}} : "
    "{%for part in message['content']%}"
    "{%if part['type']=='image'%}<image_placeholder> {%else%}{{part['text']}}{%endif%}"
    "{%endfor%}{%if not loop.last or add_generation_prompt%} {%endif%}{%endfor%}"
    "{%if add_generation_prompt%}assistant :{%endif%}"
)
"""Janus's own form in the world's words."""
BEST = ImageSampling(guidance=0.5, temperature=0.6)
VISION_STEPS = 500
FOCUS_AFTER = 1200
"""From this step on it is mostly position that is asked about, and rows and columns, which prepare it."""
COUNTING_AFTER = 3100
"""From this step on it is counting, too."""
DRAWN_EVERY = 6
"""From then on only every so many steps train drawing: the model shall see better than it draws."""
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
        phase = phase_of(step)
        see = seeing_loss(backbone, rng, phase)
        if not phase.drawn:
            return see, {"seeing_loss": see.item()}
        draw = drawing_loss(backbone, rng, phase)
        return draw + see, {"drawing_loss": draw.item(), "seeing_loss": see.item()}

    def evaluate() -> Metrics:
        return measure(backbone, 360, BEST)

    train("janus", backbone, loss, out, steps, lr=1e-3, decay=1000, evaluate=evaluate)
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
    tower = backbone.transformer.parts.vision_model
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
    """What a step trains: both tasks, then seeing and what is learnt last, with a little drawing to remember it."""
    if step < FOCUS_AFTER:
        return Phase(12, 48)
    asked = {"position": 6.0} if step < COUNTING_AFTER else {"position": 6.0, "counting": 5.0}
    return Phase(6 if step % DRAWN_EVERY == 0 else 0, 48, asked, located=24 if step < COUNTING_AFTER else 12)


def untrained(folder: Path, vq: JanusVQVAE, seed: int) -> Janus:
    """A tiny Janus with fresh weights around an image tokenizer, by way of a checkpoint in transformers' format."""
    words = chat_tokenizer()
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config = JanusConfig(
        text_config=TEXT_SIZES | ids | {"vocab_size": len(words)},
        vision_config=VISION_SIZES,
        vq_config=VQ_SIZES,
        image_token_id=words.get_vocab()[words.image_token],
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(config)
    spread(model)
    model.model.vqmodel.load_state_dict(vq.state_dict())
    begin = {"boi_token_id": words.get_vocab()[words.boi_token]}
    model.generation_config = GenerationConfig(**ids, guidance_scale=5, generation_kwargs=begin)
    side = VISION_SIZES["image_size"]
    pictures = JanusImageProcessor(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    save(folder, model, JanusProcessor(pictures, words, chat_template=TEMPLATE, num_image_tokens=CELLS))
    return Janus.from_pretrained(str(folder))


@torch.no_grad()
def spread(model: JanusForConditionalGeneration) -> None:
    """Draw the weights of all but the towers anew, as wide as their inputs ask for.

    transformers' own width is made for thousands of channels. At a hundred, attention begins flat, and a model that
    must find the circle that a question is about is still looking after a thousand steps.
    """
    parts = model.model
    for part in (parts.language_model, parts.aligner, parts.generation_aligner, parts.generation_head, model.lm_head):
        for weight in part.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[1] ** -0.5)
    parts.language_model.embed_tokens.weight.normal_(std=0.1)
    parts.generation_embeddings.weight.normal_()


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """The world's words and Janus's marks around pictures."""
    plain = text_tokenizer()
    plain.add_special_tokens({"bos_token": "<bos>", "pad_token": "<pad>"})
    begin = ("<bos>", plain.bos_token_id)
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[begin])
    names = {"bos_token": "<bos>", "eos_token": plain.eos_token, "pad_token": "<pad>", "unk_token": plain.unk_token}
    return PreTrainedTokenizerFast(tokenizer_object=plain.backend_tokenizer, extra_special_tokens=MARKS, **names)


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
    hidden = backbone.code_hidden(prefix.rows(rows), codes)
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
