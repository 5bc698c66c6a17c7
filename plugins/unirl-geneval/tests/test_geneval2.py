"""GenEval2's Soft-TIFA, against its public code and against a plain forward pass."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

from unirl import Example, UserError
from unirl.judges import Judge
from unirl.testing import JudgeConformance
from unirl_geneval.geneval2 import GenEval2Judge
from unirl_geneval.soft_tifa import geometric_mean

CUPS = {
    "prompt": "two red cups",
    "atom_count": 3,
    "vqa_list": [["How many cups are in the image?", "two"], ["Are the cups red?", "Yes"]],
    "skills": ["count", "attribute"],
}
CUP = CUPS | {"prompt": "a cup", "vqa_list": [["Are there any cups in the image?", "Yes"]], "skills": ["object"]}


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


@pytest.fixture
def metadata(tmp_path: Path) -> str:
    return write(tmp_path / "items.jsonl", CUPS, CUP)


def test_scores_are_genevals2_own(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of stored logits, one probability of 0 and some above 1 among them: each question, each prompt, the summary."""
    folder = reference / "geneval2"
    golden = json.loads((folder / "golden.json").read_text())
    stored = load_file(folder / "logits.safetensors")["logits"]
    rows, last = iter(stored), iter(golden["vqascore_rows"])
    judge = GenEval2Judge(str(folder / "items.jsonl"), vqa_score=True)
    judge.loaded = (None, SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(folder)))
    sent: list[str] = []

    def logits(image: object, texts: list[str], device: object) -> Tensor:
        sent.extend(texts[:-1])
        assert texts[-1].startswith('Does this image show "')
        return torch.stack([*(next(rows) for _ in texts[:-1]), stored[next(last)]])

    monkeypatch.setattr(judge, "logits", logits)
    examples = judge.benchmark()
    verdicts = judge.explain(examples, torch.zeros(len(examples), 3, 8, 8))
    soft = [
        one.scores[f"questions/{i}"] for e, one in zip(examples, verdicts, strict=True) for i in range(len(e.questions))
    ]
    assert sent == [one["sent"] for one in golden["questions"]]
    assert [one.scores["vqa_score"] for one in verdicts] == pytest.approx(golden["vqascore"], abs=1e-6)
    assert soft == pytest.approx([one["probability"] for one in golden["questions"]], abs=1e-6)
    for name in ("am", "gm", "tifa"):
        assert [one.scores[name] for one in verdicts] == pytest.approx(golden[name], abs=1e-6)
    wrong = [sum(1 - one["hard"] for one in golden["questions"] if one["item"] == i) for i in range(len(verdicts))]
    assert [len(one.reason.splitlines()) for one in verdicts] == wrong
    assert [one.correct for one in verdicts] == [count == 0 for count in wrong]
    summary = {name: 100 * value for name, value in judge.summarize(examples, verdicts).items()}
    total = {"am": "soft_tifa_am", "gm": "soft_tifa_gm", "tifa": "tifa", "vqa_score": "vqascore"}
    total |= {"overall": "soft_tifa_gm"}
    expected = {name: golden["total"][theirs] for name, theirs in total.items()}
    expected |= {f"skill_{name}": value for name, value in golden["per_skill"].items()}
    expected |= {f"atoms_{count}": value for count, value in golden["per_atomicity"].items()}
    assert summary == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def by_hand(folder: Path, image: Tensor, question: str) -> Tensor:
    """Probabilities of the first token of an answer, without padding."""
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    text = f"user : <image> {question} Answer in one word. assistant :"
    inputs = AutoProcessor.from_pretrained(folder)(text=text, images=image, do_rescale=True, return_tensors="pt")
    return model(**inputs).logits[0, -1].softmax(-1)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_answers_are_those_of_the_model(batch_size: int, metadata: str, vlm_folder: Path) -> None:
    judge = GenEval2Judge(metadata, str(vlm_folder), batch_size=batch_size)
    levels = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cups, cup = judge.explain(judge.benchmark(), levels / 255)
    known = judge.loaded[1].tokenizer.get_vocab()
    probabilities = by_hand(vlm_folder, levels[0], "Are the cups red?")
    words = probabilities[known["Yes"]] + probabilities[known["yes"]]
    assert cups.scores["questions/1"] == pytest.approx(2 * words.item(), abs=1e-5)  # each with and without a space
    number = by_hand(vlm_folder, levels[0], "How many cups are in the image?")
    unknown = number[known["<unk>"]]  # "Two", " Two", "2" and " 2"
    assert cups.scores["questions/0"] == pytest.approx((2 * number[known["two"]] + 4 * unknown).item(), abs=1e-5)
    scores = [cups.scores["questions/0"], cups.scores["questions/1"]]
    assert cups.scores["am"] == pytest.approx(sum(scores) / 2)
    assert cups.scores["gm"] == pytest.approx(geometric_mean(scores))
    best = judge.loaded[1].tokenizer.decode([probabilities.argmax().item()])
    assert (f"Are the cups red? expected 'Yes', got {best!r}" in cups.reason) == (best not in ("Yes", "yes"))
    assert cup.scores["am"] == cup.scores["gm"]


