"""Models are built alike inside Lightning's device and default dtype, and where `accelerate` is not installed."""

import copy
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.backbones.janus.tiny import save as save_janus
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPModel

from unirl import AnswerSampling, Images, ImageSampling, SelfImprovement, UserError
from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.metrics.diversity import TimmFeatures
from unirl.rewards import CLIP, PretrainedReward
from unirl.rewards.keyword import Keyword
from unirl.testing import TinyBackbone
from unirl.testing.pretend import pretend_accelerator
from unirl.updates.sft import SFT
from unirl_emu3.backbone import Emu3
from unirl_emu3.tiny import save as save_emu3
from unirl_shapes.pretrain.clip import MEAN, STD, clip_tokenizer, tiny_config


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, shapes_checkpoint: Path) -> dict[str, Path]:
    """A small checkpoint of each kind."""
    folder, tokenizer = tmp_path_factory.mktemp("models"), clip_tokenizer()
    CLIPModel(tiny_config(tokenizer)).save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    CLIPImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(folder / "clip")
    vit = timm.create_model("test_vit", img_size=64, num_classes=3)
    timm.models.save_for_hf(vit, folder / "timm", model_args={"img_size": 64}, safe_serialization=True)
    folders = {"showo": shapes_checkpoint, "janus": save_janus(folder / "janus"), "emu3": folder / "emu3"}
    save_emu3(folders["emu3"])
    return folders | {"clip": folder / "clip", "timm": folder / "timm"}


MAKERS: dict[str, Callable[[str], Any]] = {
    "showo": Showo.from_pretrained,
    "janus": Janus.from_pretrained,
    "emu3": lambda path: Emu3.from_pretrained(path, image_area=32 * 32),
    "clip": lambda path: CLIP(path).loaded.model,
    "timm": lambda path: vars(TimmFeatures(path)),
}


@contextmanager
def lightning_context() -> Iterator[None]:
    """As Lightning's `init_module` on another device in 16 bits."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with pretend_accelerator() as accelerator, accelerator.device:
            yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture
def without_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a plain install: only the extra `lora` brings it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("transformers.") and "is_accelerate_available" in vars(module):
            monkeypatch.setattr(module, "is_accelerate_available", lambda *_: False)


@pytest.mark.parametrize("make", [Showo, Janus, Emu3, TinyBackbone])
def test_a_model_that_is_not_built_says_so(make: Callable[..., Backbone], tmp_path: Path) -> None:
    backbone = make() if make is TinyBackbone else make(str(tmp_path))
    images = Images(torch.zeros(1, 4, dtype=torch.long))
    calls: list[Callable[[], object]] = [
        lambda: backbone.sample_images(["a cup"], ImageSampling()),
        lambda: backbone.sample_answers(images, ["what ?"], AnswerSampling()),
        lambda: backbone.encode(torch.rand(1, 3, 8, 8)),
        lambda: backbone.decode(images),
        lambda: backbone.tokenize_answers(["a cup"]),
        lambda: backbone.save_pretrained(tmp_path / "out"),
    ]
    for call in calls[: 2 if make is TinyBackbone else None]:  # its words need no modules
        with pytest.raises(UserError, match=rf"this {make.__name__} is not built .*; call its build\(\)"):
            call()
    assert not hasattr(backbone, "no_such_name")
    assert isinstance(copy.deepcopy(backbone), make)
    assert isinstance(pickle.loads(pickle.dumps(backbone)), make)


@pytest.mark.usefixtures("without_accelerate")
@pytest.mark.parametrize("kind", MAKERS)
def test_models_are_built_on_the_cpu_in_float32(kind: str, folders: dict[str, Path]) -> None:
    expected = tensors_of(MAKERS[kind](str(folders[kind])))
    with lightning_context():
        tensors = tensors_of(MAKERS[kind](str(folders[kind])))
        assert torch.get_default_dtype() == torch.bfloat16
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert (tensor.device, tensor.dtype) == (torch.device("cpu"), expected[name].dtype), name
        assert torch.equal(tensor, expected[name]), name


def tensors_of(model: Any) -> dict[str, Tensor]:
    """Parameters and all buffers of a module, or of the modules and tensors in a dictionary."""
    if isinstance(model, nn.Module):
        return dict(model.named_parameters()) | dict(model.named_buffers())
    found = {}
    for name, value in model.items():
        found |= (
            {f"{name}.{inner}": tensor for inner, tensor in tensors_of(value).items()}
            if isinstance(value, nn.Module)
            else ({name: value} if isinstance(value, Tensor) else {})
        )
    return found


class PlainLoader(PretrainedReward):
    """Loads as an author does who knows nothing of Lightning's device."""

    def load(self) -> Any:
        return CLIPModel.from_pretrained(self.model)

    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        raise NotImplementedError


class PlainBackbone(TinyBackbone):
    """The same as a backbone."""

    def build(self, meta: bool = False) -> None:
        super().build()
        self.register_buffer("scale", torch.ones(1))


@pytest.mark.usefixtures("without_accelerate")
def test_a_run_builds_everything_outside_of_lightnings_device(folders: dict[str, Path]) -> None:
    backbone: Backbone = PlainBackbone()
    reward = PlainLoader(str(folders["clip"]), 0.0, 1.0)
    module = SelfImprovement(backbone, SFT(), [Keyword(), reward])
    with lightning_context():
        module.configure_model()
    devices = {tensor.device.type for model in (backbone, reward.loaded) for tensor in tensors_of(model).values()}
    assert devices == {"cpu"}
