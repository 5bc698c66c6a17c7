"""`unirl sample`: what it writes, its settings, the best of several images, its errors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import unirl
from unirl import AnswerSampling, Example, ImageSampling, SamplingConfig
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.backbones.showo.checkpoint import PUBLIC
from unirl.callbacks import Caption, image_grid
from unirl.cli.main import main
from unirl.cli.sample import choose_device
from unirl.cli.sample_backbone import choose_backbone
from unirl.functional import PerImageGenerator, generator_for
from unirl.rewards import Likelihood
from unirl_shapes.examples import all_examples
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.vocabulary import ALL_CATEGORIES

CONFIGS = Path(__file__).parents[2] / "configs"
MEASURED = SamplingConfig(ImageSampling(3, 0.5, 0.7, 2.0), AnswerSampling(max_tokens=2, temperature=0.9))


def test_answers_go_to_stdout_and_everything_else_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "image.png"
    command = ["sample", "--prompt", "a photo of a circle", "--prompt", "a photo of a ring", "--n", "2"]
    command += ["--steps", "2", "--out", str(out)]
    main([*command, "--question", "do you see a circle ?", "--answer", "circle"])
    assert Image.open(out).size[0] > 100
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert set(printed.out.split()) <= {"circle", "none", "square", "ring", "triangle", "cross", "diamond"}
    assert [line.split(":")[0] for line in printed.err.splitlines()] == [
        "sampling",
        *["'a photo of a circle'"] * 2,
        *["'a photo of a ring'"] * 2,
        f"wrote {out}",
    ]
    main(command)
    assert not capsys.readouterr().out


def of_one_image(*name: str | int) -> PerImageGenerator:
    """The generator of one image, with seed 0."""
    return PerImageGenerator([generator_for("cpu", 0, *name)])


@pytest.fixture
def measured(shapes_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint with settings of its own."""
    backbone = Showo.from_pretrained(str(shapes_checkpoint))
    backbone.sampling_config = MEASURED
    backbone.save_pretrained(tmp_path / "measured")
    return tmp_path / "measured"


