from collections.abc import Sequence
from importlib.metadata import version

import pytest
import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.rewards import Reward
from unirl.rewards.attribute.reward import Attribute
from unirl.rewards.clip import CLIP
from unirl.rewards.keyword import Keyword
from unirl.rewards.likelihood import Likelihood
from unirl.rewards.oracle import Oracle
from unirl.rewards.scoring import distribution_of, normalized_rewards, score, verdicts
from unirl.types import Answers, Example, Images

EXAMPLES = [Example(f"a photo of {n} cups", "how many?", f"{n} cups", "counting") for n in ("two", "three", "four")]
IDS = torch.zeros(3, 1, dtype=torch.long)
IMAGES, ANSWERS = Images(IDS), Answers(IDS, IDS.bool(), ["two cups", "two cups", "a dog"])


class Given(Reward):
    """Returns what it was given."""

    def __init__(self, values: object, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.values = values

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return self.values  # type: ignore[return-value] - what a plugin might do


Given.__module__ = "nowhere.at_all"  # no installed distribution has it


class Other(Given):
    pass


def scored(*rewards: Reward) -> tuple[Tensor, dict[str, Tensor]]:
    return score(rewards, EXAMPLES, IMAGES, ANSWERS)[:2]


def complaint(values: object) -> str:
    with pytest.raises(UserError) as caught:
        scored(Keyword(), Given(values))
    text = str(caught.value)
    assert "\n" not in text
    assert "reward 'given' (" in text
    return text


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (torch.tensor(1.0), "()"),  # these two would be broadcast
        (torch.ones(1), "(1,)"),
        (torch.ones(2), "(2,)"),
        (torch.ones(4), "(4,)"),
        (torch.ones(3, 1), "(3, 1)"),
        (torch.ones(0), "(0,)"),
    ],
)
def test_a_wrong_count_is_refused(values: Tensor, shape: str) -> None:
    assert f"returned shape {shape}, expected (3,)" in complaint(values)


