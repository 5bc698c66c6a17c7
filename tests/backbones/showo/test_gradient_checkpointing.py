"""Show-o with little kept for the gradient."""

from pathlib import Path

import torch
from torch import Tensor

from unirl.backbones.showo import Showo
from unirl.types import ImageSampling

SAMPLING = ImageSampling(steps=3, guidance=0.5)
PROMPTS = ["a red circle", "two blue squares"]


def trained(checkpoint: Path, gradient_checkpointing: bool) -> tuple[dict[str, Tensor], int]:
    """Gradients of generation, and of answering about images that carry gradient; and numbers kept for them."""
    backbone = Showo(str(checkpoint), gradient_checkpointing=gradient_checkpointing)
    backbone.build()
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    images = backbone.sample_images(PROMPTS, SAMPLING, torch.Generator().manual_seed(0))
    answers = backbone.tokenize_answers(["red"] * 2)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        relaxed = backbone.straight_through(PROMPTS, images, SAMPLING, 1.0, None, torch.Generator().manual_seed(1))
        log_probs, _ = backbone.image_log_probs(PROMPTS, images, SAMPLING)
        output = backbone.answer_log_probs(relaxed, ["what color"] * 2, answers)
    (log_probs.sum() + output.sum()).backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}, kept


def test_gradient_checkpointing_has_the_same_gradients_and_saves_less(shapes_checkpoint: Path) -> None:
    (plain, much), (twice, little) = trained(shapes_checkpoint, False), trained(shapes_checkpoint, True)
    assert plain.keys() == twice.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(twice[name], gradient, msg=name)
    assert little < 0.6 * much
