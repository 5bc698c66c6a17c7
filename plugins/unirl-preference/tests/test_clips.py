"""PickScore and HPSv2 against the authors' own steps in plain transformers, on tiny random weights."""

import json
import shutil
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel

from unirl.errors import UserError
from unirl.rewards import Reward
from unirl.types import Answers, Example, Images
from unirl_preference.clips import HPSv2, PickScore
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import near_miss, scene_for

LONG = "a photo of two red circles and three blue squares above a cross and a ring"
PROMPTS = ["a photo of a ring", "a photo of two red circles", LONG]
SHIPPED = "unirl_shapes:checkpoints/clip"


def scored(reward: Reward, pixels: Tensor, prompts: list[str] = PROMPTS) -> Tensor:
    nothing = torch.zeros(len(prompts), 1, dtype=torch.long)
    examples = [Example(prompt, "q", "a", "c") for prompt in prompts]
    return reward.score(examples, Images(nothing, pixels), Answers(nothing, nothing.bool(), [""] * len(prompts)))


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(0))


def published(folder: Path, pixels: Tensor, scaled: bool) -> Tensor:
    """One pair at a time, as the model cards do: both embeddings, normalised, multiplied."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor, scores = CLIPImageProcessor.from_pretrained(folder), []
    for prompt, picture in zip(PROMPTS, pixels, strict=True):
        text = tokenizer(prompt, truncation=True, max_length=12, return_tensors="pt")
        image = processor(images=picture, do_rescale=False, return_tensors="pt")
        with torch.no_grad():
            embeddings = [model.get_text_features(**text), model.get_image_features(**image)]
            text_unit, image_unit = (torch.nn.functional.normalize(e.pooler_output) for e in embeddings)
            scores.append((model.logit_scale.exp() if scaled else 1) * (text_unit @ image_unit.T)[0, 0])
    return torch.stack(scores)


@pytest.mark.parametrize("batch", [1, 2, 32])
@pytest.mark.parametrize(("kind", "bound"), [(PickScore, 15.0), (HPSv2, 1.0)])
def test_scores_are_the_published_ones_calibrated(
    kind: type[PickScore | HPSv2], bound: float, batch: int, clip_folder: Path, pixels: Tensor
) -> None:
    expected = published(clip_folder, pixels, scaled=kind is PickScore)
    assert len(set(expected.tolist())) == 3
    reward = kind(str(clip_folder), low=-bound, high=bound, batch=batch)
    torch.testing.assert_close(
        scored(reward, pixels), ((expected + bound) / (2 * bound)).clamp(0, 1), atol=1e-5, rtol=1e-5
    )


def test_what_lies_outside_of_low_and_high_is_cut_off(clip_folder: Path, pixels: Tensor) -> None:
    middle = published(clip_folder, pixels, scaled=False).sort().values[1].item()
    reward = HPSv2(str(clip_folder), low=middle - 1e-4, high=middle + 1e-4)
    assert sorted(scored(reward, pixels).tolist())[::2] == [0, 1]


def test_a_model_may_have_its_processor_elsewhere(clip_folder: Path, tmp_path: Path, pixels: Tensor) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(clip_folder / name, tmp_path)
    whole, split = HPSv2(str(clip_folder), low=-1), HPSv2(str(tmp_path), low=-1, processor=str(clip_folder))
    assert torch.equal(scored(whole, pixels), scored(split, pixels))
    with pytest.raises(UserError, match=r"hpsv2: .* see the README"):
        HPSv2(str(tmp_path)).attach(None)


def test_pickscore_prefers_the_drawing_that_shows_what_was_asked_for() -> None:
    rng, examples = Random(0), ShapesPrompts().held_out(60)
    right = render_batch([scene_for(e, rng, rng.randrange(2)) for e in examples])
    wrong = render_batch([near_miss(e, rng, rng.randrange(2)) for e in examples])
    reward, prompts = PickScore(SHIPPED, low=0.0, high=30.0), [e.prompt for e in examples]
    assert (scored(reward, right, prompts) > scored(reward, wrong, prompts)).float().mean() > 0.85


def test_the_model_is_frozen_and_loaded_once(clip_folder: Path) -> None:
    reward = PickScore(str(clip_folder))
    reward.attach(None)
    model = reward.loaded.model
    reward.attach(None)
    assert reward.loaded.model is model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_half_precision_checkpoint_scores_in_full_precision(
    clip_folder: Path, tmp_path: Path, pixels: Tensor
) -> None:
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    CLIPModel.from_pretrained(clip_folder).half().save_pretrained(tmp_path)
    full, half = (scored(HPSv2(str(folder), low=-1, high=1), pixels) for folder in (clip_folder, tmp_path))
    torch.testing.assert_close(half, full, atol=5e-3, rtol=0)


def no_clip(folder: Path) -> None:
    CLIPTextModel(CLIPTextConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1)).save_pretrained(folder)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    torch.save(CLIPModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    no_weights(folder)


def half_of_it(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_clip, "says 'clip_text_model', expected 'clip'"),
        (no_weights, "no file named model.safetensors"),
        (pickled, "no file named model.safetensors"),
        (half_of_it, r"its weights lack vision_model\..* \(16 such tensors\)"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "image processor"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_line(spoil, message: str, clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(UserError, match=rf"^pickscore: .*spoilt' holds no CLIP that can be read \(.*{message}") as told:
        PickScore(str(folder)).attach(None)
    assert "\n" not in str(told.value)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match=r"pickscore: low 30\.0 must be below high 26\.0"):
        PickScore(low=30.0)
    with pytest.raises(UserError, match=r"hpsv2: batch 0; it must be 1 or more"):
        HPSv2("x/y", batch=0)


def test_no_pickle_is_fetched_from_the_hub(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def download(hub_id: str, allow_patterns: list[str] | None = None) -> str:
        asked[hub_id] = allow_patterns
        return str(clip_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    HPSv2("some/hpsv2", processor="some/clip").attach(None)
    assert "*.safetensors" in asked["some/hpsv2"]
    assert all(not pattern.endswith(("bin", "pt", "*")) for patterns in asked.values() for pattern in patterns)
    assert "*.safetensors" not in asked["some/clip"]
