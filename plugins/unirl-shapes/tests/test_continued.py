"""Continued pre-training: the larger vocabulary, the noise, and one task alone."""

from collections.abc import Callable
from random import Random

import pytest
import torch
from torch import Tensor, nn

from unirl import ImageSampling
from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl_shapes.cli import main
from unirl_shapes.pretrain import data, janus, showo
from unirl_shapes.pretrain.continued import add_weight_noise
from unirl_shapes.pretrain.data import Phase, combined_loss

PROMPTS = ["a photo of two red circles", "a photo of a ring above a square"]


@pytest.mark.parametrize("name", ["showo", "janus"])
def test_a_larger_vocabulary_changes_nothing_that_was_known(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    words = data.words()
    monkeypatch.setattr(data, "words", lambda: [*words, "thousand", "never"])
    out, init = tmp_path_factory.mktemp(name), f"unirl_shapes:checkpoints/{name}"
    small: Backbone = Showo.from_pretrained(init) if name == "showo" else Janus.from_pretrained(init)
    large: Backbone = (showo if name == "showo" else janus)._from_checkpoint(out, init, seed=0)
    outputs = []
    for backbone in (small.eval(), large.eval()):
        images = backbone.sample_images(PROMPTS, ImageSampling(steps=4), torch.Generator().manual_seed(0))
        answers = backbone.tokenize_answers(["two circles", "above"])
        questions = ["how many circles do you see ?", "where is the ring from the square ?"]
        log_probs = [backbone.answer_log_probs(images, questions, answers[[i, i]])[i] for i in range(2)]
        outputs.append((images.codes, torch.stack(log_probs)))
    assert torch.equal(outputs[0][0], outputs[1][0])
    more = outputs[0][1] - outputs[1][1]  # new words take a share of the probability of a next word
    assert (more >= -1e-6).all()
    assert more.max() < 3
    assert large.tokenize_answers(["never"]).text == ["never"]


def test_noise_is_relative_to_the_weights_and_leaves_vectors() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(200, 200), nn.Linear(200, 200)]
    with torch.no_grad():
        layers[1].weight.mul_(10)
    before = [(layer.weight.clone(), layer.bias.clone()) for layer in layers]
    add_weight_noise(layers, 0.5, seed=1)
    for layer, (weight, bias) in zip(layers, before, strict=True):
        assert torch.equal(layer.bias, bias)
        assert ((layer.weight - weight).std() / weight.std()).item() == pytest.approx(0.5, rel=0.02)


def test_a_phase_trains_the_tasks_that_it_has() -> None:
    def loss(value: float) -> Callable[[Random, Phase], Tensor]:
        return lambda rng, phase: torch.tensor(value, dtype=torch.float32)

    def names(phase: Phase) -> tuple[float, list[str]]:
        total, metrics = combined_loss(Random(0), phase, loss(1.0), loss(2.0))
        return total.item(), sorted(metrics)

    assert names(Phase(4, 4)) == (3.0, ["generation_loss", "understanding_loss"])
    assert names(Phase(4, 0)) == (2.0, ["generation_loss"])
    assert names(Phase(0, 4)) == (1.0, ["understanding_loss"])


def test_models_without_continued_pretraining_refuse_init(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", "clip", "--out", "nowhere", "--init", "unirl_shapes:checkpoints/clip"])
    assert "--init is for showo and janus" in capsys.readouterr().err
