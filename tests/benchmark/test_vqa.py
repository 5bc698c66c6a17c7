"""The benchmark `vqa`: questions about images in files."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from unirl import UserError, evaluate
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.judges.vqa import VQA, VQAExample


@pytest.fixture
def lines(tmp_path: Path) -> list[dict[str, object]]:
    for name, size in (("wide.png", (80, 50)), ("high.jpg", (30, 90))):
        Image.effect_noise(size, 90).convert("RGB").save(tmp_path / name)
    return [
        {
            "image": "wide.png",
            "question": "how many circles do you see ?",
            "answers": ["two", "2"],
            "category": "count",
        },
        {"image": "high.jpg", "question": "is there a circle ?", "answer": "yes", "choices": ["yes", "no"]},
        {"image": "high.jpg", "question": "is there a ring ?", "answer": "no", "choices": ["no", "yes"]},
    ]


def written(folder: Path, lines: list[dict[str, object]]) -> str:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["showo", "janus"])
def test_any_backbone_answers_about_images_of_any_size(
    tmp_path: Path, lines: list[dict[str, object]], kind: str, request: pytest.FixtureRequest
) -> None:
    checkpoint = str(request.getfixturevalue("shapes_checkpoint" if kind == "showo" else "janus_checkpoint"))
    backbone = (Showo if kind == "showo" else Janus).from_pretrained(checkpoint)
    results = evaluate(backbone, VQA(written(tmp_path, lines)), tmp_path / "out", batch_size=2)
    understanding = results.understanding
    assert understanding["questions"] == {"count": 1, "questions": 2}
    assert [one["answer"] in ("yes", "no") for one in understanding["answers"][1:]] == [True, True]
    assert understanding["yes_no"]["neither_share"] == 0
    assert results.score is None
    again = evaluate(backbone, VQA(written(tmp_path, lines)), tmp_path / "out", batch_size=2)
    assert again.understanding == understanding


def test_answers_are_compared_by_their_words() -> None:
    judge, accepts = VQA.__new__(VQA), {}
    for right, given in (("two", "Two."), ("a red cup", "the red cup"), ("yes", "Yes, there is one"), ("no", "not")):
        accepts[right] = judge.accepts_answer(_example(right), given)
    assert accepts == {"two": True, "a red cup": True, "yes": True, "no": False}
    assert not judge.accepts_answer(_example("red"), "red and blue")
    assert judge.accepts_answer(_example("3.5"), "3.5")
    assert not judge.accepts_answer(_example("3.5"), "3 5")


def _example(right: str) -> VQAExample:
    return VQAExample("", "what ?", right, accepted=(right,))


BROKEN = [
    ("{", "questions.jsonl:1: not valid JSON"),
    ("[]", "questions.jsonl:1: expected a JSON object, got \\[\\]"),
    ('{"image": "wide.png", "question": "what ?"}', "expected a text in 'answer', or a list of them in 'answers'"),
    ('{"image": "wide.png", "question": "", "answer": "a"}', "expected a text in 'question', got ''"),
    ('{"image": "none.png", "question": "what ?", "answer": "a"}', "there is no image .*none.png; --benchmark.images"),
    ('{"image": "wide.png", "question": "what ?", "answer": 3}', "expected a list of texts in 'answers', got \\[3\\]"),
    ('{"image": "wide.png", "question": "what ?", "answer": "a", "choices": ["b", "c"]}', "not among its choices"),
    ('{"image": "wide.png", "question": "what ?", "anser": "a"}', "unknown field 'anser'; known: image, question"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN)
@pytest.mark.usefixtures("lines")
def test_a_broken_line_is_said_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "questions.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        VQA(str(tmp_path / "questions.jsonl"))


def test_files_that_are_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the questions file .*: No such file"):
        VQA(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"empty.jsonl is empty"):
        VQA(str(tmp_path / "empty.jsonl"))


def test_a_broken_image_is_said(tmp_path: Path, lines: list[dict[str, object]], shapes_checkpoint: Path) -> None:
    (tmp_path / "wide.png").write_bytes((tmp_path / "wide.png").read_bytes()[:80])
    with pytest.raises(UserError, match=r"wide.png: a broken image: .*truncated"):
        evaluate(Showo(str(shapes_checkpoint)), VQA(written(tmp_path, lines)), tmp_path / "out")


def test_it_judges_no_generated_images(tmp_path: Path, lines: list[dict[str, object]]) -> None:
    with pytest.raises(UserError, match="cannot judge generated ones"):
        VQA(written(tmp_path, lines)).verdicts([], torch.zeros(0, 3, 8, 8))


def test_showo_reads_the_middle_square(shapes_checkpoint: Path) -> None:
    backbone = Showo.from_pretrained(str(shapes_checkpoint))
    middle = Image.effect_noise((64, 64), 90).convert("RGB")
    wide = Image.new("RGB", (96, 64))
    wide.paste(middle, (16, 0))
    assert torch.equal(backbone.preprocess([wide]), backbone.preprocess([middle]))
    assert backbone.preprocess([wide]).shape == (1, 3, 64, 64)
    line = Image.new("RGB", (200_000, 1))  # resized whole, it would be 2.5 GB
    line.paste((255, 0, 0), (99_000, 0, 101_000, 1))
    assert backbone.preprocess([line])[0, :, 32, 32].tolist() == [1, 0, 0]
    assert backbone.preprocess([line.rotate(90, expand=True)])[0, :, 32, 32].tolist() == [1, 0, 0]
