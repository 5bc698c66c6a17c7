import re
from collections.abc import Callable, Sequence
from importlib.metadata import version

import pytest
import torch
from torch import Tensor

from unirl import UserError
from unirl.rewards import CLIP, Attribute, Keyword, Likelihood, Oracle, Reward, score
from unirl.rewards.scoring import accepted_samples, distribution_of, normalized_rewards
from unirl.types import Answers, Example, Images

EXAMPLES = [Example(f"a photo of {n} cups", "how many?", f"{n} cups", "counting") for n in ("two", "three", "four")]
IDS = torch.zeros(3, 1, dtype=torch.long)
IMAGES, ANSWERS = Images(IDS), Answers(IDS, IDS.bool(), ["two cups", "two cups", "a dog"])


class Constant(Reward):
    """Returns fixed values."""

    def __init__(self, values: object, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.values = values

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return self.values  # type: ignore[return-value] - what a plugin might do


Constant.__module__ = "nowhere.at_all"  # no installed distribution has it


class Other(Constant):
    pass


def scored(*rewards: Reward) -> tuple[Tensor, dict[str, Tensor]]:
    return score(rewards, EXAMPLES, IMAGES, ANSWERS)[:2]


def error_of(values: object) -> str:
    with pytest.raises(UserError) as caught:
        scored(Keyword(), Constant(values))
    text = str(caught.value)
    assert "\n" not in text
    assert "reward 'constant' (" in text
    return text


def test_a_wrong_shape_is_refused() -> None:
    for shape in ((), (1,), (2,), (4,), (3, 1), (0,)):  # the first two could be broadcast
        assert f"returned shape {shape}, expected (3,)" in error_of(torch.ones(shape))


def test_other_types_are_refused() -> None:
    for values, name in ((None, "NoneType"), (1.0, "float"), ([1.0, 0.0, 1.0], "list")):
        assert f"returned {name}, expected a tensor of 3 numbers" in error_of(values)


def test_numbers_that_are_not_finite_are_refused_with_their_sample() -> None:
    for bad in (float("nan"), float("inf"), float("-inf")):
        text = error_of(torch.tensor([0.0, bad, bad]))
        assert f"returned {bad} for 2 of 3 samples" in text
        assert "'a photo of three cups'" in text
        assert "'two cups'" in text


def test_numbers_beyond_float32_are_refused() -> None:
    assert "returned 1e+300 for 2 of 3 samples" in error_of(torch.tensor([0.0, 1e300, 1e300], dtype=torch.float64))
    with pytest.raises(UserError, match="weighted sum is not"):
        scored(Constant(torch.full((3,), 1e38), weight=1e3))


def test_errors_name_the_distribution() -> None:
    assert distribution_of(torch.zeros(1)) == f"torch {version('torch')}"
    assert distribution_of(Constant(None)) == "module nowhere.at_all"
    assert "(module nowhere.at_all)" in error_of(None)


def test_steps_do_not_search_the_installed_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a fifth of a second, and a package's distribution does not change."""
    scored(Constant(torch.ones(3)))
    monkeypatch.setattr("unirl.rewards.scoring.packages_distributions", lambda: pytest.fail("searched again"))
    scored(Constant(torch.ones(3)))


def test_weighted_sum_and_parts() -> None:
    total, parts = scored(Keyword(weight=2.0), Constant(torch.tensor([1.0, 2.0, 3.0]), weight=-0.5))
    assert list(parts) == ["keyword", "constant"]
    assert parts["keyword"].tolist() == [1, 0.5, 0]
    assert parts["constant"].tolist() == [1, 2, 3]  # unweighted
    assert total.tolist() == [1.5, 0, -1.5]


def test_rewards_of_the_same_name_are_all_counted() -> None:
    total, parts = scored(Constant(torch.ones(3)), Constant(torch.ones(3) * 2), Other(torch.ones(3) * 4))
    assert total.tolist() == [7, 7, 7]
    assert len(parts) == 3
    assert sorted(part[0].item() for part in parts.values()) == [1, 2, 4]


def test_scores_have_no_gradient_and_are_float32() -> None:
    total, _ = scored(
        Constant(torch.ones(3, requires_grad=True)), Other(torch.tensor([1, 0, 2])), Other(IDS[:, 0].bool())
    )
    assert not total.requires_grad
    assert total.dtype == torch.float32
    assert total.tolist() == [2, 1, 3]


def test_a_tensor_on_another_device_is_refused() -> None:
    assert "returned a tensor on meta, expected cpu" in error_of(torch.ones(3, device="meta"))


class Incomplete(Reward):
    """Fails on the answer "a dog"."""

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.tensor([{"two cups": 1.0}[text] for text in answers.text])


def test_a_reward_that_raises_is_reported_with_the_first_sample_it_fails_on() -> None:
    with pytest.raises(UserError) as caught:
        scored(Keyword(), Incomplete())
    text = str(caught.value)
    assert "reward 'incomplete' (" in text
    assert "failed with KeyError: 'a dog'" in text
    assert "test_scoring.py:" in text
    assert "prompt 'a photo of four cups', answer 'a dog'" in text
    assert isinstance(caught.value.__cause__, KeyError)


class Raising(Reward):
    """Raises in `score` or in `accepts`."""

    def __init__(self, score_error: BaseException | None, accepts_error: BaseException | None = None) -> None:
        super().__init__()
        self.score_error, self.accepts_error = score_error, accepts_error

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        if self.score_error is not None:
            raise self.score_error
        return torch.ones(len(examples))

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        if self.accepts_error is not None:
            raise self.accepts_error
        return None


@pytest.mark.parametrize(
    ("error", "message"),
    [(UserError("the server is down"), ": the server is down; "), (SystemExit(0), "failed with SystemExit: 0 (")],
)
def test_every_error_names_the_reward(error: BaseException, message: str) -> None:
    with pytest.raises(UserError) as caught:
        scored(Raising(error))
    text = str(caught.value)
    assert text.startswith("reward 'raising' (")
    assert message in text
    assert f"prompt {EXAMPLES[0].prompt!r}" in text
    with pytest.raises(UserError, match=r"reward 'raising' \(.*in accepts; the first sample: prompt 'a photo"):
        scored(Raising(None, error))


class UndeclaredPixels(Reward):
    """Reads pixels in one of several ways, without `needs_pixels`."""

    def __init__(self, read: Callable[[Images], object]) -> None:
        super().__init__()
        self.read = read

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        self.read(images)
        return torch.zeros(len(examples))


def test_a_reward_that_reads_pixels_without_needs_pixels_is_told_what_to_set() -> None:
    def assert_pixels(images: Images) -> None:
        assert images.pixels is not None

    ways: dict[str, Callable[[Images], object]] = {
        "attribute": lambda images: images.pixels.mean(),  # type: ignore[union-attr]
        "argument": lambda images: torch.sigmoid(images.pixels),  # type: ignore[arg-type]
        "operator": lambda images: images.pixels * 2,  # type: ignore[operator]
        "item": lambda images: images.pixels[0],  # type: ignore[index]
        "assertion": assert_pixels,
        "row": lambda images: images[0:1].pixels.mean(),  # type: ignore[union-attr]
    }
    for name, read in ways.items():
        with pytest.raises(UserError) as caught:
            scored(UndeclaredPixels(read))
        assert "sets needs_pixels = True" in str(caught.value), name
    # Another failure, or pixels that are there, is none of this.
    for read, images in ((lambda images: images.codes.nothing, IMAGES), (ways["row"], Images(IDS, torch.zeros(3, 3)))):
        reward = UndeclaredPixels(lambda images, read=read: [read(images), 1 / 0])
        with pytest.raises(UserError) as caught:
            score([reward], EXAMPLES, images, ANSWERS)
        assert "needs_pixels" not in str(caught.value)


def test_anything_but_a_list_of_rewards_is_refused() -> None:
    for given, message in (
        (Keyword(), "got a Keyword; put it in a list"),
        (Keyword, "got the class Keyword; make an object: Keyword(...)"),
        ([Keyword], "got the class Keyword"),
        (["keyword"], "got 'keyword'; unirl.load"),
        (None, "got None"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            score(given, EXAMPLES, IMAGES, ANSWERS)  # type: ignore[arg-type]


def test_rewards_are_standardized_where_asked() -> None:
    parts = {"wide": torch.tensor([0.0, 10.0, 5.0, 5.0]), "narrow": torch.tensor([0.1, 0.0, 0.0, 0.1])}
    rewards = [Keyword(weight=1.0), Keyword(weight=2.0)]
    assert normalized_rewards(rewards, parts, 2) is None
    rewards[0].standardize = True
    values = normalized_rewards(rewards, parts, 2)
    half = 0.5**0.5  # distance of two samples from their mean in standard deviations
    assert values is not None
    torch.testing.assert_close(values, torch.tensor([-half + 0.2, half, 0.0, 0.2]), atol=1e-3, rtol=0)
    weighted = normalized_rewards(rewards, parts, 2, torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert weighted is not None
    assert weighted[0].item() == pytest.approx(0.2)


class WithThreshold(Constant):
    """Accepts from a score on."""

    accept_threshold = 0.8


class Accepting(Constant):
    """Returns a fixed value from `accepts`."""

    def __init__(self, returned: object) -> None:
        super().__init__(torch.zeros(3))
        self.returned = returned

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        return self.returned  # type: ignore[return-value] - what a plugin might do


def accepted(*rewards: Reward, accept_threshold: float | None = None) -> list[bool]:
    return score(rewards, EXAMPLES, IMAGES, ANSWERS, accept_threshold)[2].tolist()


def constant(*values: float, weight: float = 1.0, kind: type[Constant] = Constant) -> Constant:
    return kind(torch.tensor(values), weight)


def test_all_rewards_that_tell_must_accept() -> None:
    assert accepted(Keyword()) == [True, False, False]
    assert accepted(Keyword(weight=0.1)) == [True, False, False]
    assert accepted(Keyword(), constant(0.1, 5.0, 9.0)) == [True, False, False]  # does not tell
    assert accepted(constant(0.79, 0.8, 0.9, kind=WithThreshold)) == [False, True, True]
    assert accepted(Keyword(), constant(0.7, 0.9, 0.9, kind=WithThreshold)) == [False, False, False]
    assert accepted(Keyword(), constant(0.7, 0.9, 0.9, kind=WithThreshold, weight=0.0)) == [
        True,
        False,
        False,
    ]  # only logged
    assert accepted(Keyword(), constant(0.7, 0.9, 0.9, kind=WithThreshold, weight=-1.0)) == [True, False, False]


def test_where_no_reward_tells_a_score_of_1_is_accepted() -> None:
    assert accepted(constant(1.0, 0.999, 1.5)) == [True, False, True]
    assert accepted(constant(1.0, 0.999, 1.5, weight=0.2)) == [True, False, True]
    assert accepted(constant(1.0, 1.0, 0.0), Other(torch.tensor([1.0, 0.0, 1.0]))) == [True, False, False]
    assert accepted(constant(1.0, 1.0, 0.0), constant(2.0, 0.0, 3.0, weight=-0.5)) == [True, True, False]
    assert accepted(constant(1.0, 2.0, 3.0, weight=-1.0)) == [False] * 3


def test_a_threshold_of_the_sum_decides_instead() -> None:
    both = Keyword(), constant(0.0, 1.0, 0.2)
    assert accepted(*both, accept_threshold=1.1) == [False, True, False]
    assert accepted(*both, accept_threshold=1.5) == [False, True, False]  # the sum is 1.5 up to rounding
    assert accepted(*both, accept_threshold=-1.0) == [True] * 3


def test_thresholds_of_the_shipped_rewards() -> None:
    thresholds = [
        (Keyword(), 1.0),
        (Keyword(ordered=True), 1.0),
        (Attribute(), 1.0),
        (Oracle(None), 1.0),  # type: ignore[arg-type]
        (Likelihood(), 0.5),
        (Likelihood(accept_threshold=0.9), 0.9),
        (CLIP(accept_threshold=0.7), 0.7),
    ]
    for reward, threshold in thresholds:
        accepted = reward.accepts(EXAMPLES, torch.tensor([threshold, threshold - 0.01, threshold + 0.1]))
        assert accepted is not None, reward.name
        assert accepted.tolist() == [True, False, True], reward.name


def test_rewards_without_threshold_do_not_tell() -> None:
    assert CLIP().accepts(EXAMPLES, torch.ones(3)) is None
    assert Likelihood(accept_threshold=None).accepts(EXAMPLES, torch.ones(3)) is None


def test_counts_are_accepted_where_all_keywords_are_found() -> None:
    examples = [Example("p", "q", answer, "c") for answer in ("a red cup left of a dog", "cup", "two cups")]
    reward = Keyword(normalize=False)
    counts = torch.tensor([3.0, 1.0, 2.0])
    assert accepted_samples([reward], examples, {"keyword": counts}).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("returned", "description"),
    [
        (torch.ones(3), "torch.float32, expected torch.bool"),
        (torch.ones(2, dtype=torch.bool), r"shape \(2,\), expected \(3,\)"),
        (True, "bool, expected a tensor of 3 booleans"),
    ],
)
def test_other_results_of_accepts_are_refused(returned: object, description: str) -> None:
    with pytest.raises(UserError, match=rf"reward 'accepting' \(.*\): accepts returned {description}"):
        accepted(Keyword(), Accepting(returned))
