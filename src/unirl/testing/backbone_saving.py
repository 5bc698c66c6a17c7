"""Building, saving, loading and copying."""

import copy
from pathlib import Path

import pytest
import torch

from unirl.backbones.base import Backbone
from unirl.testing.backbone_base import Checks, gap, require, seeded

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy")


@torch.no_grad()
def learn(backbone: Backbone) -> None:
    """Change what can be trained, so that fresh weights cannot pass for saved ones."""
    generator = seeded(7)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise.to(parameter))


def differing(one: Backbone, other: Backbone) -> str:
    """Which tensors of two backbones differ, in words; empty if none does."""
    mine, theirs = one.state_dict(), other.state_dict()
    names = [name for name in mine if name not in theirs or gap(mine[name], theirs[name]) > 0]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}" if names else ""


class SavingChecks(Checks):
    """A backbone is what its weights are."""

    def test_saved_and_loaded_it_is_the_same(self, backbone: Backbone, tmp_path: Path) -> None:
        learn(backbone)
        backbone.save_pretrained(tmp_path)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        for path in files:
            # Python's pickles begin with this byte, torch's zip files of pickles with PK.
            pickled = path.suffix in PICKLED or path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK")
            require(not pickled, f"save_pretrained: writes a pickle, {path.name}; weights are safetensors")
        written = any(path.suffix == ".safetensors" for path in files)
        require(written, f"save_pretrained: writes no safetensors, only {sorted(path.name for path in files)}")
        other = type(backbone).from_pretrained(str(tmp_path))
        lost = differing(backbone, other)
        require(not lost, f"save_pretrained and from_pretrained: {lost} did not come back as it was saved")
        self._behave_alike(backbone, other, "from_pretrained: the loaded model")

    def test_a_copy_is_the_same_and_stands_alone(self, backbone: Backbone) -> None:
        learn(backbone)
        other = copy.deepcopy(backbone)
        self._behave_alike(backbone, other, "copy.deepcopy: the copy, which a KL term keeps as its reference,")
        before = self.kept(self.generate(other))
        learn(backbone)
        require(
            gap(before, self.kept(self.generate(other))) == 0, "copy.deepcopy: the copy shares weights with the model"
        )

    def test_the_state_dict_holds_everything(self, backbone: Backbone) -> None:
        learn(backbone)
        other = self.make()
        other.load_state_dict(backbone.state_dict())
        self._behave_alike(backbone, other, "state_dict: a model that loads it")

    def _behave_alike(self, backbone: Backbone, other: Backbone, who: str) -> None:
        images, again = self.generate(backbone), self.generate(other)
        same = torch.equal(images.codes, again.codes)
        off = gap(self.kept(images), self.kept(again))
        require(same and off <= 1e-5, f"{who} draws otherwise (log-probabilities differ by up to {off:.2g} nats)")
        require(gap(backbone.decode(images), other.decode(images)) <= 1e-5, f"{who} decodes the same codes otherwise")
        questions = list(self.questions)
        said, repeated = (
            model.sample_answers(self.seen(model, images), questions, self.answering, seeded()).text
            for model in (backbone, other)
        )
        require(list(said) == list(repeated), f"{who} answers {list(repeated)}, expected {list(said)}")

    def test_a_second_build_does_nothing(self, backbone: Backbone) -> None:
        learn(backbone)
        before = {name: (id(p), p.detach().clone()) for name, p in backbone.named_parameters()}
        backbone.build()
        for name, parameter in backbone.named_parameters():
            known, value = before.get(name, (0, parameter))
            same = known == id(parameter) and torch.equal(value, parameter)
            require(same, f"build: a second call replaces {name!r}; it must do nothing")

    def test_blocks_occur_in_the_model(self, backbone: Backbone) -> None:
        blocks = backbone.blocks
        require(isinstance(blocks, tuple) and bool(blocks), "blocks: empty; name the classes of the repeated layers")
        found = {type(module) for module in backbone.modules()}
        for block in blocks:
            occurs = any(issubclass(kind, block) for kind in found)
            require(occurs, f"blocks: no module of the built model is a {block.__name__}")
            require(not isinstance(backbone, block), f"blocks: {block.__name__} is the backbone itself, not a layer")

    def test_on_the_meta_device_nothing_is_allocated(self) -> None:
        backbone = self.make_unbuilt()
        if backbone is None:
            pytest.skip("make_unbuilt gives none")
        held = sum(p.numel() for p in backbone.parameters())
        require(not held, f"__init__: holds {held} weights; constructors only read settings, and build makes modules")
        backbone.build(meta=True)
        require(any(True for _ in backbone.parameters()), "build(meta=True): makes no parameters")
        real = [name for name, p in backbone.named_parameters() if not p.is_meta]
        require(not real, f"build(meta=True): allocates {real and real[0]!r}; make every module on the meta device")
