"""The conformance class of rewards."""

import copy
import inspect
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.rewards.base import ROUNDING, Reward, reaches
from unirl.rewards.scoring import score
from unirl.testing.comparison import describe_type, find_modules, is_equal, method_name, seed_global_rngs
from unirl.testing.devices import on_pretend_device
from unirl.testing.samples import (
    EDGE_CASE_TEXTS,
    EXAMPLES,
    make_answer_texts,
    make_answers,
    make_images,
    make_question_sets,
)
from unirl.types import Answers, Example, Images, Item, to_device

ODD_EXAMPLES: tuple[dict[str, Any], ...] = (
    {"answer": "there is"},
    {"answer": "?!"},
    {"answer": ""},
    {"question": ""},
    {"answer": "三つの赤い円", "category": "三"},
    {"objects": ()},
    {"objects": (Item("unicorn", 30, "mauve"),)},
)
"""Fields of examples that some rewards cannot score."""
NEEDS_PIXELS = "set needs_pixels = True on the class"


class RewardConformance(ABC):
    """Checks the contract of a reward. Derive a test class from it and define `make`.

    A failed check names the method, what it returned and what is expected.

    Example:
        >>> from unirl.rewards.keyword import Keyword
        >>> class TestKeyword(RewardConformance):
        ...     def make(self):
        ...         return Keyword()
        >>> TestKeyword().test_score_returns_one_finite_number_per_sample()
    """

    low: ClassVar[float] = 0.0
    """Lowest possible score; -inf if there is none."""
    high: ClassVar[float] = 1.0
    """Highest possible score; inf if there is none."""
    device: ClassVar[str] = "cpu"
    """Device of the samples."""
    tolerance: ClassVar[float] = 1e-4
    """Largest difference of a score between batches, by rounding."""

    @abstractmethod
    def make(self) -> Reward:
        """A new reward, attached to a backbone if it needs one."""

    def make_samples(self, count: int = 12) -> tuple[list[Example], Images, Answers]:
        """Examples, images and answers to score. Override it if the reward needs others.

        With `all_questions`, examples have one or several questions, and answers as many rows for each as the example
        with the most.

        Args:
            count: Number of samples.
        """
        reward, device = self.make(), torch.device(self.device)
        if reward.all_questions:
            examples, answers = make_question_sets(count)
        else:
            examples = [EXAMPLES[i % len(EXAMPLES)] for i in range(count)]
            answers = make_answers(make_answer_texts(examples))
        images = make_images(count, pixels=reward.needs_pixels)
        return examples, to_device(images, device), to_device(answers, device)

    def test_constructor_takes_weight_and_standardize(self) -> None:
        """The constructor takes `weight` and `standardize` and passes them on."""
        reward = self.make()
        assert isinstance(reward, Reward), f"make returned {describe_type(reward)}, expected a unirl.rewards.Reward"
        method = method_name(reward, "__init__")
        for name, value in (("weight", 0.25), ("standardize", True)):
            assert hasattr(reward, name), f"{method} did not set {name!r}; call super().__init__(weight, standardize)"
            parameters = inspect.signature(type(reward).__init__).parameters
            accepted = name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            assert accepted, f"{method} has no parameter {name!r}, so no config can set it; add it"
            actual = getattr(_make_with_options(self.make, **{name: value}), name)
            assert actual == value, f"{method} got {name}={value} and set {actual}; pass it to super().__init__"

    def test_score_returns_one_finite_number_per_sample(self) -> None:
        """Scores are finite floats (B,) on the device of the answers."""
        reward, (examples, _, answers) = self.make(), self.make_samples()
        method, scores = method_name(reward, "score"), self._score(reward)
        expected = f"expected a tensor ({len(examples)},), one number per sample"
        assert isinstance(scores, Tensor), f"{method} returned {describe_type(scores)}, {expected}"
        assert scores.shape == (len(examples),), f"{method} returned shape {tuple(scores.shape)}, {expected}"
        assert scores.is_floating_point(), f"{method} returned {scores.dtype}, expected floats; call .float()"
        device = answers.ids.device
        assert scores.device == device, (
            f"{method} returned a tensor on {scores.device}, expected {device}, as the answers"
        )
        bad = (~torch.isfinite(scores)).nonzero().flatten().tolist()
        assert not bad, (
            f"{method} returned {scores[bad[0]]} for the answer {answers.text[bad[0]]!r}, expected a finite number"
        )

    def test_scores_are_within_the_range(self) -> None:
        """Scores are between `low` and `high`."""
        reward = self.make()
        scores = self._score(reward)
        low, high = scores.min().item(), scores.max().item()
        assert self.low - ROUNDING <= low <= high <= self.high + ROUNDING, (
            f"{method_name(reward, 'score')} returned scores from {low:g} to {high:g}, expected {self.low:g} to "
            f"{self.high:g}; correct the score, or set low and high of the test class"
        )

    def test_scores_do_not_depend_on_the_batch(self) -> None:
        """Each sample has the same score alone, without padding, and in any order."""
        reward, (examples, images, answers) = self.make(), self.make_samples()
        scores, count = self._score(reward), len(examples)
        order = [*range(1, count, 2), *range(0, count, 2)]
        rows, k = torch.tensor(order, device=answers.ids.device), len(answers) // count
        reordered = reward.score([examples[i] for i in order], images[rows], answers[_answer_rows(rows, k)])
        self._assert_close(
            reward, scores[rows], reordered, "when the batch is reordered; score each sample independently"
        )
        for i in range(count):
            own = slice(i * k, i * k + min(k, len(examples[i].questions)))
            alone = reward.score([examples[i]], images[i : i + 1], _without_padding(answers[own]))
            reason = "for a sample alone, without padding, than in a batch; ignore padding and other samples"
            self._assert_close(reward, scores[i : i + 1], alone, reason)

    def test_scores_are_deterministic(self) -> None:
        """Scores use no random numbers and no state."""
        reward, runs = self.make(), []
        for seed, instance in enumerate((reward, reward, self.make())):
            seed_global_rngs(seed)
            runs.append(self._score(instance))
        self._assert_close(reward, runs[0], runs[1], "in a second call; use no randomness and keep no state")
        self._assert_close(reward, runs[0], runs[2], "for a second reward from make; use no randomness")

    def test_score_does_not_modify_its_inputs(self) -> None:
        """Examples, images and answers stay as they are."""
        reward, inputs = self.make(), self.make_samples()
        before = copy.deepcopy(inputs)
        reward.score(*inputs)
        for name, old, new in zip(("examples", "images", "answers"), before, inputs, strict=True):
            assert is_equal(old, new), f"{method_name(reward, 'score')} modified the {name} in place; copy them first"

    def test_score_is_without_gradient(self) -> None:
        """Scores carry no gradient, and models of the reward are frozen."""
        reward = self.make()
        scores, method = self._score(reward), method_name(reward, "score")
        assert not scores.requires_grad, f"{method} returned scores with gradient; decorate it with @torch.no_grad()"
        for module in find_modules(reward, skip=(Backbone,)):
            trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
            assert not trainable, (
                f"{type(reward).__name__} holds a {type(module).__name__} with {len(trainable)} trainable parameters, "
                f"such as {trainable[0]!r}; freeze it: requires_grad_(False)"
            )

    def test_needs_pixels_is_declared(self) -> None:
        """A reward that reads pixels sets `needs_pixels`."""
        reward, (examples, images, answers) = self.make(), self.make_samples()
        if reward.needs_pixels:
            pytest.skip("needs_pixels is True")
        pixels = to_device(make_images(len(examples)).pixels, answers.ids.device)
        try:
            without = reward.score(examples, replace(images, pixels=None), answers)
        except Exception as error:
            raise AssertionError(
                f"{method_name(reward, 'score')} failed where pixels are None; {NEEDS_PIXELS}"
            ) from error
        with_pixels = reward.score(examples, replace(images, pixels=pixels), answers)
        self._assert_close(reward, without, with_pixels, f"for images with pixels; {NEEDS_PIXELS}")

    def test_accepts_is_consistent_with_scores(self) -> None:
        """Accepted samples follow `accept_threshold`, and a higher score is never worse."""
        reward, examples = self.make(), self.make_samples()[0]
        scores, method, threshold = self._score(reward), method_name(reward, "accepts"), reward.accept_threshold
        accepted: object = reward.accepts(examples, scores)
        if accepted is None and threshold is None:
            pytest.skip("accepts returns None")
        expected = f"expected torch.bool {tuple(scores.shape)} on {scores.device}"
        assert isinstance(accepted, Tensor), f"{method} returned {describe_type(accepted)}, {expected}"
        properties = (accepted.dtype, accepted.shape, accepted.device)
        assert properties == (torch.bool, scores.shape, scores.device), (
            f"{method} returned {accepted.dtype} {tuple(accepted.shape)} on {accepted.device}, {expected}"
        )
        if threshold is not None:
            name = f"{type(reward).__name__}.accept_threshold"
            assert threshold <= self.high + ROUNDING, (
                f"{name} is {threshold:g}, but the highest score is {self.high:g}; no sample can be accepted"
            )
            assert is_equal(accepted, reaches(scores, threshold)), (
                f"{method} returned other samples than those of at least accept_threshold = {threshold:g}; "
                "override only one of the two"
            )
        _assert_monotone(reward, examples, scores, self.high)

    def test_edge_case_answers_are_scored(self) -> None:
        """Empty, long and non-ASCII answers get finite scores."""
        reward, (examples, images, _) = self.make(), self.make_samples(len(EDGE_CASE_TEXTS))
        for i, text in enumerate(EDGE_CASE_TEXTS):
            rows = len(examples[i].questions) if reward.all_questions else 1
            answers = to_device(make_answers([text] * rows), torch.device(self.device))
            shown = repr(text) if len(text) < 40 else f"{text[:12]!r}... of {len(text)} characters"
            scores = _score(reward, ([examples[i]], images[i : i + 1], answers), f" for the answer {shown}")
            assert torch.isfinite(scores).all(), (
                f"{method_name(reward, 'score')} returned {scores.tolist()} for the answer {shown}, expected a finite "
                "number"
            )

    def test_what_is_not_refused_is_scored(self) -> None:
        """`check_example` refuses with a `UserError` what cannot be scored, and nothing of `make_samples`."""
        reward, (examples, images, _) = self.make(), self.make_samples()
        method = method_name(reward, "check_example")
        for example in examples:
            try:
                reward.check_example(example)
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{method} failed with {cause}, for the prompt {example.prompt!r}") from error
        answers = to_device(make_answers(["a red circle"]), torch.device(self.device))
        for texts in ODD_EXAMPLES:
            example = replace(examples[0], questions=(), **texts)
            try:
                reward.check_example(example)
            except UserError:
                continue
            circumstance = f" for an example with {texts}, which {method} does not refuse,"
            scores = _score(reward, ([example], images[:1], answers), circumstance)
            assert torch.isfinite(scores).all(), (
                f"{method_name(reward, 'score')} returned {scores.tolist()}{circumstance} expected a finite "
                "number; refuse there what cannot be scored, with a UserError"
            )

    def test_copies_give_equal_scores(self) -> None:
        """Copies by `copy.deepcopy` and pickle give equal scores."""
        reward = self.make()
        scores = self._score(reward)
        copies: dict[str, Callable[[], Reward]] = {
            "copy.deepcopy": lambda: copy.deepcopy(reward),
            "pickle": lambda: pickle.loads(pickle.dumps(reward)),
        }
        for name, make_copy in copies.items():
            try:
                copied = make_copy()
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{type(reward).__name__} cannot be copied by {name}: {cause}") from error
            self._assert_close(reward, scores, self._score(copied), f"after {name}; copy all of its state")

    def test_scores_on_another_device(self) -> None:
        """On another device than the CPU, scores are equal, and on that device."""
        reward, method = self.make(), method_name(self.make(), "score")
        examples, images, answers = self.make_samples()
        expected = _score(reward, (examples, images, answers)).cpu()
        with on_pretend_device(reward) as accelerator:
            inputs = examples, to_device(images, accelerator.device), to_device(answers, accelerator.device)
            scores = _score(reward, inputs, " on another device than the CPU")
            assert scores.device == accelerator.device, (
                f"{method} returned a tensor on {scores.device} for answers on another device; return it there"
            )
            self._assert_close(reward, expected, scores.cpu(), "on another device than the CPU")

    def test_training_accepts_the_scores(self) -> None:
        """The training loop accepts the scores and keeps their values."""
        reward = self.make()
        try:
            _, parts, _ = score([reward], *self.make_samples())
        except UserError as error:
            raise AssertionError(f"training would stop at {method_name(reward, 'score')}: {error}") from error
        self._assert_close(reward, self._score(reward), parts[reward.name], "in training; return float32")

    def _score(self, reward: Reward) -> Tensor:
        return _score(reward, self.make_samples())

    def _assert_close(self, reward: Reward, expected: Tensor, scores: object, reason: str) -> None:
        """Assert that two calls gave the same scores up to rounding; `reason` ends the message."""
        method = method_name(reward, "score")
        assert isinstance(scores, Tensor), f"{method} returned {describe_type(scores)} {reason}"
        shape = tuple(scores.shape)
        assert expected.shape == shape, f"{method} returned shape {shape} instead of {tuple(expected.shape)} {reason}"
        # Negated, so that NaN counts as a difference.
        different = (~((expected - scores).abs() <= self.tolerance)).nonzero().flatten().tolist()
        assert not different, (
            f"{method} returned {scores[different[0]].item():g} instead of {expected[different[0]].item():g} {reason}"
        )


