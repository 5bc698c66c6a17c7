"""The benchmark `vqa`: questions about images in files."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from unirl import Example, UserError, evaluate
from unirl.backbones import given_images
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.benchmark.understanding import accuracies, answer_doubts
from unirl.judges.vqa import VQA, VQAExample
from unirl.types import Question


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


SAME = [
    ("two", "Two."),
    ("a red cup", "the red cup"),
    ("yes", "Yes, there is one"),
    ("Yes\r", "**yes**"),
    ("no", "No/none"),
    ("two cats", "2 cats"),
    ("3.5", "3.5"),
    ("1000", "1,000"),
    ("A", "(a)"),
    ("+", "+"),
    ("fire hydrant", "fire_hydrant"),
    ("两只猫", "两只猫。"),
    ("٢", "2"),
]
OTHER = [
    ("no", "not"),
    ("red", "red and blue"),
    ("3.5", "3 5"),
    ("35", "3,5"),
    ("5", "-5"),
    ("+", "-"),
    ("+", ""),
    ("A", ""),
    ("A", "the"),
    ("कि", "की"),
    ("yes", "is it yes"),
]


def test_answers_are_compared_by_their_words() -> None:
    judge = VQA.__new__(VQA)
    assert [pair for pair in SAME if not judge.accepts_answer(_example(pair[0]), pair[1])] == []
    assert [pair for pair in OTHER if judge.accepts_answer(_example(pair[0]), pair[1])] == []


def test_of_choices_the_right_one_itself_is_correct() -> None:
    question = Question("which ?", "The cat", ("A cat", "the cat", "cat"))
    example = VQAExample("", questions=(question,), accepted=("The cat",))
    judge = VQA.__new__(VQA)
    assert [judge.accepts_answer(example, one) for one in question.choices] == [False, True, False]


def _example(right: str) -> VQAExample:
    return VQAExample("", "what ?", right, accepted=(right,))


@pytest.mark.parametrize(
    ("right", "given", "expected"),
    [  # precision, recall and F1 as scikit-learn has them for the class "yes", zero where nothing can be divided
        ("yyynn", "yynyn", (3 / 5, 2 / 3, 2 / 3, 2 / 3, 3 / 5, 0.0)),
        ("yynn", "nnnn", (2 / 4, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ("yynn", "yyyy", (2 / 4, 2 / 4, 1.0, 2 / 3, 1.0, 0.0)),
        ("nn", "nn", (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ("yynn", "y??n", (2 / 4, 1.0, 1 / 2, 2 / 3, 1 / 4, 2 / 4)),
    ],
)
def test_yes_no_metrics(right: str, given: str, expected: tuple[float, ...]) -> None:
    words = {"y": "Yes, there is.", "n": "no\r", "?": "maybe"}
    examples = [_example({"y": "Yes", "n": "no."}[one]) for one in right]
    found = accuracies(VQA.__new__(VQA), examples, [words[one] for one in given])
    assert tuple(found["yes_no"].values()) == pytest.approx(expected)
    assert found["yes_no"]["accuracy"] == found["accuracy"]["overall"]
    assert any("neither yes nor no" in one for one in answer_doubts(found)) == ("?" in given)


def test_an_accuracy_of_one_question_has_no_standard_error() -> None:
    examples = [VQAExample("", "?", "a", one, accepted=("a",)) for one in ("few", "many", "many")]
    found = accuracies(VQA.__new__(VQA), examples, ["a", "a", "b"])
    assert found["standard_error"] == {"few": None, "many": 0.5, "overall": None}


BROKEN = [
    ("{", "questions.jsonl:1: not valid JSON"),
    ("[" * 100_000, "questions.jsonl:1: not valid JSON"),
    ("[]", "questions.jsonl:1: got \\[\\], expected a JSON object with 'image', 'question'"),
    ('{"image": "wide.png", "question": "what ?"}', "expected either 'answer', a text, or 'answers', a list of texts"),
    ('{"image": "wide.png", "question": "?", "answer": "a", "answers": ["b"]}', "give one of the two"),
    ('{"image": "wide.png", "question": "?", "answers": ["a", " "]}', "'answers\\[1\\]' is \" \", expected text"),
    ('{"image": "wide.png", "question": "?", "answers": []}', "'answers' is empty; give one or more"),
    ('{"image": "wide.png", "question": "", "answer": "a"}', "'question' is \"\", expected text that is not blank"),
    ('{"image": "none.png", "question": "what ?", "answer": "a"}', "there is no image .*none.png; --benchmark.images"),
    ('{"image": "wide.png", "question": "what ?", "answer": 3}', "'answer' is 3, expected text"),
    ('{"image": "wide.png", "question": "?", "answer": "a", "choices": "ab"}', "'choices' is \"ab\", expected a list"),
    (
        '{"image": "wide.png", "question": "what ?", "answer": "a", "choices": ["b", "c"]}',
        "questions.jsonl:1: it has the answer 'a', which is not among its choices",
    ),
    ('{"image": "wide.png", "question": "?", "answer": "a", "choices": ["a", "A"]}', "it has a choice twice"),
    ('{"image": "wide.png", "question": "?", "answer": "a", "category": "overall"}', "the category 'overall'"),
    ('{"image": "wide.png", "question": "what ?", "anser": "a"}', "unknown field 'anser'; nearest: answer"),
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


def test_answers_are_kept_by_question_and_image(
    tmp_path: Path, lines: list[dict[str, object]], shapes_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another question, or another image in the place of one, is asked about; the others are not."""
    backbone, asked, read = Showo.from_pretrained(str(shapes_checkpoint)), list[str](), list[str]()
    open_image, sample_answers = given_images.open_image, backbone.sample_answers
    monkeypatch.setattr(given_images, "open_image", lambda path: read.append(Path(path).name) or open_image(path))
    monkeypatch.setattr(
        backbone,
        "sample_answers",
        lambda images, texts, *rest: asked.extend(texts) or sample_answers(images, texts, *rest),
    )

    def evaluated(count: int | None = None) -> tuple[list[str], list[str], list[str]]:
        asked.clear()
        read.clear()
        results = evaluate(backbone, VQA(written(tmp_path, lines)), tmp_path / "out", limit=count)
        return list(asked), list(read), [one["question"] for one in results.understanding["answers"]]

    lines = [
        {"image": name, "question": f"{i} ?", "answer": "x"} for i, name in enumerate(["wide.png"] * 2 + ["high.jpg"])
    ]
    assert evaluated(2) == (["0 ?", "1 ?"], ["wide.png"], ["0 ?", "1 ?"])
    assert evaluated()[:2] == (["0 ?", "1 ?", "2 ?"], ["wide.png", "high.jpg"])
    assert evaluated() == ([], [], ["0 ?", "1 ?", "2 ?"])
    lines = [lines[2], lines[0]]
    assert evaluated() == ([], [], ["2 ?", "0 ?"])
    lines[1] |= {"question": "other ?"}
    assert "other ?" in evaluated()[0]
    Image.new("RGB", (20, 20)).save(tmp_path / "wide.png")
    assert evaluated()[1] == ["high.jpg", "wide.png"]


