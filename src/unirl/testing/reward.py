"""What every reward promises: derive a test class, say how to make one, and run pytest."""

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
from unirl.testing.checks import held_modules, same, stir, who
from unirl.testing.samples import EXAMPLES, ODD_TEXTS, sample_answers, sample_images, sample_texts
from unirl.types import Answers, Example, Images, to_device


def made_with(make: Callable[[], Reward], **options: Any) -> Reward:
    """The reward that `make` gives, with other constructor options.

    Args:
        make: Calls the constructor with whatever it needs; that call is repeated.
        options: What to change.
    """
    kind, calls = type(make()), []
    original = kind.__init__

    def recorded(self: Reward, *args: Any, **kwargs: Any) -> None:
        calls.append((args, kwargs))
        original(self, *args, **kwargs)

    with mock.patch.object(kind, "__init__", recorded):
        make()
    args, kwargs = calls[0]
    return kind(*args, **kwargs | options)


def scored(reward: Reward, given: tuple[list[Example], Images, Answers], when: str = "") -> Tensor:
    """What a reward gives; where it raises, an `AssertionError` that says so.

    Args:
        reward: Who scores.
        given: Examples, pictures and answers.
        when: What is special about them.
    """
    try:
        return reward.score(*given)
    except Exception as error:
        hint = "" if reward.needs_pixels else "; if it reads pixels, set needs_pixels = True on the class"
        raise AssertionError(f"{who(reward, 'score')} fails{when}: {type(error).__name__}: {error}{hint}") from error


def agree(reward: Reward, first: Tensor, second: object, complaint: str, tolerance: float) -> None:
    """Assert that a reward scored twice alike.

    Args:
        reward: Whose scores they are.
        first: One time.
        second: The other time.
        complaint: What is wrong if they differ.
        tolerance: How far they may.
    """
    assert isinstance(second, Tensor), f"{who(reward, 'score')} {complaint}: it returned {told(second)}"
    assert first.shape == second.shape, (
        f"{who(reward, 'score')} {complaint}: shape {tuple(second.shape)}, expected {tuple(first.shape)}"
    )
    # Comparing this way round, NaN is no agreement.
    apart = (~((first - second).abs() <= tolerance)).nonzero().flatten().tolist()
    assert not apart, (
        f"{who(reward, 'score')} {complaint}: {first[apart[0]].item():g} became {second[apart[0]].item():g}"
    )


def assert_monotone(reward: Reward, examples: list[Example], values: Tensor, high: float) -> None:
    """Assert that whoever is accepted with a score is accepted with a higher one.

    Args:
        reward: Whose verdicts they are.
        examples: What was asked for.
        values: What it scored.
        high: The greatest score.

    Shapes:
        values (B,).
    """
    top = min(high, values.max().item() + 1.0)
    seen = torch.zeros(len(examples), dtype=torch.bool, device=values.device)
    for level in torch.linspace(values.min().item(), top, 9).tolist():
        verdict = reward.accepts(examples, torch.full_like(values, level))
        assert verdict is not None, (
            f"{who(reward, 'accepts')} returned None for scores of {level:g}, verdicts for others"
        )
        assert (verdict >= seen).all(), (
            f"{who(reward, 'accepts')} refuses a score of {level:g} where it accepts a lower one"
        )
        seen = verdict


def unpadded(answers: Answers) -> Answers:
    """The same answers without padding that none of them needs."""
    length = int(answers.mask.sum(1).max())
    log_probs = None if answers.log_probs is None else answers.log_probs[:, :length]
    return Answers(answers.ids[:, :length], answers.mask[:, :length], answers.text, log_probs)


def told(value: object) -> str:
    """What a value is, for a message: "None", "a list"."""
    return "None" if value is None else f"a {type(value).__name__}"


