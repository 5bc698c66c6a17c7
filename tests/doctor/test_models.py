"""Checks of the checkpoints that a run loads: what the doctor calls fine, a fit can load."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor

from unirl.backbones import PretrainedModel
from unirl.backbones.showo import Showo
from unirl.cli.main import main
from unirl.doctor.models import check_models, check_pretrained
from unirl.judges import Judge
from unirl.rewards import CLIP, Keyword
from unirl.testing import TinyBackbone
from unirl.training import EvaluationConfig
from unirl.types import Example

CONFIGS = Path(__file__).parents[2] / "configs"
CLIP_FOLDER = "unirl_shapes:checkpoints/clip"


@pytest.mark.parametrize(
    ("files", "level", "text"),
    [
        ({}, "error", "config.json is missing"),
        ({"config.json": "{"}, "error", "is broken"),
        ({"config.json": "{}"}, "error", "no weights"),
        ({"config.json": "{}", "model.safetensors": "x"}, "ok", "3 B on this machine"),
        ({"config.json": "{}", "model.safetensors.index.json": '{"weight_map": {"a": "b"}}'}, "error", "no weights"),
    ],
)
def test_a_checkpoint_folder(tmp_path: Path, files: dict[str, str], level: str, text: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (finding,) = check_models(SimpleNamespace(backbone=TinyBackbone(str(tmp_path))))
    assert finding.level == level
    assert text in finding.text


def test_a_backbone_without_a_checkpoint() -> None:
    assert not list(check_models(SimpleNamespace(backbone=TinyBackbone())))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """No hub can be reached. The function puts files of a repository into the cache, and returns its folder."""
    cache = tmp_path / "cache"

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    def snapshot_download(
        hub_id: str, revision: str | None = None, allow_patterns: object = None, local_files_only: bool = False
    ) -> str:
        if not (cache / hub_id).is_dir() or revision is not None:
            raise ConnectionError("no network")
        return str(cache / hub_id)

    def put(hub_id: str, **files: str) -> Path:
        (cache / hub_id).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (cache / hub_id / name.replace("__", ".")).write_text(content)
        return cache / hub_id

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    return put


class Detector(Judge):
    """A judge with a model of its own."""

    pretrained_models = (PretrainedModel("some/detector"),)

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return pixels.mean((1, 2, 3)) > 0


def levels(model: SimpleNamespace) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in check_models(model):
        found.setdefault(finding.subject, []).append(finding.level)
    return found


def test_everything_that_a_run_loads_is_checked(offline: Callable[..., Path]) -> None:
    """The backbone, its parts elsewhere, rewards and their processors, the judge, and the diversity metric."""
    backbone = Showo("showlab/show-o")
    rewards = [Keyword(), CLIP(), CLIP(CLIP_FOLDER), CLIP(CLIP_FOLDER, processor="some/processor")]
    evaluation = EvaluationConfig(diversity_model="resnet18")
    model = SimpleNamespace(backbone=backbone, rewards=rewards, judge=Detector(), evaluation=evaluation)
    assert levels(model) == {
        "checkpoint": ["error"] * 3,
        "reward clip": ["error", "ok", "ok", "error"],
        "judge": ["error"],
        "diversity_model": ["error"],
    }
    weights = {"config__json": "{}", "model__safetensors": "x"}
    for name in ("showlab/show-o", "some/detector", "timm/resnet18.a1_in1k"):
        offline(name, **weights)
    config = {"vocab_size": 58498, "llm_vocab_size": 50295, "codebook_size": 8192, "num_vq_tokens": 256}
    config |= {"llm_model_path": "microsoft/phi-1_5"}
    (offline("showlab/show-o") / "config.json").write_text(json.dumps(config))
    offline("microsoft/phi-1_5", config__json="{}")  # its weights are not read
    offline("showlab/magvitv2", model__safetensors="x")  # it has no config
    offline("openai/clip-vit-base-patch32", config__json='{"model_type": "clip"}', pytorch_model__bin="x")
    offline("some/processor", tokenizer__json="{}")
    found = levels(model)
    assert {level for some in found.values() for level in some} == {"ok"}
    assert len(found["checkpoint"]) == 3
    (offline("some/detector") / "model.safetensors").unlink()  # a download that was interrupted
    assert levels(model)["judge"] == ["error"]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (PretrainedModel("{}", model_type="clip"), "its config.json says 'siglip', expected 'clip'"),
        (PretrainedModel("{}", ("*.json", "*.safetensors")), "has none of the files that are read"),
        (PretrainedModel("{}", ("*.txt",)), "has none of the files that are read: *.txt"),
        (PretrainedModel("{}"), None),
        (PretrainedModel("{}", ("*.json",)), None),
    ],
)
def test_what_a_folder_lacks(model: PretrainedModel, problem: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    (tmp_path / "pytorch_model.bin").write_text("x")
    finding = check_pretrained("x", PretrainedModel(str(tmp_path), model.files, model.model_type))
    assert finding.level == ("ok" if problem is None else "error")
    assert problem is None or problem in finding.text


def test_the_size_of_a_download_is_that_of_the_files_that_are_read(
    offline: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"config.json": 100, "model.safetensors": 2000, "pytorch_model.bin": 4000, "onnx/model.onnx": 9000}
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    assert "2.1 kB will be downloaded" in check_pretrained("x", PretrainedModel("some/model")).text
    pickles = PretrainedModel("only/pickles", ("*.json", "*.safetensors"))
    files[1].rfilename = "model.fp16.safetensors"
    assert check_pretrained("x", pickles).level == "error"
    assert "4.1 kB will be downloaded" in check_pretrained("x", PretrainedModel("some/model")).text
    assert "100 B will be downloaded" in check_pretrained("x", PretrainedModel("some/model", ("*.json",))).text


@pytest.mark.usefixtures("offline")
def test_the_doctor_and_fit_stop_at_the_same_missing_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unirl.cli.doctor.check_resources", lambda *_: ())
    arguments = ["--config", str(CONFIGS / "showo_sft.yaml"), "--model.rewards", "clip", "--trainer.logger", "false"]
    for command in ("doctor", "fit"):
        with pytest.raises(SystemExit):
            main([command, *arguments])
        printed = capsys.readouterr()
        assert "openai/clip-vit-base-patch32" in printed.out + printed.err
        assert printed.err.splitlines()[-1].startswith("unirl: error: ")
