"""Trains a small timm backbone on renderings: which things does a picture show? Its features tell pictures apart."""

from pathlib import Path
from random import Random
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import Scene, clutter
from unirl_shapes.vocabulary import COLORS, SHAPES

ARCHITECTURE, BATCH = "test_resnet", 64
KINDS = [(shape, color) for shape in SHAPES for color in COLORS]
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def pretrain_features(out: Path, steps: int, seed: int) -> nn.Module:
    """Train the backbone, continuing where a killed run stopped.

    Args:
        out: Folder of the log and the state; the finished model is `out/features`, as timm saves it.
        steps: Training steps.
        seed: Of weights and scenes.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model: Any = timm.create_model(ARCHITECTURE, num_classes=len(KINDS))

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} features {step}")
        scenes = [clutter(rng, rng.randrange(9)) for _ in range(BATCH)]
        logits = model((render_batch(scenes) - 0.5) / 0.5)
        wanted = torch.tensor([shown(scene) for scene in scenes])
        right = ((logits > 0) == (wanted > 0)).all(1).float().mean()
        return F.binary_cross_entropy_with_logits(logits, wanted), {"pictures_right": right.item()}

    train("features", model, loss, out, steps, lr=1e-3, decay=500)
    model.reset_classifier(0)
    model.pretrained_cfg.update(mean=MEAN, std=STD, input_size=(3, 64, 64), num_classes=0)
    timm.models.save_for_hf(model, str(out / "features"), safe_serialization=True)
    return model


def shown(scene: Scene) -> list[float]:
    """1 for each kind of thing that a scene shows, 0 for the others."""
    there = {(thing.shape, thing.color) for thing in scene}
    return [float(kind in there) for kind in KINDS]