class RewardConformance(ABC):
    """Checks that a reward keeps the contract; a message says in a sentence what is wrong, and in which method.

    Example:
        >>> from unirl.rewards.keyword import Keyword
        >>> class TestKeyword(RewardConformance):
        ...     def make(self):
        ...         return Keyword()
        >>> TestKeyword().test_scores_are_a_finite_number_a_sample()
    """

    low: ClassVar[float] = 0.0
    """Least score; -inf where there is none."""
    high: ClassVar[float] = 1.0
    """Greatest score; inf where there is none."""
    device: ClassVar[str] = "cpu"
    """Where the samples lie."""
    tolerance: ClassVar[float] = 1e-4
    """How far a score may differ with the batch, by rounding."""

    @abstractmethod
    def make(self) -> Reward:
        """A fresh reward, attached to a backbone if it needs one."""

    def samples(self, count: int = 12) -> tuple[list[Example], Images, Answers]:
        """Examples, pictures and answers to score. Override it where the reward needs others.

        Args:
            count: How many samples.
        """
        examples = [EXAMPLES[i % len(EXAMPLES)] for i in range(count)]
        images, there = sample_images(count, pixels=self.make().needs_pixels), torch.device(self.device)
        return examples, to_device(images, there), to_device(sample_answers(sample_texts(examples)), there)

    def test_weight_and_standardize_are_options_that_it_keeps(self) -> None:
        reward = self.make()
        assert isinstance(reward, Reward), f"make gave {told(reward)}, which is no unirl.rewards.Reward"
        init = who(reward, "__init__")
        for name, value in (("weight", 0.25), ("standardize", True)):
            has = hasattr(reward, name)
            assert has, f"{init} sets no {name!r}: it must call super().__init__(weight, standardize)"
            parameters = inspect.signature(type(reward).__init__).parameters
            taken = name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            assert taken, f"{init} takes no {name!r}, so no config can set it"
            kept = getattr(made_with(self.make, **{name: value}), name)
            assert kept == value, f"{init} got {name}={value} and keeps {kept}: hand it to super().__init__"

    def test_scores_are_a_finite_number_a_sample(self) -> None:
        reward, (examples, _, answers) = self.make(), self.samples()
        where, values = who(reward, "score"), self._scores(reward)
        expected = f"a tensor ({len(examples)},): one number for each of {len(examples)} samples"
        assert isinstance(values, Tensor), f"{where} returned {told(values)}, expected {expected}"
        assert values.shape == (len(examples),), f"{where} returned shape {tuple(values.shape)}, expected {expected}"
        assert values.is_floating_point(), f"{where} returned {values.dtype}, expected floats: call .float()"
        there = answers.ids.device
        assert values.device == there, f"{where} returned a tensor on {values.device}, but the answers are on {there}"
        bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
        assert not bad, f"{where} returned {values[bad[0]]} for the answer {answers.text[bad[0]]!r}; it must be finite"

    def test_scores_lie_in_the_range(self) -> None:
        reward = self.make()
        values = self._scores(reward)
        least, most = values.min().item(), values.max().item()
        assert self.low - ROUNDING <= least <= most <= self.high + ROUNDING, (
            f"{who(reward, 'score')} gave scores from {least:g} to {most:g}, but the range is {self.low:g} to "
            f"{self.high:g}: mend it, or set low and high of the test class"
        )

    def test_a_score_does_not_depend_on_the_rest_of_the_batch(self) -> None:
        reward, (examples, images, answers) = self.make(), self.samples()
        whole, count = self._scores(reward), len(examples)
        order = [*range(1, count, 2), *range(0, count, 2)]
        rows = torch.tensor(order, device=answers.ids.device)
        turned = reward.score([examples[i] for i in order], images[rows], answers[rows])
        self._agree(reward, whole[rows], turned, "depends on the order of the batch")
        for i in range(count):
            alone = reward.score([examples[i]], images[i : i + 1], unpadded(answers[i : i + 1]))
            self._agree(reward, whole[i : i + 1], alone, "depends on the rest of the batch or on padding")

    def test_it_is_deterministic(self) -> None:
        reward, runs = self.make(), []
        for seed, one in enumerate((reward, reward, self.make())):
            stir(seed)
            runs.append(self._scores(one))
        self._agree(reward, runs[0], runs[1], "gives other scores in a second call: it draws or remembers something")
        self._agree(reward, runs[0], runs[2], "gives other scores when the reward is made anew")

    def test_it_leaves_what_it_scores_as_it_was(self) -> None:
        reward, given = self.make(), self.samples()
        before = copy.deepcopy(given)
        reward.score(*given)
        for name, old, new in zip(("examples", "images", "answers"), before, given, strict=True):
            assert same(old, new), f"{who(reward, 'score')} changes the {name} in place, which others read afterwards"

    def test_it_keeps_no_gradient(self) -> None:
        reward = self.make()
        values, where = self._scores(reward), who(reward, "score")
        assert not values.requires_grad, f"{where} returned scores with gradient: decorate it with @torch.no_grad()"
        for module in held_modules(reward, skip=(Backbone,)):
            free = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
            assert not free, (
                f"{type(reward).__name__} holds a {type(module).__name__} with {len(free)} trainable parameters, such "
                f"as {free[0]!r}; nothing trains them: call requires_grad_(False)"
            )

    def test_it_declares_whether_it_needs_pixels(self) -> None:
        reward, (examples, images, answers) = self.make(), self.samples()
        if reward.needs_pixels:
            pytest.skip("needs_pixels is declared")
        seen = to_device(sample_images(len(examples)).pixels, answers.ids.device)
        told_how = "set needs_pixels = True on the class"
        try:
            blind = reward.score(examples, replace(images, pixels=None), answers)
        except Exception as error:
            raise AssertionError(f"{who(reward, 'score')} fails where pixels are None: {told_how}") from error
        sighted = reward.score(examples, replace(images, pixels=seen), answers)
        self._agree(reward, blind, sighted, f"looks at pixels that it does not ask for: {told_how}")

    def test_verdicts_follow_the_scores(self) -> None:
        reward, examples = self.make(), self.samples()[0]
        values, where = self._scores(reward), who(reward, "accepts")
        verdict: object = reward.accepts(examples, values)
        if verdict is None and reward.accept_threshold is None:
            pytest.skip("it gives no verdicts")
        expected = f"expected torch.bool {tuple(values.shape)} on {values.device}"
        assert isinstance(verdict, Tensor), f"{where} returned {told(verdict)}, {expected}"
        kind = (verdict.dtype, verdict.shape, verdict.device)
        assert kind == (torch.bool, values.shape, values.device), (
            f"{where} returned {verdict.dtype} {tuple(verdict.shape)} on {verdict.device}, {expected}"
        )
        if (accept_threshold := reward.accept_threshold) is not None:
            reachable = f"accept is {accept_threshold:g} where scores end at {self.high:g}: {type(reward).__name__} accepts nothing"
            assert accept_threshold <= self.high + ROUNDING, reachable
            assert same(verdict, reaches(values, accept_threshold)), (
                f"{where} contradicts accept = {accept_threshold:g} of its own class"
            )
        assert_monotone(reward, examples, values, self.high)

    def test_it_survives_odd_answers(self) -> None:
        reward, (examples, images, _) = self.make(), self.samples(len(ODD_TEXTS))
        for i, text in enumerate(ODD_TEXTS):
            answers = to_device(sample_answers([text]), torch.device(self.device))
            shown = repr(text) if len(text) < 40 else f"{text[:12]!r}..., {len(text)} characters long"
            values = scored(reward, ([examples[i]], images[i : i + 1], answers), f" on the answer {shown}")
            fine = torch.isfinite(values).all()
            assert fine, f"{who(reward, 'score')} gave {values.tolist()} for the answer {shown}; it must be finite"

    def test_copies_score_alike(self) -> None:
        reward = self.make()
        values = self._scores(reward)
        for way in ("copy.deepcopy", "pickle"):
            try:
                twin = copy.deepcopy(reward) if way == "copy.deepcopy" else pickle.loads(pickle.dumps(reward))
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{type(reward).__name__} does not survive {way}: {cause}") from error
            self._agree(reward, values, self._scores(twin), f"gives other scores after {way}")

    def test_training_takes_its_scores(self) -> None:
        reward = self.make()
        try:
            _, parts, _ = score([reward], *self.samples())
        except UserError as error:
            raise AssertionError(f"a run would stop at {who(reward, 'score')}: {error}") from error
        self._agree(reward, self._scores(reward), parts[reward.name], "gives other scores in a run")

    def _scores(self, reward: Reward) -> Tensor:
        return scored(reward, self.samples())

    def _agree(self, reward: Reward, first: Tensor, second: object, complaint: str) -> None:
        agree(reward, first, second, complaint, self.tolerance)
