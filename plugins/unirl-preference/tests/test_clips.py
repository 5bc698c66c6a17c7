"""PickScore and HPSv2 against the authors' own steps in plain transformers, on tiny random weights."""

import json
import shutil
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel

from unirl import Answers, Example, Images, UserError
from unirl.rewards import Reward
from unirl_preference.clips import HPSv2, PickScore
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import near_miss, scene_for

LONG = "a photo of two red circles and three blue squares above a cross and a ring"
PROMPTS = ["a photo of a ring", "a photo of two red circles", LONG]
SHIPPED = "unirl_shapes:checkpoints/clip"


def scored(reward: Reward, pixels: Tensor, prompts: list[str] = PROMPTS) -> Tensor:
    ids = torch.zeros(len(prompts), 1, dtype=torch.long)
    examples = [Example(prompt, "q", "a", "c") for prompt in prompts]
    return reward.score(examples, Images(ids, pixels), Answers(ids, ids.bool(), [""] * len(prompts)))


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(0))


def published(folder: Path, pixels: Tensor, scaled: bool) -> Tensor:
    """One pair at a time, as the model cards do: the product of both normalized embeddings."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor, scores = CLIPImageProcessor.from_pretrained(folder), []
    for prompt, pixels_of_one in zip(PROMPTS, pixels, strict=True):
        text = tokenizer(prompt, truncation=True, max_length=12, return_tensors="pt")
        image = processor(images=pixels_of_one, do_rescale=False, return_tensors="pt")
        with torch.no_grad():
            embeddings = [model.get_text_features(**text), model.get_image_features(**image)]
            text_unit, image_unit = (torch.nn.functional.normalize(e.pooler_output) for e in embeddings)
            scores.append((model.logit_scale.exp() if scaled else 1) * (text_unit @ image_unit.T)[0, 0])
    return torch.stack(scores)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize(("kind", "bound"), [(PickScore, 15.0), (HPSv2, 1.0)])
def test_scores_are_the_published_ones_after_calibration(
    kind: type[PickScore | HPSv2], bound: float, batch_size: int, clip_folder: Path, pixels: Tensor
) -> None:
    expected = published(clip_folder, pixels, scaled=kind is PickScore)
    assert len(set(expected.tolist())) == 3
    reward = kind(str(clip_folder), low=-bound, high=bound, batch_size=batch_size)
    torch.testing.assert_close(
        scored(reward, pixels), ((expected + bound) / (2 * bound)).clamp(0, 1), atol=1e-5, rtol=1e-5
    )


def test_scores_are_clamped(clip_folder: Path, pixels: Tensor) -> None:
    median = published(clip_folder, pixels, scaled=False).sort().values[1].item()
    reward = HPSv2(str(clip_folder), low=median - 1e-4, high=median + 1e-4)
    assert sorted(scored(reward, pixels).tolist())[::2] == [0, 1]


def test_the_processor_may_be_elsewhere(clip_folder: Path, tmp_path: Path, pixels: Tensor) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(clip_folder / name, tmp_path)
    together, separate = HPSv2(str(clip_folder), low=-1), HPSv2(str(tmp_path), low=-1, processor=str(clip_folder))
    assert torch.equal(scored(together, pixels), scored(separate, pixels))
    with pytest.raises(UserError, match=r"hpsv2: .* see the README"):
        HPSv2(str(tmp_path)).attach(None)


def test_pickscore_is_higher_for_correct_images() -> None:
    rng, examples = Random(0), ShapesPrompts().held_out(60)
    correct = render_batch([scene_for(e, rng, rng.randrange(2)) for e in examples])
    wrong = render_batch([near_miss(e, rng, rng.randrange(2)) for e in examples])
    reward, prompts = PickScore(SHIPPED, low=0.0, high=30.0), [e.prompt for e in examples]
    assert (scored(reward, correct, prompts) > scored(reward, wrong, prompts)).float().mean() > 0.85


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


def save_text_model(folder: Path) -> None:
    CLIPTextModel(CLIPTextConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1)).save_pretrained(folder)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def save_as_pickle(folder: Path) -> None:
    torch.save(CLIPModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    remove_weights(folder)


def add_layer_to_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (save_text_model, "says 'clip_text_model', expected 'clip'"),
        (remove_weights, "no file named model.safetensors"),
        (save_as_pickle, "no file named model.safetensors"),
        (add_layer_to_config, r"its weights lack vision_model\..* \(16 such tensors\)"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "image processor"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(corrupt, message: str, clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "corrupted")
    corrupt(folder)
    with pytest.raises(
        UserError, match=rf"^pickscore: .*corrupted' holds no CLIP that can be read \(.*{message}"
    ) as error:
        PickScore(str(folder)).attach(None)
    assert "\n" not in str(error.value)


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"pickscore: low 30\.0 must be below high 26\.0"):
        PickScore(low=30.0)
    with pytest.raises(UserError, match=r"hpsv2: batch_size 0; it must be 1 or more"):
        HPSv2("x/y", batch_size=0)


def test_no_pickle_is_downloaded(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = {}

    def download(hub_id: str, allow_patterns: list[str] | None = None, revision: str | None = None) -> str:
        requested[hub_id] = allow_patterns
        return str(clip_folder)

    names = [*(path.name for path in clip_folder.iterdir()), "pytorch_model.bin", "HPS_v2.pt", "README.md"]
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda hub_id, revision=None: names)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    HPSv2("some/hpsv2", processor="some/clip").attach(None)
    assert sorted(requested["some/hpsv2"] or []) == sorted(path.name for path in clip_folder.iterdir())
    assert "model.safetensors" not in (requested["some/clip"] or [])
    names.remove("model.safetensors")
    HPSv2("only/pickles", processor="some/clip").attach(None)
    assert "pytorch_model.bin" not in (requested["only/pickles"] or [])
