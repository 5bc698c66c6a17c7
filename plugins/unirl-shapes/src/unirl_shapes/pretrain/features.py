"""Pre-training of a small timm model to classify the objects of rendered images; its features measure diversity."""

from pathlib import Path
from random import Random
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unirl_shapes.pretrain.loop import Metrics, train
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import Scene, random_scene
from unirl_shapes.vocabulary import COLORS, SHAPES

ARCHITECTURE, BATCH = "test_resnet", 64
KINDS = [(shape, color) for shape in SHAPES for color in COLORS]
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def pretrain_features(out: Path, steps: int, seed: int) -> nn.Module:
    """Train the timm model, resuming where an earlier run stopped.

    Args:
        out: Folder of the log and of the training state; the finished model is `out/features`, as timm saves it.
        steps: Training steps.
        seed: Seed of weights and scenes.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model: Any = timm.create_model(ARCHITECTURE, num_classes=len(KINDS))

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} features {step}")
        scenes = [random_scene(rng, rng.randrange(9)) for _ in range(BATCH)]
        logits = model((render_batch(scenes) - 0.5) / 0.5)
        target = torch.tensor([kind_labels(scene) for scene in scenes])
        correct = ((logits > 0) == (target > 0)).all(1).float().mean()
        return F.binary_cross_entropy_with_logits(logits, target), {"accuracy": correct.item()}

    train("features", model, loss, out, steps, lr=1e-3, decay=500)
    model.reset_classifier(0)
    model.pretrained_cfg.update(mean=MEAN, std=STD, input_size=(3, 64, 64), num_classes=0)
    timm.models.save_for_hf(model, str(out / "features"), safe_serialization=True)
    return model


def kind_labels(scene: Scene) -> list[float]:
    """1 for each kind of object in a scene, 0 for all others.

    Args:
        scene: Any scene.
    """
    kinds = {(item.shape, item.color) for item in scene}
    return [float(kind in kinds) for kind in KINDS]
