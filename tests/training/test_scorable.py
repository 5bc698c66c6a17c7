"""Prompts that the rewards cannot score, or the judge not judge, are told before the model is loaded."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unirl import EvaluationConfig, Example, Item, PromptsDataModule, Question, UserError, sample, validate
from unirl.cli.main import main
from unirl.judges import Judge
from unirl.prompts import GenEval, JsonLines, Prompts
from unirl.rewards import CLIP, Attribute, CaptionReward, Keyword, Likelihood, Oracle, Questions, Reward
from unirl.testing import TinyBackbone
from unirl.training.evaluation import Evaluator
from unirl.training.rollout import Rollouts
from unirl.training.scorable import find_refused
from unirl.types import Answers, AnswerSampling, Images, ImageSampling
from unirl.updates import GRPO, SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

CONFIG = Path(__file__).parents[2] / "configs" / "showo_sft.yaml"
LINE = {"prompt": "a photo of one red circle", "question": "what?", "answer": "one red circle"}
HELD_OUT = {**LINE, "prompt": "a photo of one green ring"}
RING = {**HELD_OUT, "objects": [{"class": "ring", "color": "green"}]}


def write(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def texts(*args: Any, **options: Any) -> list[str]:
    return [f"{problem.level} {problem.text}; {problem.advice}" for problem in find_refused(*args, **options)]


def test_what_a_reward_needs_of_an_example() -> None:
    blank = Example("a red cup", "", "a red cup"), Example("a red cup", "what ?", " ")
    no_word = Example("a red cup", "what ?", "there is")
    no_prompt = Example(" ", "what ?", "a cup")
    sets = Example("a cup", questions=(Question("a cup ?", "yes"), Question("how ?", "there is")))
    choices = Example("a cup", questions=(Question("how ?", "there is", ("there is", "no")),))
    refused: list[tuple[Reward, tuple[Example, ...], tuple[Example, ...]]] = [
        (Keyword(), (*blank, no_word), (sets, no_prompt)),
        (Attribute(), (*blank, no_word), (sets, no_prompt)),
        (Likelihood(), blank, (no_word, sets, choices)),
        (Questions(), (*blank, no_word, sets), (choices,)),
        (Questions(open_questions="keyword"), (*blank, no_word, sets), (choices,)),
        (CaptionReward(), (no_prompt,), (*blank, no_word)),
        (CLIP(), (no_prompt,), (*blank, no_word)),
        (Oracle(ShapesJudge()), (no_word,), (Example("a ring", objects=(Item("ring"),)),)),
    ]
    wrong = []
    for reward, bad, good in refused:
        for example, is_bad in [*((one, True) for one in bad), *((one, False) for one in good)]:
            try:
                reward.check_example(example)
                found = False
            except UserError:
                found = True
            if found != is_bad:
                wrong.append(f"{reward.name}: {example}")
    assert not wrong, "\n".join(wrong)


def test_the_message_counts_them_and_says_where_the_first_one_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINE, LINE, {**LINE, "answer": "the"}, LINE, {**LINE, "answer": "?"})
    source = JsonLines(path, write(tmp_path / "held.jsonl", HELD_OUT, RING))
    (text,) = texts(source.train_examples(), [Keyword()], None, "{} training prompts", source)
    assert text == (
        f"error the reward 'keyword' cannot score 2 of 5 training prompts; the first is {path}:3, 'a photo of one red "
        "circle': the answer 'the' has no keyword, such as a noun, number, color or relation; correct them, or use "
        "another reward"
    )
    (text,) = texts(source.held_out_examples, [Keyword()], ShapesJudge(), "{} held-out prompts", source)
    assert f"judge ShapesJudge cannot judge 1 of 2 held-out prompts; the first is {tmp_path}/held.jsonl:1" in text
    assert text.endswith(
        "it has no 'objects', by which the shapes judge decides; take other prompts, or --model.judge null"
    )
    (text,) = texts([Example(" ", "what ?", "a cup")], [Keyword()])
    assert text.startswith("error the model cannot generate 1 of 1 prompts; the first is ' ': it has no text")
    assert texts(["a cup"], []) == [
        "error the list has 'a cup' among 1 prompts, expected objects of class Example; correct the source of prompts"
    ]


def test_candidates_are_scored_question_by_question() -> None:
    questions = Question("a cup ?", "yes", ("yes", "no")), Question("how ?", "there is")
    examples = [Example("a cup", questions=questions)]
    assert not texts(examples, [Keyword()])
    (text,) = texts(examples, [Keyword()], has_candidates=True)
    assert "the answer 'there is' has no keyword" in text


class Failing(Reward):
    def check_example(self, example: Example) -> None:
        raise KeyError(example.prompt)

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.ones(len(examples))


def test_a_failing_check_is_told_in_a_line() -> None:
    (text,) = texts([Example("a cup")], [Failing()])
    assert (
        "reward 'failing' cannot score 1 of 1 prompts; the first is 'a cup': check_example failed with KeyError" in text
    )


# --- runs ---


class NotLoaded(TinyBackbone):
    def build(self, meta: bool = False) -> None:
        raise AssertionError("the model was loaded")


class Later(Prompts):
    """The second training prompt cannot be scored."""

    def sample(self, seed: int, index: int) -> Example:
        return Example(f"prompt {index}", "what ?", "there is" if index == 1 else "a cup")

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return []


def test_a_trainer_refuses_them_before_the_model_is_loaded(runs: Any, tmp_path: Path) -> None:
    rules = SFT(weight_by_failure_rate=False), SFT(weight_by_failure_rate=False, answer_labels="posterior")
    geneval = runs.data(GenEval(question_sets=True))
    cases = [
        (runs.module(NotLoaded(), rules[0], [Keyword()]), runs.data(Later()), "1 of the first 100 training prompts"),
        (runs.module(NotLoaded(), rules[0], [Keyword()], judge=ShapesJudge()), geneval, "12 of 12 held-out prompts"),
    ]
    for module, data, message in cases:
        with pytest.raises(UserError, match=message):
            runs.trainer(tmp_path).fit(module, data)
    with pytest.raises(UserError, match="12 of 12 held-out prompts"):
        runs.trainer(tmp_path).validate(cases[1][0], geneval)
    with pytest.raises(AssertionError, match="the model was loaded"):  # held-out prompts are not used
        runs.trainer(tmp_path, limit_val_batches=0).fit(*cases[1][:2])


@pytest.mark.parametrize(
    ("judge", "options", "limit", "message"),
    [
        (
            ShapesJudge(),
            {"num_val_prompts": 0},
            1.0,
            "data.num_val_prompts is 0, so nothing is validated, and the judge",
        ),
        (ShapesJudge(), {}, 0, "trainer.limit_val_batches is 0, so nothing is validated, and the judge ShapesJudge is"),
        (None, {"num_val_prompts": 0}, 1.0, "data.num_val_prompts is 0, so nothing is validated; raise it"),
        (None, {}, 0, None),
        (ShapesJudge(), {}, 1, None),
    ],
)
def test_a_judge_that_is_asked_about_nothing_says_so_once(
    runs: Any, judge: Judge | None, options: dict[str, Any], limit: float, message: str | None, tmp_path: Path
) -> None:
    module = runs.module(NotLoaded(), GRPO(), [Keyword()], judge=judge)
    trainer, data = runs.trainer(tmp_path, limit_val_batches=limit), runs.data(**options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(AssertionError, match="loaded"):
            trainer.fit(module, data)
    told = [str(one.message) for one in caught if "nothing" in str(one.message) or "held-out" in str(one.message)]
    assert len(told) == (message is not None), told
    assert message is None or told[0].startswith(message)


def test_prompts_without_held_out_ones_are_a_warning(tmp_path: Path) -> None:
    data = PromptsDataModule(JsonLines(write(tmp_path / "mine.jsonl", LINE)))
    (problem,) = data.check(None, "fit", None)
    assert (problem.level, problem.text) == ("warning", "JsonLines has no held-out prompts, so nothing is validated")


@pytest.mark.parametrize("command", ["fit", "doctor"])
def test_three_fields_with_a_shipped_config(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [write(tmp_path / "mine.jsonl", LINE), write(tmp_path / "held.jsonl", HELD_OUT)]
    paths = [f"--data.prompts.path={files[0]}", f"--data.prompts.held_out_path={files[1]}"]
    with pytest.raises(SystemExit) as caught:
        main([command, "--config", str(CONFIG), "--data.prompts", "jsonl", *paths])
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert f"cannot judge 1 of 1 held-out prompts; the first is {files[1]}:1, 'a photo of one green ring'" in "".join(
        said
    )
    assert "model: " not in said.err, "the model was loaded"
    assert not (tmp_path / "runs").exists()


# --- without a trainer ---


def test_evaluate_and_sample_refuse_them_before_the_model_is_loaded() -> None:
    no_keyword = Example("a cup", "what ?", "there is")
    with pytest.raises(UserError, match="'keyword' cannot score 1 of 1 held-out prompts"):
        validate(NotLoaded(), [no_keyword], [Keyword()])
    with pytest.raises(UserError, match="ShapesJudge cannot judge 4 of 4 held-out prompts"):
        validate(NotLoaded(), GenEval(), [Keyword()], ShapesJudge(), num_prompts=4)
    several = Example("a cup", questions=(Question("a cup ?", "yes"), Question("how ?", "there is")))
    with pytest.raises(UserError, match=r"prompt 'a cup': questions\[1\]: the answer 'there is' states no fact"):
        sample(NotLoaded(), [several])
    with pytest.raises(UserError, match="lone surrogate U\\+D83D at position 5"):
        sample(NotLoaded(), ["cup \ud83d"])
    with pytest.warns(UserWarning, match="no held-out prompts"), pytest.raises(AssertionError, match="loaded"):
        validate(NotLoaded(), [], [Keyword()])


class OneWord(Judge):
    """Knows one word, and does not say so."""

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.tensor([{"cup": True}[example.answer] for example in examples])


def test_a_judge_that_fails_is_named_in_a_line() -> None:
    backbone = TinyBackbone()
    backbone.build()
    settings = EvaluationConfig(num_diversity_prompts=0), ImageSampling(2), AnswerSampling(2)
    evaluator = Evaluator(Rollouts(backbone, [Keyword()]), OneWord(), *settings)
    evaluator.start(ShapesPrompts().held_out(1))
    with pytest.raises(
        UserError, match=r"judge OneWord \(.*\): explain failed with KeyError: 'diamond' .*check_example"
    ):
        evaluator.step(ShapesPrompts().held_out(1), 0)
