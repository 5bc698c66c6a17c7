"""What generation asks of a device: how often the host waits for it, and how many operators it runs.

On a pretend accelerator, for tiny untrained models: waits and operators for each image code, denoising step and answer
token do not depend on a model's size; operators do on its number of layers, 4 here. Attention counts as the operators
that it consists of.

    python benchmarks/waits.py
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Magvit, MagvitConfig, Showo
from unirl.testing.pretend import PretendAccelerator, pretend_accelerator
from unirl.types import AnswerSampling, Images, ImageSampling
from unirl_shapes.pretrain import janus, showo, vq

PROMPTS = ["a photo of a red circle", "a photo of two blue squares", "a photo of a ring"]
QUESTIONS = ["what color is it ?", "how many are there ?", "what is it ?"]
Row = tuple[float, float, float]
"""Synchronizations, copies to the device and operators."""


def models(folder: Path) -> dict[str, Backbone]:
    """An untrained model of each kind."""
    sizes = MagvitConfig(4, (1, 1, 1, 1, 1), (1, 1, 1, 1, 1), (1,) * 5, (1,) * 5, z_channels=7, groups=2)
    showo.untrained(folder / "showo", Magvit(sizes), seed=0)
    janus.untrained(folder / "janus", JanusVQVAE(JanusVQVAEConfig(**vq.SIZES)), 0)
    return {
        "Show-o": Showo.from_pretrained(str(folder / "showo")),
        "Janus": Janus.from_pretrained(str(folder / "janus")),
    }


def measure(accelerator: PretendAccelerator, call: Callable[[], object]) -> Row:
    """What a call asks of the device."""
    with accelerator.count() as counts:
        call()
    return counts.syncs.total(), counts.copies.total(), counts.operators


def per_unit(longer: Row, shorter: Row, units: float) -> Row:
    """What each of the units asks by which two calls differ."""
    first, second, third = ((a - b) / units for a, b in zip(longer, shorter, strict=True))
    return first, second, third


def rows(backbone: Backbone, accelerator: PretendAccelerator) -> dict[str, Row]:
    """By what is counted."""
    device, code_by_code = accelerator.device, isinstance(backbone, Janus)

    def generator() -> torch.Generator:
        return torch.Generator(device).manual_seed(0)

    def generate(units: int) -> Images:
        if code_by_code:
            backbone.num_image_codes = units
        return backbone.sample_images(PROMPTS, ImageSampling(units, guidance=2.0), generator())

    few, many = (measure(accelerator, lambda units=units: generate(units)) for units in (8, 16))
    images = generate(16)
    images = replace(images, pixels=backbone.decode(images))
    answers, lengths = [], []
    for tokens in (4, 12):
        sampling = AnswerSampling(tokens, temperature=1.0)
        with accelerator.count() as counts:
            sampled = backbone.sample_answers(images, QUESTIONS, sampling, generator())
        answers.append((counts.syncs.total(), counts.copies.total(), counts.operators))
        lengths.append(sampled.ids.shape[1])
    return {
        "an image code" if code_by_code else "a denoising step": per_unit(many, few, 8),
        "an answer token": per_unit(answers[1], answers[0], max(1, lengths[1] - lengths[0])),
        f"{len(QUESTIONS)} answers of {lengths[1]} tokens": answers[1],
    }


def main() -> dict[str, dict[str, Row]]:
    """Measure and print."""
    table, results = Table("model", "what", "synchronizations", "copies to the device", "operators"), {}
    with tempfile.TemporaryDirectory() as folder:
        backbones = models(Path(folder))
    for name, backbone in backbones.items():
        with pretend_accelerator() as accelerator:
            results[name] = rows(backbone.to(accelerator.device), accelerator)
        for what, row in results[name].items():
            table.add_row(name, what, *(f"{value:.4g}" for value in row))
    Console().print(table)
    return results


if __name__ == "__main__":
    main()
