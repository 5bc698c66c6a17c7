"""The commands of the README, with the checkpoints of unirl-shapes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from unirl.backbones.showo import Showo
from unirl.callbacks import Caption, image_grid
from unirl.cli.main import main
from unirl.cli.sample import choose_device
from unirl.functional.seeding import generator_for
from unirl.rewards import Likelihood
from unirl.types import AnswerSampling, Example, ImageSampling
from unirl_shapes.cli import main as shapes_main
from unirl_shapes.pretrain import showo

CONFIG = str(Path(__file__).parents[2] / "configs" / "showo_sft.yaml")
QUICK = ["--data.num_val_prompts", "12", "--model.evaluation.num_understanding", "12", "--data.val_batch_size", "6"]
QUICK += ["--trainer.logger", "false"]


def test_sample_writes_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "image.png"
    main(["sample", "--prompt", "a photo of a circle", "--question", "do you see a circle ?", "--out", str(out)])
    assert Image.open(out).size[0] > 100
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "x"], "--out"),
        (["--prompt", "x", "--out", "x.jpg"], ".png"),
        (["--prompt", "x", "--out", "nowhere/x.png"], "no folder 'nowhere'"),
        (["--prompt", "x", "--out", "x.png", "--backbone", "shwo"], "showo"),
        (["--prompt", "x", "--out", "x.png", "--checkpoint", "./missing"], "./missing"),
        (["--prompt", "x", "--out", "x.png", "--steps", "0"], "--steps 0"),
        (["--prompt", "x", "--out", "x.png", "--temperature", "-1"], "temperature -1"),
        (["--prompt", "x", "--out", "x.png", "--confidence_noise", "-1"], "confidence_noise -1"),
        (["--prompt", "x", "--out", "x.png", "--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
        (["--prompt", "x", "--out", "x.png", "--device", "gpu"], "--device 'gpu' cannot be used"),
        (["--prompt", "x", "--out", "x.png", "--precision", "16"], "--precision"),
        (["--prompt", "x", "--out", "x.png", "--best-of", "0"], "--best-of 0: it must be at least 1"),
        (["--prompt", "x", "--out", "x.png", "--best-of", "2"], "give --question and --answer, or with --prompts"),
        (["--prompt", "x", "--out", "x.png", "--best-of", "2", "--question", "y"], "give --question and --answer"),
        (["--prompt", "x", "--out", "x.png", "--answer", "y"], "--answer: to which question?"),
        (["--prompt", "x", "--out", "x.png", "--question", "y", "--answer", " "], "--answer is empty"),
        (["--prompt", "x", "--out", "x.png", *(["--question", "y"] * 2)], "--question is given 2 times for 1 prompts"),
        (["--prompt", "x", "--out", "x.png", "--prompts", "shapes"], "--prompts shapes: 'x' is not among its held-out"),
        (["--prompt", "x", "--out", "x.png", "--prompts", "shape"], "nearest: shapes"),
        (["--prompt", "x", "--out", "x.png", "--prompts", "x.jsonl"], "cannot read the prompts file x.jsonl"),
        (["--prompt", "x", "--out", "x.png", "--prompts", "shapes", "--question", "y"], "leave out --question"),
    ],
)
def test_sample_has_errors_of_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["sample", *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_sample_takes_the_settings_of_image_sampling(tmp_path: Path) -> None:
    settings = (["--device", "cpu"], ["--temperature", "0.6"], ["--confidence_noise", "1e9"], ["--precision", "bf16"])
    for i, extra in enumerate(settings):
        main(["sample", "--prompt", "a photo of a circle", "--out", str(tmp_path / f"{i}.png"), *extra])
    assert len({(tmp_path / f"{i}.png").read_bytes() for i in range(len(settings))}) == len(settings)


def test_the_best_image_is_the_one_whose_answer_the_model_finds_most_probable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Question and answer from the options, or from the source of prompts. The first candidates are those of before."""
    backbone = Showo.from_pretrained("unirl_shapes:checkpoints/showo").eval()
    generator, likelihood = generator_for("cpu", 0, "sample"), Likelihood()
    examples = [
        *[Example("a photo of two circles", "how many circles do you see ?", "two circles", "counting")] * 2,
        *[Example("a photo of a red ring", "what color is the ring ?", "red", "colors")] * 2,
    ]
    rounds, scores = [], []
    likelihood.attach(backbone)
    for _ in range(3):
        images = backbone.sample_images([e.prompt for e in examples], ImageSampling(steps=4), generator)
        images = replace(images, pixels=backbone.decode(images))
        answers = backbone.sample_answers(images, [e.question for e in examples], AnswerSampling())
        rounds.append((images.pixels, answers.text))
        scores.append(likelihood.score(examples, images, answers))
    best = torch.stack(scores).argmax(0).tolist()
    assert len(set(best)) > 1
    captions = [Caption(e.prompt, rounds[r][1][i]) for i, (e, r) in enumerate(zip(examples, best, strict=True))]
    pixels = torch.stack([rounds[r][0][i] for i, r in enumerate(best)])
    image_grid(pixels, captions).save(tmp_path / "expected.png")

    command = ["sample", "--device", "cpu", "--count", "2", "--steps", "4", "--best-of", "3"]
    command += ["--prompt", examples[0].prompt, "--prompt", examples[2].prompt]
    asked = [argument for e in examples[::2] for argument in ("--question", e.question, "--answer", e.answer)]
    for i, source in enumerate((asked, ["--prompts", "shapes"])):
        main([*command, *source, "--out", str(tmp_path / f"{i}.png")])
        assert (tmp_path / f"{i}.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
        lines = capsys.readouterr().out.splitlines()
        probabilities = [", ".join(f"{score[k]:.2f}" for score in scores) for k in range(4)]
        highest = [max(score[k] for score in scores) for k in range(4)]
        assert lines[:4] == [
            f"{e.prompt!r}: probability of {e.answer!r} {high:.2f}, the best of {all_of_them}"
            for e, high, all_of_them in zip(examples, highest, probabilities, strict=True)
        ]


def test_sample_generates_what_the_backbone_does_on_the_cpu(tmp_path: Path) -> None:
    backbone = Showo.from_pretrained("unirl_shapes:checkpoints/showo").eval()
    images = backbone.sample_images(["a ring"], ImageSampling(), generator_for("cpu", 3, "sample"))
    image_grid(backbone.decode(images), [Caption("a ring", "")]).save(tmp_path / "expected.png")
    main(["sample", "--prompt", "a ring", "--seed", "3", "--device", "cpu", "--out", str(tmp_path / "image.png")])
    assert (tmp_path / "image.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


@pytest.mark.parametrize("has_gpu", [True, False])
def test_auto_is_a_gpu_if_there_is_one(has_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device("auto").type == ("cuda" if has_gpu else "cpu")


def test_doctor_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--help"])
    assert capsys.readouterr().out.startswith("usage: unirl doctor")


def test_validate_prints_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["validate", "--config", CONFIG, *QUICK, "--trainer.default_root_dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert "generation" in out
    assert "color_attr" in out


def test_shapes_measure_prints_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    shapes_main(["measure", "--count", "12", "--steps", "2", "4"])
    assert capsys.readouterr().out.count("generation") == 2


def test_shapes_pretrain_writes_a_checkpoint_and_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unirl_shapes.pretrain.showo.measure", lambda *_, **__: {"generation": 0.0})
    short = replace(showo.CONTINUATION, relation_steps=2, word_steps=2)
    monkeypatch.setattr(showo, "CONTINUATION", short)

    def logs(folder: str) -> dict[str, str]:
        return {path.name.split(".")[0]: path.read_text() for path in (tmp_path / folder).glob("*.log.jsonl")}

    command = ["pretrain", "showo", "--tokenizer-steps", "1", "--threads", "1"]
    shapes_main([*command, "--out", str(tmp_path / "whole"), "--steps", "2"])
    first = logs("whole")
    continued = {"showo_relations", "showo_words", "showo_noise"}
    assert set(first) == {"tokenizer", "showo"} | continued
    shapes_main([*command, "--out", str(tmp_path / "whole"), "--steps", "2"])
    assert logs("whole") == first  # finished: nothing more to do
    init = str(tmp_path / "whole" / "showo")
    assert (tmp_path / "whole" / "showo" / "model.safetensors").is_file()
    shapes_main([*command, "--out", str(tmp_path / "continued"), "--init", init])
    assert set(logs("continued")) == continued
