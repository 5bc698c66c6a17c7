"""Pre-training of the tiny CLIP on captions and rendered images."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import processors
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from unirl import Example
from unirl_shapes.examples import sample_example, true_answer
from unirl_shapes.pretrain.data import text_tokenizer
from unirl_shapes.pretrain.loop import Metrics, train
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import Scene, near_miss, scene_for

WIDTH = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
PAIRS = 64
"""Captions of a step, each with a correct image and a nearly correct one."""
LENGTH = 24
CHECKPOINT = "unirl_shapes:checkpoints/clip"
MEAN, STD = (0.8, 0.8, 0.8), (0.3, 0.3, 0.3)


def pretrain_clip(out: Path, steps: int, seed: int) -> CLIPModel:
    """Train the tiny CLIP, resuming where an earlier run stopped.

    Args:
        out: Folder of the log and of the training state; the finished checkpoint is `out/clip`.
        steps: Training steps.
        seed: Seed of weights and scenes.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_tokenizer()
    torch.manual_seed(seed)
    model = CLIPModel(tiny_config(tokenizer))

    def loss(step: int) -> tuple[Tensor, Metrics]:
        value = contrastive_loss(model, tokenizer, Random(f"{seed} clip {step}"))
        return value, {"loss": value.item()}

    train("clip", model, loss, out, steps, lr=1e-3, evaluate=lambda: {"retrieval": retrieval(model, tokenizer)})
    model.eval().save_pretrained(out / "clip")
    tokenizer.save_pretrained(out / "clip")
    size = {"height": 64, "width": 64}
    CLIPImageProcessor(image_mean=MEAN, image_std=STD, size=size, do_center_crop=False).save_pretrained(out / "clip")
    return model


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the shapes world with an end-of-text token, from which CLIP's text model takes its feature."""
    tokenizer = text_tokenizer()
    end = ("<|endoftext|>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("$A <|endoftext|>", special_tokens=[end])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = LENGTH
    return tokenizer


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    """A config of 64 px images and small sizes.

    Args:
        tokenizer: Of `clip_tokenizer`.
    """
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    text = WIDTH | ids | {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "projection_dim": 64}
    vision = WIDTH | {"image_size": 64, "patch_size": 16, "projection_dim": 64}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)


def contrastive_loss(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, rng: Random) -> Tensor:
    """Contrastive loss over captions and images. Other pairs that fit by chance are neither positives nor negatives.

    Args:
        model: The CLIP.
        tokenizer: Tokenizer of captions.
        rng: The only source of randomness.
    """
    examples = [sample_example(rng) for _ in range(PAIRS)]
    scenes = [scene_for(e, rng, rng.choice((0, 0, 1, 2))) for e in examples]
    misses = [near_miss(e, rng, rng.choice((0, 0, 1, 2))) for e in examples]
    logits = similarity(model, tokenizer, [e.prompt for e in examples], render_batch(scenes + misses))
    logits = logits * model.logit_scale.exp()
    fits = torch.tensor([[is_true_caption(e, scene) for scene in scenes + misses] for e in examples])
    positive = torch.eye(PAIRS, 2 * PAIRS, dtype=torch.bool)
    logits = logits.masked_fill(fits & ~positive, float("-inf"))
    target = torch.arange(PAIRS)
    by_caption = torch.nn.functional.cross_entropy(logits, target)
    return (by_caption + torch.nn.functional.cross_entropy(logits[:, :PAIRS].T, target)) / 2


def similarity(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, captions: Sequence[str], pixels: Tensor) -> Tensor:
    """Cosine similarity of each caption and each image.

    Args:
        model: The CLIP.
        tokenizer: Tokenizer of captions.
        captions: The captions.
        pixels: The images, in [0, 1].

    Shapes:
        pixels (P, 3, H, W); returns (C, P).
    """
    mean, std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (MEAN, STD))
    tokens = tokenizer(list(captions), padding=True, return_tensors="pt")
    out = model(
        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=(pixels - mean) / std
    )
    return out.text_embeds @ out.image_embeds.T


@torch.no_grad()
def retrieval(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, count: int = 300, num_captions: int = 32) -> float:
    """Accuracy of retrieving the caption of an image of a held-out prompt among captions that are not true of it.

    Args:
        model: The CLIP.
        tokenizer: Tokenizer of captions.
        count: Number of images.
        num_captions: Number of captions, the true one included.
    """
    rng, correct = Random("retrieval"), 0
    for _ in range(count):
        example = sample_example(rng, "held_out")
        scene = scene_for(example, rng, rng.randrange(3))
        captions = {example.prompt: None}
        while len(captions) < num_captions:
            other = sample_example(rng)
            captions |= {} if is_true_caption(other, scene) else {other.prompt: None}
        correct += similarity(model, tokenizer, list(captions), render_batch([scene])).argmax().item() == 0
    return correct / count


def is_true_caption(example: Example, scene: Scene) -> bool:
    """Whether the prompt of an example is true of a scene. "left" is true of an object that is left and above.

    Args:
        example: An example of the shapes world.
        scene: Any scene.
    """
    answer = true_answer(example, scene)
    return answer == example.answer or (example.category == "position" and example.answer in answer.split())