def test_several_images_of_a_prompt_count_by_their_mean(metadata: str, vlm_folder: Path) -> None:
    judge = GenEval2Judge(metadata, str(vlm_folder))
    cups, cup = judge.benchmark()
    verdicts = judge.explain([cups, cups, cup], torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    summary, am = judge.summarize([cups, cups, cup], verdicts), [one.scores["am"] for one in verdicts]
    assert summary["am"] == pytest.approx(((am[0] + am[1]) / 2 + am[2]) / 2)
    assert summary["skill_object"] == pytest.approx(am[2])
    assert summary["overall"] == summary["gm"] == summary["atoms_3"]


def test_reference_images_are_asked_its_questions(metadata: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    path = write(tmp_path / "images.jsonl", {"prompt": "two red cups", "image": "0.png"})
    judge = GenEval2Judge(metadata, reference_images=path)
    asked = judge.understanding_set(9)
    assert asked is not None
    by_answer = {one.answer: one for one in asked[0]}
    assert by_answer.keys() == {"two", "Yes"}
    assert [judge.accepts_answer(by_answer["two"], text) for text in ("Two.", "2", "three")] == [True, True, False]
    assert [judge.accepts_answer(by_answer["Yes"], text) for text in ("yes, red", "no")] == [True, False]
    assert judge.references(judge.benchmark()) == [str(tmp_path / "0.png"), None]
    plain = GenEval2Judge(metadata)
    assert plain.references(plain.benchmark()) is plain.understanding_set(9) is None


BROKEN = [
    ("{", "not valid JSON"),
    ("[]", "it is no JSON object"),
    ({"prompt": "a"}, "the field 'atom_count' is missing"),
    (CUPS | {"prompt": ""}, "'prompt' is ''"),
    (CUPS, "is also in line 1"),
    (CUP | {"atom_count": "3"}, "'atom_count' is '3'"),
    (CUP | {"vqa_list": []}, "'vqa_list' must be a list of"),
    (CUP | {"vqa_list": [["Is it?"]]}, "'vqa_list' must be a list of"),
    (CUP | {"skills": ["a", "b"]}, "'skills' must be a list of texts, one for each of the 1"),
]


@pytest.mark.parametrize(("second", "message"), BROKEN)
def test_a_broken_line_is_named(second: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", CUPS, second)
    with pytest.raises(UserError, match=message) as error:
        GenEval2Judge(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert "\n" not in str(error.value)


def test_what_it_cannot_judge_is_refused(
    metadata: str, vlm_folder: Path, detector_folder: Path, tmp_path: Path
) -> None:
    judge, pixels = GenEval2Judge(metadata, str(vlm_folder)), torch.zeros(1, 3, 32, 32)
    with pytest.raises(UserError, match=r"'a dog' is not in .*items.jsonl"):
        judge.verdicts([Example("a dog")], pixels)
    with pytest.raises(UserError, match=r"one for each of 2 examples, got \(1, 3, 32, 32\)"):
        judge.verdicts(judge.benchmark(), pixels)
    with pytest.raises(UserError, match=r"geneval2: the model: .* cannot be read"):
        GenEval2Judge(metadata, str(detector_folder)).verdicts(judge.benchmark()[:1], pixels)
    for path, message in ((str(tmp_path / "absent"), "cannot read"), (write(tmp_path / "empty", ""), "is empty")):
        with pytest.raises(UserError, match=message):
            GenEval2Judge(path)
    with pytest.raises(UserError, match="batch_size 0"):
        GenEval2Judge(metadata, batch_size=0)


class TestGenEval2Judge(JudgeConformance):
    image_size = 32

    @pytest.fixture(autouse=True)
    def _models(self, vlm_folder: Path, metadata: str) -> None:
        self.options: Any = metadata, str(vlm_folder)
        type(self).examples = tuple(GenEval2Judge(metadata).benchmark())

    def make(self) -> Judge:
        return GenEval2Judge(*self.options)
