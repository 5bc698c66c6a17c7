"""Trains a small timm backbone on renderings: what stands in which cell? Its features tell pictures apart."""

from pathlib import Path
from random import Random
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.pretrain.tokenizer import wanted_codes
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import clutter
from unirl_shapes.vocabulary import CELLS

ARCHITECTURE, BATCH = "test_vit", 64
SIZE: dict[str, Any] = {"img_size": 64}
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
    model: Any = timm.create_model(ARCHITECTURE, num_classes=CELLS * 128, **SIZE)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} features {step}")
        scenes = [clutter(rng, rng.randrange(9)) for _ in range(BATCH)]
        logits = model((render_batch(scenes) - 0.5) / 0.5).view(BATCH * CELLS, -1)
        codes = wanted_codes(scenes).flatten()
        right = (logits.argmax(-1) == codes)[codes != codes.mode().values].float().mean()
        return F.cross_entropy(logits, codes), {"things_right": right.item()}

    train("features", model, loss, out, steps, lr=1e-3, decay=500)
    model.reset_classifier(0)
    model.pretrained_cfg.update(mean=MEAN, std=STD, input_size=(3, 64, 64), num_classes=0)
    timm.models.save_for_hf(model, str(out / "features"), model_args=dict(SIZE), safe_serialization=True)
    return model