@pytest.mark.parametrize(("values", "kind"), [(None, "NoneType"), (1.0, "float"), ([1.0, 0.0, 1.0], "list")])
def test_what_is_no_tensor_is_refused(values: object, kind: str) -> None:
    assert f"returned {kind}, expected a tensor of 3 numbers" in complaint(values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_with_its_sample(bad: float) -> None:
    text = complaint(torch.tensor([0.0, bad, bad]))
    assert f"returned {bad} for 2 of 3 samples" in text
    assert "'a photo of three cups'" in text
    assert "'two cups'" in text


def test_what_32_bits_cannot_hold_is_refused() -> None:
    assert "returned 1e+300 for 2 of 3 samples" in complaint(torch.tensor([0.0, 1e300, 1e300], dtype=torch.float64))
    with pytest.raises(UserError, match="weighted sum is not"):
        scored(Given(torch.full((3,), 1e38), weight=1e3))


def test_errors_name_the_distribution() -> None:
    assert distribution_of(torch.zeros(1)) == f"torch {version('torch')}"
    assert distribution_of(Given(None)) == "module nowhere.at_all"
    assert "(module nowhere.at_all)" in complaint(None)


def test_weighted_sum_and_parts() -> None:
    total, parts = scored(Keyword(weight=2.0), Given(torch.tensor([1.0, 2.0, 3.0]), weight=-0.5))
    assert list(parts) == ["keyword", "given"]
    assert parts["keyword"].tolist() == [1, 0.5, 0]
    assert parts["given"].tolist() == [1, 2, 3]  # unweighted
    assert total.tolist() == [1.5, 0, -1.5]


def test_two_rewards_of_one_name_are_both_counted() -> None:
    total, parts = scored(Given(torch.ones(3)), Given(torch.ones(3) * 2), Other(torch.ones(3) * 4))
    assert total.tolist() == [7, 7, 7]
    assert len(parts) == 3
    assert sorted(part[0].item() for part in parts.values()) == [1, 2, 4]


def test_scores_carry_no_gradient_and_are_float() -> None:
    total, _ = scored(Given(torch.ones(3, requires_grad=True)), Other(torch.tensor([1, 0, 2])), Other(IDS[:, 0].bool()))
    assert not total.requires_grad
    assert total.dtype == torch.float32
    assert total.tolist() == [2, 1, 3]


def test_a_tensor_on_another_device_is_refused() -> None:
    assert "returned a tensor on meta, expected cpu" in complaint(torch.ones(3, device="meta"))


class Picky(Reward):
    """Fails on a dog, as plugins do."""

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.tensor([{"two cups": 1.0}[text] for text in answers.text])


def test_a_reward_that_raises_is_named_with_the_first_sample_it_fails_on() -> None:
    with pytest.raises(UserError) as caught:
        scored(Keyword(), Picky())
    text = str(caught.value)
    assert "reward 'picky' (" in text
    assert "failed with KeyError: 'a dog'" in text
    assert "test_scoring.py:" in text
    assert "prompt 'a photo of four cups', answer 'a dog'" in text
    assert isinstance(caught.value.__cause__, KeyError)


class Raising(Reward):
    """Fails in scoring or in its verdict, by an error of its own choice."""

    def __init__(self, scoring: BaseException | None, verdict: BaseException | None = None) -> None:
        super().__init__()
        self.scoring, self.verdict = scoring, verdict

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        if self.scoring is not None:
            raise self.scoring
        return torch.ones(len(examples))

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        if self.verdict is not None:
            raise self.verdict
        return None


@pytest.mark.parametrize(
    ("raised", "says"),
    [(UserError("the server is down"), ": the server is down; "), (SystemExit(0), "failed with SystemExit: 0 (")],
)
def test_no_error_of_a_reward_hides_whose_it_is(raised: BaseException, says: str) -> None:
    with pytest.raises(UserError) as caught:
        scored(Raising(raised))
    text = str(caught.value)
    assert text.startswith("reward 'raising' (")
    assert says in text
    assert f"prompt {EXAMPLES[0].prompt!r}" in text
    with pytest.raises(UserError, match=r"reward 'raising' \(.*in accepts; the first sample: prompt 'a photo"):
        scored(Raising(None, raised))


def test_rewards_are_compared_in_standard_deviations_where_asked() -> None:
    parts = {"wide": torch.tensor([0.0, 10.0, 5.0, 5.0]), "narrow": torch.tensor([0.1, 0.0, 0.0, 0.1])}
    rewards = [Keyword(weight=1.0), Keyword(weight=2.0)]
    assert normalized_rewards(rewards, parts, 2) is None
    rewards[0].standardize = True
    got = normalized_rewards(rewards, parts, 2)
    half = 0.5**0.5  # of two samples, each is this far from their mean in standard deviations
    assert got is not None
    torch.testing.assert_close(got, torch.tensor([-half + 0.2, half, 0.0, 0.2]), atol=1e-3, rtol=0)
    alone = normalized_rewards(rewards, parts, 2, torch.tensor([1.0, 0.0, 1.0, 1.0]))  # who does not count sets no scale
    assert alone is not None
    assert alone[0].item() == pytest.approx(0.2)


class Sure(Given):
    """Says from what score on a drawing is right."""

    accept_threshold = 0.8


class Says(Given):
    """Gives what it was given as its verdict."""

    def __init__(self, verdict: object) -> None:
        super().__init__(torch.zeros(3))
        self.verdict = verdict

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        return self.verdict  # type: ignore[return-value] - what a plugin might do


def accepted(*rewards: Reward, accept_threshold: float | None = None) -> list[bool]:
    return score(rewards, EXAMPLES, IMAGES, ANSWERS, accept_threshold)[2].tolist()


def given(*values: float, weight: float = 1.0, kind: type[Given] = Given) -> Given:
    return kind(torch.tensor(values), weight)


def test_all_must_accept_that_can_tell_whatever_their_weights() -> None:
    assert accepted(Keyword()) == [True, False, False]
    assert accepted(Keyword(weight=0.1)) == [True, False, False]
    assert accepted(Keyword(), given(0.1, 5.0, 9.0)) == [True, False, False]  # more or less, not right or wrong
    assert accepted(given(0.79, 0.8, 0.9, kind=Sure)) == [False, True, True]
    assert accepted(Keyword(), given(0.7, 0.9, 0.9, kind=Sure)) == [False, False, False]
    assert accepted(Keyword(), given(0.7, 0.9, 0.9, kind=Sure, weight=0.0)) == [True, False, False]  # only looked at
    assert accepted(Keyword(), given(0.7, 0.9, 0.9, kind=Sure, weight=-1.0)) == [True, False, False]


def test_where_nobody_can_tell_full_marks_are_right() -> None:
    assert accepted(given(1.0, 0.999, 1.5)) == [True, False, True]
    assert accepted(given(1.0, 0.999, 1.5, weight=0.2)) == [True, False, True]
    assert accepted(given(1.0, 1.0, 0.0), Other(torch.tensor([1.0, 0.0, 1.0]))) == [True, False, False]
    assert accepted(given(1.0, 1.0, 0.0), given(2.0, 0.0, 3.0, weight=-0.5)) == [True, True, False]
    assert accepted(given(1.0, 2.0, 3.0, weight=-1.0)) == [False] * 3


def test_a_least_sum_decides_instead() -> None:
    both = Keyword(), given(0.0, 1.0, 0.2)
    assert accepted(*both, accept_threshold=1.1) == [False, True, False]
    assert accepted(*both, accept_threshold=1.5) == [False, True, False]  # the sum is 1.5, but for rounding
    assert accepted(*both, accept_threshold=-1.0) == [True] * 3


@pytest.mark.parametrize(
    ("reward", "least"),
    [
        (Keyword(), 1.0),
        (Keyword(ordered=True), 1.0),
        (Attribute(), 1.0),
        (Oracle(None), 1.0),  # type: ignore[arg-type]
        (Likelihood(), 0.5),
        (Likelihood(accept_threshold=0.9), 0.9),
        (CLIP(accept_threshold=0.7), 0.7),
    ],
)
def test_what_the_shipped_ones_accept(reward: Reward, least: float) -> None:
    verdict = reward.accepts(EXAMPLES, torch.tensor([least, least - 0.01, least + 0.1]))
    assert verdict is not None
    assert verdict.tolist() == [True, False, True]


def test_some_give_no_verdict() -> None:
    assert CLIP().accepts(EXAMPLES, torch.ones(3)) is None
    assert Likelihood(accept_threshold=None).accepts(EXAMPLES, torch.ones(3)) is None


def test_a_plain_count_is_accepted_where_every_keyword_was_found() -> None:
    examples = [Example("p", "q", answer, "c") for answer in ("a red cup left of a dog", "cup", "two cups")]
    reward = Keyword(normalize=False)
    counts = torch.tensor([3.0, 1.0, 2.0])
    assert verdicts([reward], examples, {"keyword": counts}).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("verdict", "got"),
    [
        (torch.ones(3), r"torch.float32 \(3,\) on cpu"),
        (torch.ones(2, dtype=torch.bool), r"torch.bool \(2,\) on cpu"),
        (True, "bool"),
    ],
)
def test_what_is_no_verdict_is_refused(verdict: object, got: str) -> None:
    with pytest.raises(UserError, match=rf"reward 'says' \(.*\): accepts gave {got}, expected torch.bool \(3,\)"):
        accepted(Keyword(), Says(verdict))
