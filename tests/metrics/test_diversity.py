import math
from pathlib import Path

import pytest
import timm
import torch

from unirl import UserError
from unirl.metrics import GroupDiversity, TimmFeatures


def test_hamming_distance_of_codes() -> None:
    metric = GroupDiversity("hamming")
    metric.update(torch.tensor([[0, 0], [0, 1], [2, 2], [5, 5], [5, 5], [5, 5]]), 3)  # pairs: 1/2, 1, 1; and 0, 0, 0
    metric.update(torch.tensor([[1, 1], [2, 2]]), 2)
    assert metric.compute().item() == pytest.approx((0.5 + 1 + 1 + 0 + 1) / 7)


def test_cosine_distance_of_features() -> None:
    metric = GroupDiversity("cosine")
    metric.update(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-1.0, 0.0]]), 2)
    assert metric.compute().item() == pytest.approx((1 + 2) / 2)


def test_a_group_of_one_has_no_pairs() -> None:
    metric = GroupDiversity("hamming")
    metric.update(torch.tensor([[1, 2], [3, 4]]), 1)
    assert math.isnan(metric.compute().item())


def test_features_of_a_folder_saved_by_timm(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", img_size=64, num_classes=3)
    folder = tmp_path / "features"
    timm.models.save_for_hf(model, folder, model_args={"img_size": 64}, safe_serialization=True)
    pixels = torch.rand(2, 3, 64, 64)
    features = TimmFeatures(str(folder))(pixels)
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    model.reset_classifier(0)
    torch.testing.assert_close(features, model.eval()((pixels - mean) / std))


def test_a_model_that_timm_does_not_have() -> None:
    with pytest.raises(UserError, match="diversity_model: timm cannot load 'no_such_model'"):
        TimmFeatures("no_such_model")