def _make_with_options(make: Callable[[], Reward], **options: Any) -> Reward:
    """The reward that `make` returns, with other constructor options: its constructor call is repeated."""
    kind, calls = type(make()), []
    constructor = kind.__init__

    def record(self: Reward, *args: Any, **kwargs: Any) -> None:
        calls.append((args, kwargs))
        constructor(self, *args, **kwargs)

    with mock.patch.object(kind, "__init__", record):
        make()
    args, kwargs = calls[0]
    return kind(*args, **kwargs | options)


def _score(reward: Reward, inputs: tuple[list[Example], Images, Answers], circumstance: str = "") -> Tensor:
    """Scores; an exception becomes an AssertionError that names the method and the circumstance."""
    try:
        return reward.score(*inputs)
    except Exception as error:
        hint = "" if reward.needs_pixels else f"; if it reads pixels, {NEEDS_PIXELS}"
        method, cause = method_name(reward, "score"), f"{type(error).__name__}: {error}"
        raise AssertionError(f"{method} failed{circumstance} with {cause}{hint}") from error


def _assert_monotone(reward: Reward, examples: list[Example], scores: Tensor, high: float) -> None:
    """Assert that a sample that is accepted with a score is accepted with every higher score."""
    method, highest = method_name(reward, "accepts"), min(high, scores.max().item() + 1.0)
    previous = torch.zeros(len(examples), dtype=torch.bool, device=scores.device)
    for level in torch.linspace(scores.min().item(), highest, 9, dtype=torch.float32).tolist():
        accepted = reward.accepts(examples, torch.full_like(scores, level))
        assert accepted is not None, f"{method} returned None for scores of {level:g}, but a tensor for others"
        assert (accepted >= previous).all(), (
            f"{method} rejects a sample with score {level:g} that it accepts with a lower one; higher scores are better"
        )
        previous = accepted


def _answer_rows(images: Tensor, k: int) -> Tensor:
    return (images[:, None] * k + torch.arange(k, device=images.device)).flatten()


def _without_padding(answers: Answers) -> Answers:
    """The same answers without padding that none of them needs."""
    length = int(answers.mask.sum(1).max())
    log_probs = None if answers.log_probs is None else answers.log_probs[:, :length]
    return Answers(answers.ids[:, :length], answers.mask[:, :length], answers.text, log_probs)