def test_the_settings_of_the_checkpoint_are_the_defaults(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image is that of these settings; each option overrides its own setting alone."""
    command = ["sample", "--prompt", "a ring", "--question", "what is it ?", "--checkpoint", str(measured)]
    command += ["--device", "cpu", "--out", str(tmp_path / "image.png")]
    main(command)
    own = "steps 3, guidance 0.5, temperature 0.7, confidence_noise 2; answers: max_tokens 2, temperature 0.9"
    assert own in capsys.readouterr().err
    backbone = Showo.from_pretrained(str(measured)).eval()
    images = backbone.sample_images(["a ring"], MEASURED.image_sampling, of_one_image("a ring", 0))
    answers = backbone.sample_answers(
        images, ["what is it ?"], MEASURED.answer_sampling, of_one_image("a ring", 0, "answer", 0)
    )
    text = answers.text[0]
    image_grid(backbone.decode(images), [Caption("a ring", text, question="what is it ?")]).save(tmp_path / "own.png")
    assert (tmp_path / "image.png").read_bytes() == (tmp_path / "own.png").read_bytes()
    names = ("steps", "guidance", "temperature", "confidence-noise", "max-tokens", "answer-temperature")
    main([*command, *(part for name in names for part in (f"--{name}", "1"))])
    given = "steps 1, guidance 1, temperature 1, confidence_noise 1; answers: max_tokens 1, temperature 1"
    assert given in capsys.readouterr().err
    main([*command, "--guidance", "0"])
    assert own.replace("guidance 0.5", "guidance 0") in capsys.readouterr().err


def test_python_samples_as_the_command_does(measured: Path) -> None:
    backbone = Showo(str(measured))
    one = unirl.sample(backbone, ["a ring"], generator=torch.Generator().manual_seed(1))
    other = unirl.sample(
        backbone, [Example("a ring")], 1, MEASURED.image_sampling, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(one.images.codes, other.images.codes)
    assert one.answers is None
    with pytest.raises(unirl.UserError, match="best_of 2: the model decides by expected answers"):
        unirl.sample(backbone, ["a ring"], best_of=2)
    with pytest.raises(unirl.UserError, match="1 of 2 examples have a question; give it to all, or to none"):
        unirl.sample(backbone, ["a ring", Example("a ring", "what is it ?")])
    for wrong, message in (
        ({"seed": 0, "generator": torch.Generator()}, "generator and seed are both given"),
        ({"indices": [0]}, "indices without a seed"),
        ({"seed": 0, "indices": [0, 1]}, "2 indices for 1 examples"),
    ):
        with pytest.raises(unirl.UserError, match=message):
            unirl.sample(backbone, ["a ring"], **wrong)
    with pytest.raises(unirl.UserError, match="sample: steps 0"):
        unirl.sample(backbone, ["a ring"], image_sampling=ImageSampling(steps=0))


def test_an_image_depends_on_its_prompt_seed_and_index_only(
    tmp_path: Path, shapes_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Image and sampled answer are the same with other prompts, --n, --batch-size and --best-of."""
    command = ["sample", "--checkpoint", str(shapes_checkpoint), "--device", "cpu", "--steps", "3", "--json", "-"]
    command += ["--question", "what is it ?", "--answer", "ring", "--temperature", "1", "--answer-temperature", "1"]

    def sample(*prompts: str, **options: int) -> dict[tuple[str, int], tuple[bytes, str, float]]:
        words = [word for prompt in prompts for word in ("--prompt", prompt)]
        words += [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        main([*command, *words, "--out", f"{folder}/"])
        rows = json.loads(capsys.readouterr().out)["images"]
        return {
            (row["prompt"], row["image_index"]): ((folder / row["file"]).read_bytes(), row["answer"], row["score"])
            for row in rows
        }

    first, second = "a photo of a circle", "a photo of a red ring"
    every = sample(first, second, n=4)
    assert len({image for image, _, _ in every.values()}) == 8
    for fewer in (sample(second), sample(second, first, n=2, batch_size=3)):
        for key, (image, answer, score) in fewer.items():
            assert (image, answer) == every[key][:2]
            assert score == pytest.approx(every[key][2], rel=1e-4)
    best = sample(first, n=2, best_of=2)
    for index in range(2):  # the better one of each two that it is without best-of
        candidates = [every[first, 2 * index + i] for i in range(2)]
        assert best[first, index][:2] == max(candidates, key=lambda candidate: candidate[2])[:2]
    assert sample(first, seed=1)[first, 0][0] != every[first, 0][0]
    again = sample(first, second, first)  # a prompt that comes again goes on with the next image
    assert {key: image for key, (image, _, _) in again.items()} == {
        key: every[key][0] for key in ((first, 0), (second, 0), (first, 1))
    }


@pytest.fixture
def prompt_files(tmp_path: Path) -> Path:
    (tmp_path / "some.txt").write_bytes(
        "\ufeffa photo of a ring\r\n\r\n  a photo of a cross\r\n\u200b\n\ufeffa photo of a ring\n".encode()
    )
    (tmp_path / "latin.txt").write_bytes(b"a ring\na caf\xe9\n")
    (tmp_path / "colored.txt").write_text("a ring\n\na \x1b[31mred ring\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "some.csv").write_text("a photo of a ring\n")
    lines = [
        {"prompt": "a photo of a ring"},
        {"prompt": "a photo of a cross", "question": "what is it ?", "answer": "x"},
    ]
    for name, rows in {"plain": lines[:1], "asked": lines[1:], "mixed": lines}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_all_prompts_of_a_file_are_sampled(
    shapes_checkpoint: Path, prompt_files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(prompt_files)
    command = ["sample", "--checkpoint", str(shapes_checkpoint), "--steps", "1", "--out", "out", "--json", "-"]
    Path("out").mkdir()  # an existing folder needs no slash
    expected = {
        "some.txt": [("a photo of a ring", ""), ("a photo of a cross", ""), ("a photo of a ring", "")],
        "plain.jsonl": [("a photo of a ring", "")],
        "asked.jsonl": [("a photo of a cross", "what is it ?")],
    }
    for name, rows in expected.items():
        main([*command, "--prompts", name])
        document = json.loads(capsys.readouterr().out)
        assert [(row["prompt"], row["question"] or "") for row in document["images"]] == rows
        assert [row["file"] for row in document["images"]] == [f"{i:05}_0000.png" for i in range(len(rows))]
    assert document["image_sampling"]["steps"] == 1
    assert len(list(Path("out").iterdir())) == 3
    main([*command[:-1], "rows.json", "--prompts", "some.txt", "--question", "what is it ?", "--n", "2"])
    answers = [row["answer"] for row in json.loads(Path("rows.json").read_text())["images"]]
    assert capsys.readouterr().out.splitlines() == [" ".join(answer.split()) for answer in answers]
    assert len(answers) == 6
    assert Image.open("out/00002_0001.png").size == (64, 64)
    main([*command[:-1], "rows.json", "--prompts", "plain.jsonl"])
    assert "warning: 5 other images are in out, such as 00000_0001.png; they stay as before" in capsys.readouterr().err
    main([*command[:-1], "rows.json", "--prompt", "some.txt"])
    assert "'some.txt' is the prompt itself; --prompts some.txt samples those in the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt; give --prompt, or --prompts with a .jsonl or .txt file"),
        (["--prompts", "shapes"], "--prompts shapes: give --prompt, too; only a .jsonl or .txt file"),
        (["--prompts", "shape"], "nearest: shapes"),
        (["--prompts", "none.txt"], "cannot read the prompts file none.txt: No such file"),
        (["--prompts", "none.jsonl"], "cannot read the prompts file none.jsonl: No such file"),
        (["--prompts", "latin.txt"], "latin.txt:2: not UTF-8; save the file as UTF-8"),
        (["--prompts", "empty.txt"], "empty.txt is empty; write one prompt per line"),
        (["--prompts", "some.csv"], "some.csv: it is a file of another name; a file of prompts is .jsonl, or .txt"),
        (["--prompts", "."], "--prompts .: it is a folder; a file of prompts is .jsonl, or .txt"),
        (["--prompts", "colored.txt"], "colored.txt:3: the prompt 'a \\x1b[31mred ring' has the control character"),
        (["--prompts", "mixed.jsonl"], "mixed.jsonl: 1 of 2 lines have a question; give all one, or none"),
        (["--prompts", "asked.jsonl", "--question", "y"], "leave out --question and --answer"),
        (["--prompts", "some.txt", "--prompt", "x"], "a text file has no questions about --prompt"),
        (["--prompts", "some.txt", *(["--question", "y"] * 2)], "--question is given 2 times for 3 prompts"),
        (["--prompts", "some.txt", "--best-of", "2"], "--best-of 2: the model decides by"),
        (["--prompts", "some.txt", "--out", ""], "--out '': expected a file name that ends in .png"),
        (["--prompts", "some.txt", "--json", "x.png"], "--json 'x.png': it is the name of an image; give another file"),
        (
            ["--prompts", "plain.jsonl", "--json", "./plain.jsonl"],
            "it is the name of the file of prompts; give another",
        ),
        (["--prompts", "some.txt", "--json", "."], "--json '.': it is a folder; give the name of a file"),
        (["--prompts", "some.txt", "--json", "no/x.json"], "--json 'no/x.json': there is no folder 'no'"),
        (["--prompts", "some.txt", "--out", "some.csv/"], "--out 'some.csv/': File exists; give another folder"),
        (["--prompts", "some.txt", "--out", "no/x/"], "--out 'no/x/': there is no folder 'no'"),
    ],
)
def test_wrong_files_and_folders_have_errors_of_one_line(
    arguments: list[str],
    message: str,
    prompt_files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(prompt_files)
    test_sample_has_errors_of_one_line(["--out", "x.png", *arguments], message, capsys)


@pytest.mark.parametrize("model", ["showo", "janus"])
def test_the_shipped_models_are_sampled_as_their_configs_measure_them(model: str) -> None:
    config = yaml.safe_load((CONFIGS / f"{model}_grpo.yaml").read_text())["model"]
    shipped = SamplingConfig.from_pretrained(f"unirl_shapes:checkpoints/{model}")
    assert shipped.image_sampling == ImageSampling(**config["evaluation"]["image_sampling"])
    assert shipped.answer_sampling == AnswerSampling(**config["rollout"]["answer_sampling"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is broken"),
        ('{"image": {}}', "'image' is unknown; known: image_sampling, answer_sampling"),
        ('{"image_sampling": 3}', "image_sampling is 3; expected an object with some of steps, guidance"),
        ('{"image_sampling": {"step": 3}}', "image_sampling has no 'step'; known: steps, guidance"),
        ('{"image_sampling": {"steps": 3.5}}', "image_sampling.steps is 3.5; expected a whole number"),
        ('{"image_sampling": {"guidance": "1"}}', "image_sampling.guidance is '1'; expected a number"),
        ('{"image_sampling": {"guidance": null}}', "image_sampling.guidance is None; expected a number"),
        ('{"answer_sampling": {"max_tokens": 0}}', "max_tokens 0; it must be from 1"),
        ('{"answer_sampling": {"temperature": -1}}', "temperature -1"),
    ],
)
def test_a_broken_sampling_config_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sampling_config.json").write_text(text)
    with pytest.raises(unirl.UserError) as refused:
        SamplingConfig.from_pretrained(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert message in str(refused.value)


def test_public_checkpoints_are_sampled_as_their_authors_do(janus_checkpoint: Path) -> None:
    """Where there is no sampling_config.json: Janus by its generation config, Show-o by its size."""
    janus = Janus.from_pretrained(str(janus_checkpoint))
    config: Any = janus.transformer.janus.generation_config
    config.guidance_scale = 5
    assert janus.sampling_config == SamplingConfig(ImageSampling(guidance=4.0))
    for name, steps, guidance in (("showlab/show-o", 18, 1.75), ("showlab/show-o-512x512", 50, 5.0)):
        showo = Showo(name)
        showo.config = PUBLIC[name]
        assert showo.default_sampling_config.image_sampling == ImageSampling(steps, guidance)


@pytest.mark.parametrize("backbone", ["showo", "janus"])
def test_words_that_the_tokenizer_does_not_know_are_named(
    backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sample", "--backbone", backbone, "--out", str(tmp_path / "x.png"), "--steps", "2"]
    main([*command, "--prompt", "A photo of zwei circles and 🐱", "--question", "wie many ?", "--answer", "two"])
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        "warning: the model's tokenizer does not know 'zwei', '🐱' of the prompt 'A photo of zwei circles and 🐱'",
        "warning: the model's tokenizer does not know 'wie' of the question 'wie many ?'",
    ]


def test_the_backbone_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    for name in ("showo", "janus"):
        assert choose_backbone(None, f"unirl_shapes:checkpoints/{name}") == name
    for kind, name in (("multi_modality", "janus"), ("Emu3", "emu3"), ("emu3", "emu3")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert choose_backbone(None, str(tmp_path)) == name
    (tmp_path / "config.json").write_text("{}")  # the backbone says what is missing
    assert choose_backbone(None, str(tmp_path)) == choose_backbone(None, None) == "showo"
    assert choose_backbone("my_own", str(tmp_path)) == "my_own"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "x"], "--out"),
        (["--prompt", "x", "--out", "x.jpg"], ".png"),
        (["--prompt", "x", "--out", "nowhere/x.png"], "no folder 'nowhere'"),
        (["--prompt", "x", "--out", "x.png", "--backbone", "shwo"], "showo"),
        (["--prompt", "x", "--out", "x.png", "--checkpoint", "./missing"], "./missing"),
        (["--prompt", " ", "--out", "x.png"], "--prompt is empty; give a text"),
        (["--prompt", "x", "--question", "", "--out", "x.png"], "--question is empty; give a text, or leave it out"),
        (["--prompt", "x", "--out", "x.png", "--n", "0"], "--n 0: it must be at least 1"),
        (["--prompt", "x", "--out", "x.png", "--batch-size", "0"], "--batch-size 0: it must be at least 1"),
        (["--prompt", "x", "--out", "x.png", "--max_tokens", "3"], "no option 'max_tokens'; nearest: max-tokens"),
        (["--prompt", "x", "--out", "x.png", "--backbone", "emu3"], "--backbone emu3: give --checkpoint with a folder"),
        (
            [
                "--prompt",
                "x",
                "--out",
                "x.png",
                "--backbone",
                "showo",
                "--checkpoint",
                "unirl_shapes:checkpoints/janus",
            ],
            "is a checkpoint of janus; give --backbone janus, or leave --backbone out",
        ),
        (
            ["--prompt", "x", "--out", "x.png", "--checkpoint", "unirl_shapes:checkpoints/clip"],
            "no registered backbone reads the type 'clip' of its config.json",
        ),
        (["--prompt", "x", "--out", "x.png", "--steps", "0"], "steps 0"),
        (["--prompt", "x", "--out", "x.png", "--max-tokens", "0"], "max_tokens 0"),
        (["--prompt", "x", "--out", "x.png", "--answer-temperature", "-1"], "temperature -1"),
        (["--prompt", "x", "--out", "x.png", "--temperature", "-1"], "temperature -1"),
        (["--prompt", "x", "--out", "x.png", "--confidence-noise", "-1"], "confidence_noise -1"),
        (["--prompt", "x", "--out", "x.png", "--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
        (["--prompt", "x", "--out", "x.png", "--device", "meta"], "--device 'meta' cannot be used"),
        (["--prompt", "x", "--out", "x.png", "--device", "gpu"], "--device 'gpu' cannot be used"),
        (["--prompt", "x", "--out", "x.png", "--precision", "16"], "--precision"),
        (["--prompt", "x", "--out", "x.png", "--best-of", "0"], "--best-of 0: it must be at least 1"),
        (["--prompt", "x", "--out", "x.png", "--best-of", "2"], "give --question and --answer, or with --prompts"),
        (["--prompt", "x", "--out", "x.png", "--best-of", "2", "--question", "y"], "give --question and --answer"),
        (["--prompt", "x", "--out", "x.png", "--answer", "y"], "--answer: to which question?"),
        (["--prompt", "x", "--out", "x.png", "--question", "y", "--answer", " "], "--answer is empty"),
        (["--prompt", "x", "--out", "x.png", *(["--question", "y"] * 2)], "--question is given 2 times for 1 prompts"),
        (["--prompt", "x", "--out", "x.png", "--prompts", "shapes"], "--prompts shapes: 'x' is none of its prompts"),
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
    assert message in error.splitlines()[-1]
    assert [line for line in error.splitlines() if line.startswith("unirl: ")] == error.splitlines()[-1:]
    assert "Traceback" not in error


def test_a_prompt_of_any_category_is_found_in_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the weights of its categories are, in training and held out."""
    prompts = [
        "a photo of more circles than squares",
        "a photo of  a red Circle and no ring",
        "a photo of four crosses",
    ]
    command = [part for prompt in prompts for part in ("--prompt", prompt)]
    main(["sample", *command, "--prompts", "shapes", "--steps", "1", "--out", str(tmp_path / "x.png")])
    found = [line.partition("probability of ")[2].split("'")[1] for line in capsys.readouterr().err.splitlines()[1:4]]
    assert found == ["yes", "yes", "four crosses"]
    for category in ALL_CATEGORIES:
        example = all_examples(category)[-1]
        assert ShapesPrompts().find(example.prompt) == example
        assert len(ShapesPrompts(question_sets=True).find(example.prompt).questions) > 1


def test_sample_takes_the_settings_of_image_sampling(tmp_path: Path) -> None:
    settings = (["--device", "cpu"], ["--temperature", "1"], ["--confidence-noise", "1"], ["--precision", "bf16"])
    for i, extra in enumerate(settings):
        main(["sample", "--prompt", "a photo of a circle", "--out", str(tmp_path / f"{i}.png"), *extra])
    assert len({(tmp_path / f"{i}.png").read_bytes() for i in range(len(settings))}) == len(settings)


def test_the_best_image_is_the_one_whose_answer_the_model_finds_most_probable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Question and answer from options or a source of prompts. Image k is the best of the images 3 k to 3 k + 2."""
    backbone = Showo.from_pretrained("unirl_shapes:checkpoints/showo").eval()
    likelihood = Likelihood()
    sampling = replace(backbone.sampling_config.image_sampling, steps=4)
    examples = [
        *[Example("a photo of two circles", "how many circles do you see ?", "two circles", "counting")] * 2,
        *[Example("a photo of a red ring", "what color is the ring ?", "red", "colors")] * 2,
    ]
    rounds, scores = [], []
    likelihood.attach(backbone)
    for candidate in range(3):
        names = [(e.prompt, 3 * (i % 2) + candidate) for i, e in enumerate(examples)]
        generator = PerImageGenerator(generator_for("cpu", 0, *name) for name in names)
        images = backbone.sample_images([e.prompt for e in examples], sampling, generator)
        images = replace(images, pixels=backbone.decode(images))
        answers = backbone.sample_answers(images, [e.question for e in examples], AnswerSampling())
        rounds.append((images.pixels, answers.text))
        scores.append(likelihood.score(examples, images, answers))
    best = torch.stack(scores).argmax(0).tolist()
    assert len(set(best)) > 1
    captions = [
        Caption(e.prompt, rounds[r][1][i], None, e.question, e.answer)
        for i, (e, r) in enumerate(zip(examples, best, strict=True))
    ]
    pixels = torch.stack([rounds[r][0][i] for i, r in enumerate(best)])
    image_grid(pixels, captions).save(tmp_path / "expected.png")

    command = ["sample", "--device", "cpu", "--n", "2", "--steps", "4", "--best-of", "3"]
    command += ["--prompt", examples[0].prompt, "--prompt", examples[2].prompt]
    asked = [argument for e in examples[::2] for argument in ("--question", e.question, "--answer", e.answer)]
    for i, source in enumerate((asked, ["--prompts", "shapes"])):
        main([*command, *source, "--out", str(tmp_path / f"{i}.png")])
        made, expected = (np.array(Image.open(tmp_path / f"{name}.png"), int) for name in (i, "expected"))
        assert np.abs(made - expected).max() <= 1  # in another batch, pixels are rounded otherwise
        printed = capsys.readouterr()
        assert printed.out.splitlines() == [rounds[r][1][k] for k, r in enumerate(best)]
        lines = printed.err.splitlines()[1:]
        probabilities = [", ".join(f"{score[k]:.2f}" for score in scores) for k in range(4)]
        highest = [max(score[k] for score in scores) for k in range(4)]
        assert lines[:4] == [
            f"{e.prompt!r}: probability of {e.answer!r} {high:.2f}, the best of {all_of_them}"
            for e, high, all_of_them in zip(examples, highest, probabilities, strict=True)
        ]


@pytest.mark.parametrize("has_gpu", [True, False])
def test_auto_is_a_gpu_if_there_is_one(has_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device("auto").type == ("cuda" if has_gpu else "cpu")