def test_images_are_found_by_any_path(tmp_path: Path, lines: list[dict[str, object]]) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link.png").symlink_to(tmp_path / "wide.png")
    lines = [{**lines[0], "image": name} for name in (str(tmp_path / "wide.png"), "sub/link.png", "sub/../high.jpg")]
    _, files = VQA(written(tmp_path, [*lines, lines[1]])).understanding_set(1)
    assert [Path(file).resolve().name for file in files] == ["wide.png", "wide.png", "high.jpg", "wide.png"]


SCIENCE = {"image": "image.png", "split": "test", "subject": "social science"}
PUBLIC: dict[str, tuple[dict[str, object], str]] = {
    "pope": ({"coco_pope_random.json": {"question_id": 1, "image": "1.jpg", "text": "dog?", "label": "yes"}}, "1.jpg"),
    "gqa": (
        {"testdev_balanced_questions.json": {"20": {"imageId": "n1", "question": "who?", "answer": "woman"}}},
        "n1.jpg",
    ),
    "mme": ({"eval_tool/Your_Results/color.txt": "1.png\tIs it red?\tYes\r\n1.png\tblue?\tNo\r\n"}, "color/1.png"),
    "vqa": (
        {
            "v2_OpenEnded_mscoco_val2014_questions.json": {
                "questions": [{"question_id": 420, "question": "how many?"}]
            },
            "v2_mscoco_val2014_annotations.json": {
                "annotations": [
                    {
                        "question_id": 420,
                        "image_id": 42,
                        "multiple_choice_answer": "2",
                        "answers": [{"answer": one} for one in ["2"] * 4 + ["3"] * 3 + ["4"] * 2 + ["5"]],
                    }
                ]
            },
        },
        "COCO_val2014_000000000042.jpg",
    ),
    "science": (
        {"problems.json": {"7": {"question": "?", "choices": ["x", "y"], "answer": 1} | SCIENCE}},
        "test/7/image.png",
    ),
}
EXPECTED = {
    "pope": [("yes",)],
    "gqa": [("woman",)],
    "mme": [("Yes",), ("No",)],
    "vqa": [("2", "3")],
    "science": [("y",)],
}


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_public_sets_become_lines_by_the_commands_of_the_docs(tmp_path: Path, name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"^    (jq .*> {name}\.jsonl)$", page, re.MULTILINE)
    files, image = PUBLIC[name]
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(tmp_path / image)
    examples, files_of = VQA(str(tmp_path / f"{name}.jsonl")).understanding_set(1)
    assert [example.accepted for example in examples if isinstance(example, VQAExample)] == EXPECTED[name]
    assert set(files_of) == {str(tmp_path / image)}


def test_a_broken_image_is_said(tmp_path: Path, lines: list[dict[str, object]], shapes_checkpoint: Path) -> None:
    (tmp_path / "wide.png").write_bytes((tmp_path / "wide.png").read_bytes()[:80])
    with pytest.raises(UserError, match=r"wide.png: a broken image: .*truncated"):
        evaluate(Showo(str(shapes_checkpoint)), VQA(written(tmp_path, lines)), tmp_path / "out")


def test_it_judges_no_generated_images(tmp_path: Path, lines: list[dict[str, object]]) -> None:
    with pytest.raises(UserError, match="cannot judge generated ones"):
        VQA(written(tmp_path, lines)).verdicts([], torch.zeros(0, 3, 8, 8))
    with pytest.raises(UserError, match="vqa has no prompts, so there are no images to judge; leave --judge-only out"):
        evaluate(None, VQA(written(tmp_path, lines)), tmp_path / "out")
    with pytest.raises(UserError, match="judges no generated images"):
        VQA(written(tmp_path, lines)).check_example(Example("a cup"))  # as `fit` does before it loads a model


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
