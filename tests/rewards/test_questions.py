"""The questions reward against sums by hand: choices, open questions, requirements, both means; the caption reward."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unirl import Answers, Example, Images, Item, Question, UserError, sample
from unirl.cli.sample_examples import report
from unirl.rewards import CaptionReward, Questions, score
from unirl.testing import TinyBackbone, make_answers, make_images

YES, NO = ("yes", "no"), ("no", "yes")


class Believer(TinyBackbone):
    """Gives each answer a fixed probability for each image, and records how many answers are scored at once."""

    def __init__(self, probabilities: dict[str, Sequence[float]]) -> None:
        super().__init__()
        self.build()
        self.probabilities = probabilities
        self.calls: list[tuple[int, int]] = []

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        self.calls.append((len(images), len(questions)))
        k, values = len(questions) // len(images), []
        for row, (question, text) in enumerate(zip(questions, answers.text, strict=True)):
            values.append(self.probabilities[f"{question} {text}"][int(images.codes[row // k, 0])])
        lengths = answers.mask.sum(1, keepdim=True)  # all tokens of an answer alike
        return torch.tensor(values)[:, None].log() / lengths * answers.mask


def images_of(kinds: Sequence[int]) -> Images:
    return replace(make_images(len(kinds)), codes=torch.tensor(kinds)[:, None].expand(-1, 4))


def scores(questions: Sequence[Question], probabilities: dict[str, Sequence[float]], **options: Any) -> list[float]:
    """Scores of images of the kinds 0, 1, ..., whose answers all are "two red cups"."""
    reward, count = Questions(**options), len(next(iter(probabilities.values()), [0]))
    reward.attach(Believer(probabilities))
    examples = [Example("a photo of a cup", objects=(Item("cup"),), questions=tuple(questions))] * count
    answers = make_answers(["two red cups"] * count * len(questions))
    return [round(value, 4) for value in reward.score(examples, images_of(range(count)), answers).tolist()]


def test_the_probability_of_the_right_choice_among_the_choices() -> None:
    found = scores([Question("cup", "yes", YES)], {"cup yes": [0.3, 0.01, 0.2], "cup no": [0.1, 0.03, 0.2]})
    assert found == [0.75, 0.25, 0.5]
    assert scores([Question("cup", "no", NO)], {"cup yes": [0.3], "cup no": [0.1]}) == [0.25]


def test_open_questions_are_read_from_their_own_answers() -> None:
    asked = [Question("how many", "two cups"), Question("how many", "three cups"), Question("what color", "red")]
    assert scores(asked, {}) == [round(2 / 3, 4)]
    example = [Example("a cup", "how red", "very")]
    with pytest.raises(UserError, match=r"reward 'questions' .*the answer 'very' states no fact"):
        score([Questions()], example, make_images(1), make_answers(["very"]))
    keyword = Questions(open_questions="keyword")
    assert keyword.score(example, make_images(1), make_answers(["very"])).tolist() == [1]


def test_a_question_counts_0_where_what_it_requires_fails() -> None:
    cup = Question("cup", "yes", YES)
    color = Question("color", "red", ("red", "blue"), requires=(0,))
    shade = Question("shade", "dark", ("dark", "light"), requires=(1,))
    values = {
        "cup yes": [0.9, 0.4, 0.9], "cup no": [0.1, 0.6, 0.1],
        "color red": [0.8, 0.8, 0.3], "color blue": [0.2, 0.2, 0.7],
        "shade dark": [0.7] * 3, "shade light": [0.3] * 3,
    }  # fmt: skip
    expected = [(0.9 + 0.8 + 0.7) / 3, 0.4 / 3, (0.9 + 0.3) / 3]
    assert scores([cup, color, shade], values) == [round(value, 4) for value in expected]
    # The same in another order, in which a question comes before what it requires.
    shade, color = replace(shade, requires=(1,)), replace(color, requires=(2,))
    assert scores([shade, color, cup], values) == [round(value, 4) for value in expected]


def test_an_open_requirement_holds_where_its_answer_is_right() -> None:
    count, wrong = Question("how many", "two cups"), Question("how many", "three cups")
    color = Question("what color", "red", requires=(0,))
    assert scores([count, color], {}) == [1.0]
    assert scores([wrong, color], {}) == [0.0]


def test_the_geometric_mean_is_low_where_one_answer_is_wrong() -> None:
    questions = [Question("cup", "yes", YES), Question("dog", "yes", YES)]
    values = {"cup yes": [0.9, 0.9], "cup no": [0.1, 0.1], "dog yes": [0.4, 0.0], "dog no": [0.6, 1.0]}
    assert scores(questions, values, aggregate="geometric") == [round(math.sqrt(0.36), 4), 0.0]


def test_images_have_their_own_numbers_of_questions() -> None:
    cup, dog = Question("cup", "yes", YES), Question("dog", "no", NO)
    examples = [
        Example("1", questions=(cup,)),
        Example("2", questions=(cup, dog, Question("how many", "two cups"))),
        Example("3", "how many", "three cups"),
    ]
    backbone = Believer({"cup yes": [0.3] * 3, "cup no": [0.1] * 3, "dog yes": [0.1] * 3, "dog no": [0.4] * 3})
    backbone.probabilities["how many three cups"] = [1.0] * 3
    for options, last in (({}, 0.0), ({"aggregate": "geometric"}, 0.0)):
        reward = Questions(**options)
        reward.attach(backbone)
        # Rows that are ignored have answers, too: they do not count.
        found = reward.score(examples, images_of([0, 1, 2]), make_answers(["two cups"] * 9)).tolist()
        middle = (0.75 + 0.8 + 1) / 3 if not options else (0.75 * 0.8) ** (1 / 3)
        assert found == pytest.approx([0.75, middle, last])


def test_no_more_choices_are_scored_at_once_than_there_are_images() -> None:
    backbone, reward = Believer({"cup yes": [0.3] * 10, "cup no": [0.1] * 10}), Questions()
    reward.attach(backbone)
    cup = Question("cup", "yes", YES)
    examples = [Example("a cup", questions=(cup, cup))] * 10
    found = reward.score(examples, images_of(range(10)), make_answers(["yes"] * 20))
    assert found.tolist() == pytest.approx([0.75] * 10)
    assert backbone.calls == [(2, 8)] * 5


def test_the_verdict_is_that_of_the_threshold() -> None:
    assert Questions().accepts([], torch.tensor([0.79, 0.8])).tolist() == [False, True]  # type: ignore[union-attr]
    assert Questions(accept_threshold=None).accepts([], torch.ones(1)) is None
    with pytest.raises(UserError, match="questions: aggregate is 'median'; it must be one of mean, geometric"):
        Questions(aggregate="median")  # type: ignore[arg-type]


def test_a_caption_is_the_probability_of_the_words_of_the_prompt() -> None:
    reward = CaptionReward(question="what")
    reward.attach(Believer({"what a cup": [0.0081, 0.5], "what a dog": [0.5, 0.0016]}))
    found = reward.score([Example("a cup"), Example("a dog")], images_of([0, 1]), make_answers(["", ""]))
    tokens = len("a cup") + 1
    assert found.tolist() == pytest.approx([0.0081 ** (1 / tokens), 0.0016 ** (1 / tokens)])
    assert CaptionReward().accepts([], found) is None
    with pytest.raises(UserError, match="caption: question is ' '"):
        CaptionReward(question=" ")


def test_best_of_n_decides_by_all_questions() -> None:
    backbone = Believer({"cup yes": [0.9, 0.6], "cup no": [0.1, 0.4], "dog yes": [0.9, 0.1], "dog no": [0.1, 0.9]})
    backbone.probabilities["what cup"] = [0.5**4, 0.2**4]
    kinds = iter([[1, 0], [0, 1]])
    backbone.sample_images = lambda *_: images_of(next(kinds))  # type: ignore[method-assign]
    both = Question("cup", "yes", YES), Question("dog", "yes", YES)
    examples = [Example("cup and dog", questions=both), Example("a cup", "what", "cup")]
    samples = sample(backbone, examples, best_of=2)
    scores = samples.all_scores
    assert scores is not None
    torch.testing.assert_close(scores, torch.tensor([[0.35, 0.5], [0.9, 0.2]]))
    assert samples.images.codes[:, 0].tolist() == [0, 0]
    assert samples.answers is not None
    assert len(samples.answers) == 2
    first, second = report(examples, scores)
    assert first == "'cup and dog': score of 2 questions 0.90, the best of 0.35, 0.90"
    assert second == "'a cup': probability of 'cup' 0.50, the best of 0.50, 0.20"
