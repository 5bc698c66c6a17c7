"""Images of files with prompts and questions, as a judge gives them."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from unirl import Example, UserError
from unirl.judges import ReferenceImages
from unirl.prompts import JsonLines

CUP = {"prompt": "a red cup", "question": "Which color?", "answer": "red", "category": "colors", "image": "0.png"}
TWO = {
    "prompt": "two dogs",
    "category": "counting",
    "image": "deep/1.jpg",
    "questions": [
        {"text": "Are there dogs?", "answer": "yes", "choices": ["yes", "no"]},
        {"text": "How many?", "answer": "two", "requires": [0]},
    ],
}


def saved(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9)).save(folder / name)


def written(folder: Path, *lines: object) -> str:
    saved(folder, "0.png", "deep/1.jpg")
    path = folder / "images.jsonl"
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines))
    return str(path)


def test_a_file_has_images_beside_it(tmp_path: Path) -> None:
    images = ReferenceImages(written(tmp_path, CUP, TWO, {"prompt": "no question", "image": "0.png"}))
    paths = [str(tmp_path / "0.png"), None, str(tmp_path / "deep/1.jpg")]
    assert images.references([Example(" A  RED cup"), Example("a dog"), Example("two dogs")]) == paths
    asked = images.understanding_set(10)
    assert asked is not None
    by_question = dict(zip([one.question for one in asked[0]], zip(*asked, strict=True), strict=True))
    assert set(by_question) == {"Which color?", "Are there dogs?", "How many?"}
    one, path = by_question["How many?"]
    assert (one.answer, path, len(one.questions), one.questions[0].requires) == ("two", paths[2], 1, ())
    assert by_question["Are there dogs?"][0].questions[0].choices == ("yes", "no")


def test_the_same_lines_are_held_out_prompts(tmp_path: Path) -> None:
    train = written(tmp_path, {**CUP, "prompt": "a blue cup"})
    (tmp_path / "held_out.jsonl").write_text(json.dumps(CUP))
    (example,) = JsonLines(train, str(tmp_path / "held_out.jsonl")).held_out(5)
    assert ReferenceImages(str(tmp_path / "held_out.jsonl")).references([example]) == [str(tmp_path / "0.png")]


def test_questions_are_spread_over_categories_and_come_again(tmp_path: Path) -> None:
    lines = [{**CUP, "prompt": f"cup {i}"} for i in range(30)] + [{**CUP, "category": "rare", "answer": "blue"}] * 3
    images = ReferenceImages(written(tmp_path, *lines))
    first, same, other = images.understanding_set(6), images.understanding_set(6), images.understanding_set(6, seed=1)
    assert first is not None
    assert Counter(one.category for one in first[0]) == {"colors": 3, "rare": 3}
    assert first == same != other


def test_a_folder_in_genevals_layout(tmp_path: Path) -> None:
    metadata = {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}], "prompt": "a red cup"}
    saved(tmp_path, "00003/samples/0001.png", "00003/samples/0000.jpg", "00003/samples/grid.png", "x/samples/0000.png")
    (tmp_path / "00003/metadata.jsonl").write_text(json.dumps(metadata))
    saved(tmp_path, "00004/samples/no.png")
    images = ReferenceImages(str(tmp_path))
    assert images.references([Example("a red cup")]) == [str(tmp_path / "00003/samples/0000.jpg")]
    assert images.understanding_set(9) is None
    asked = ReferenceImages(str(tmp_path), lambda e: Example(e.prompt, "Which color?", str(e.objects[0].color)))
    found = asked.understanding_set(9)
    assert found is not None
    assert [one.answer for one in found[0]] == ["red", "red"]


BROKEN = [
    ("{", "images.jsonl:1: not valid JSON"),
    ({**CUP, "image": "none.png"}, "images.jsonl:1: there is no image .*none.png"),
    ({**CUP, "image": 3}, "images.jsonl:1: 'image' is 3, expected text"),
    ({"prompt": "a cup"}, "images.jsonl:1: the field 'image' is missing"),
    ({**CUP, "imag": "0.png"}, "images.jsonl:1: unknown field 'imag'"),
    ("", "images.jsonl is empty"),
    ({**CUP, "image": "images.jsonl"}, "images.jsonl:1: .*images.jsonl is no image; expected a PNG"),
    ({**CUP, "image": "x" * 300}, "images.jsonl:1: 'image' 'x+' cannot be a file"),
    ({**CUP, "image": "~nosuchuser/0.png"}, "images.jsonl:1: 'image' '~nosuchuser/0.png' cannot be a file"),
    ({"prompt": "a cup", "question": "Which?", "image": "0.png"}, "jsonl:1: there is 'question' without 'answer'"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN)
def test_a_broken_line_is_said_with_its_place(line: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        ReferenceImages(written(tmp_path, line))


def test_folders_without_images_or_metadata_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no images; expected a JSON Lines file"):
        ReferenceImages(str(tmp_path))
    saved(tmp_path, "0/samples/0.png")
    with pytest.raises(UserError, match=r"cannot read .*metadata.jsonl"):
        ReferenceImages(str(tmp_path))
    (tmp_path / "0/metadata.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(UserError, match=r"metadata.jsonl: expected one JSON object, got 2"):
        ReferenceImages(str(tmp_path))
    (tmp_path / "0/metadata.jsonl").write_text('{"prompt": "a"}')
    (tmp_path / "0/samples/0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"0.metadata.jsonl: .*0.png is no image"):
        ReferenceImages(str(tmp_path))
    with pytest.raises(UserError, match=r"cannot read .*absent"):
        ReferenceImages(str(tmp_path / "absent"))
    for path in ("~nosuchuser/a", "x" * 5000):
        with pytest.raises(UserError, match=r"reference_images .* cannot be a file or folder"):
            ReferenceImages(path)
