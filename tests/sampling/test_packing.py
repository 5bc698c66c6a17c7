"""Packed weights: the same results, only where nothing is learnt, and nothing left behind."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.sampling import packing
from unirl.sampling.packing import available, packed
from unirl.types import Answers, AnswerSampling, Images, ImageSampling

pytestmark = pytest.mark.skipif(not available(), reason="this PyTorch has no packed products on the CPU")


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGE", 1)


def model(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40, bias=bias), nn.GELU(), nn.Linear(40, 8))


def packs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is packed from now on."""
    shapes, pack = [], packing._pack

    def noted(weight: torch.Tensor, rows: int) -> torch.Tensor:
        shapes.append(tuple(weight.shape))
        return pack(weight, rows)

    monkeypatch.setattr(packing, "_pack", noted)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (7, 24), (3, 5, 24), (0, 24)])
@torch.no_grad()
def test_results_are_the_same(bias: bool, shape: tuple[int, ...]) -> None:
    layers, rows = model(bias), torch.randn(shape)
    plain = layers(rows)
    with packed(layers):
        torch.testing.assert_close(layers(rows), plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_weights_are_packed_once_for_products_of_any_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, shapes = model(), packs(monkeypatch)
    rows = torch.randn(96, 24)
    plain = layers(rows)
    with packed(layers):
        for count in (1, 2, 33, 96):
            torch.testing.assert_close(layers(rows[:count]), plain[:count], atol=1e-5, rtol=1e-5)
    assert shapes == [(40, 24), (8, 40)]


@torch.no_grad()
def test_nothing_is_left_behind_even_after_an_error() -> None:
    layers, rows = model(), torch.randn(4, 24)
    plain = layers(rows)
    with pytest.raises(RuntimeError, match="inner product"), packed(layers):
        layers(rows[:, :3])
    assert torch.equal(layers(rows), plain)
    layers[0].weight.mul_(2)  # what was packed before is not used again
    with packed(layers):
        torch.testing.assert_close(layers(rows), layers[2](F.gelu(F.linear(rows, layers[0].weight, layers[0].bias))))


@torch.no_grad()
def test_packing_twice_is_packing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, shapes = model(), packs(monkeypatch)
    with packed(layers):
        with packed(layers):
            layers(torch.randn(4, 24))
        layers(torch.randn(4, 24))
    assert len(shapes) == 2


def test_where_gradients_are_kept_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, rows, shapes = model(), torch.randn(4, 24), packs(monkeypatch)
    with packed(layers):
        assert torch.equal(layers(rows), layers[2](F.gelu(F.linear(rows, layers[0].weight, layers[0].bias))))
        layers(rows).sum().backward()
    assert layers[0].weight.grad is not None
    assert shapes == []


@torch.no_grad()
def test_what_is_not_a_plain_float32_layer_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Adapted(nn.Linear):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return super().forward(given) + 1

    shapes, adapted, half = packs(monkeypatch), Adapted(8, 8), nn.Linear(8, 8, dtype=torch.bfloat16)
    rows = torch.randn(2, 8)
    with packed(nn.ModuleList([adapted, half])):
        assert torch.equal(adapted(rows), F.linear(rows, adapted.weight, adapted.bias) + 1)
        half(rows.bfloat16())
    layers = model()
    with packed(layers, wanted=False):
        layers(torch.randn(2, 24))
    with packed(layers), torch.autocast("cpu", torch.bfloat16):
        assert layers(torch.randn(2, 24)).dtype == torch.bfloat16
    assert shapes == []


def test_trying_it_draws_nothing_and_does_not_mind_where_it_is_asked() -> None:
    available.cache_clear()
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        assert available()
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_small_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = packs(monkeypatch)
    monkeypatch.setattr(packing, "LARGE", 40 * 24)
    layers = model()
    with packed(layers):
        layers(torch.randn(4, 24))
    assert shapes == [(40, 24)]


@pytest.mark.parametrize("make", [Showo, Janus])
def test_models_draw_and_answer_the_same(make: type[Showo] | type[Janus], monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make(f"unirl_shapes:checkpoints/{make.__name__.lower()}").eval()
    backbone.build()
    prompts, chance = ["a red circle", "two blue crosses"] * 2, ImageSampling(steps=16, guidance=0.5)

    @torch.no_grad()
    def drawn() -> tuple[Images, Answers]:
        images = backbone.sample_images(prompts, chance, torch.Generator().manual_seed(0))
        seen = dataclasses.replace(images, pixels=backbone.decode(images))
        return images, backbone.sample_answers(seen, ["what is there?"] * 4, AnswerSampling(4))

    shapes = packs(monkeypatch)
    images, answers = drawn()
    count = len(shapes)
    assert count > 8
    monkeypatch.setattr(packing, "LARGE", 2**40)
    plainly, said = drawn()
    assert len(shapes) == count
    assert torch.equal(images.codes, plainly.codes)
    assert answers.text == said.text
    torch.testing.assert_close(images.log_probs, plainly.log_probs, atol=1e-4, rtol=1e-4)
