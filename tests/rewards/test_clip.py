"""The CLIP reward against a forward pass of transformers, on a tiny CLIP with random weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPImageProcessor, CLIPModel

from unirl import UserError
from unirl.rewards import CLIP
from unirl.types import Answers, Example, Images
from unirl_shapes.pretrain.clip import MEAN, STD, clip_tokenizer, tiny_config

PROMPTS = ["a photo of a ring", "a photo of two red circles", "a photo of a square left of a cross"]
EXAMPLES = [Example(prompt, "q", "a", "c") for prompt in PROMPTS]
NO_ANSWERS = Answers(torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 1, dtype=torch.bool), ["", "", ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, tokenizer = tmp_path_factory.mktemp("clip"), clip_tokenizer()
    torch.manual_seed(0)
    CLIPModel(tiny_config(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    size = {"height": 64, "width": 64}
    CLIPImageProcessor(image_mean=MEAN, image_std=STD, size=size, do_center_crop=False).save_pretrained(path)
    return path


def cosines(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    """One pair at a time, without padding."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), clip_tokenizer()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    values = []
    for prompt, image in zip(PROMPTS, pixels, strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            out = model(input_ids=ids, pixel_values=((image - mean) / std)[None])
        values.append((out.text_embeds * out.image_embeds).sum())
    return torch.stack(values)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_scores_are_calibrated_cosines(batch_size: int, folder: Path) -> None:
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = cosines(folder, pixels)
    images = Images(torch.zeros(3, 1, dtype=torch.long), pixels)
    wide = CLIP(str(folder), low=-1.0, high=1.0, batch_size=batch_size).score(EXAMPLES, images, NO_ANSWERS)
    torch.testing.assert_close(wide, (expected + 1) / 2, atol=1e-5, rtol=1e-5)
    median = expected.sort().values[1].item()
    narrow = CLIP(str(folder), low=median - 1e-4, high=median + 1e-4, batch_size=batch_size).score(
        EXAMPLES, images, NO_ANSWERS
    )
    assert sorted(narrow.tolist())[::2] == [0, 1]


def test_images_are_resized(folder: Path) -> None:
    pixels = torch.rand(3, 3, 1, 1).expand(3, 3, 64, 64)  # plain colors do not depend on the size
    images = [Images(torch.zeros(3, 1, dtype=torch.long), pixels[..., :side, :side]) for side in (64, 32)]
    reward = CLIP(str(folder), low=-1.0, high=1.0)
    torch.testing.assert_close(*(reward.score(EXAMPLES, image, NO_ANSWERS) for image in images), atol=1e-5, rtol=1e-5)


def test_invalid_settings_and_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"low 0\.4 must be below high 0\.35"):
        CLIP(low=0.4)
    with pytest.raises(UserError, match="batch_size 0"):
        CLIP(batch_size=0)
    with pytest.raises(UserError, match=r"clip: .* holds no CLIP that can be read"):
        CLIP(str(tmp_path)).attach(None)
    with pytest.raises(UserError, match=r"no checkpoint at '\./nowhere'"):
        CLIP("./nowhere").attach(None)


def test_other_models_and_incomplete_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(UserError, match=r"holds no CLIP that can be read \(its config.json says 'siglip'"):
        CLIP(str(tmp_path)).attach(None)
    config["vision_config"]["num_hidden_layers"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"holds no CLIP that can be read \(its weights lack vision_model\."):
        CLIP(str(tmp_path)).attach(None)
