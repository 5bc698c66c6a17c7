"""What every update rule promises: derive a test class, say how to make one, and run pytest."""

import copy
import io
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Number
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from unirl.errors import UserError
from unirl.testing.bandit import KINDS, Bandit, bandit_rollout, rewarded
from unirl.testing.checks import held_modules, same, stir, who
from unirl.types import ImageSampling, Rollout
from unirl.updates.base import UpdateRule

Gradients = dict[str, Tensor]


def seeded(seed: int = 1) -> torch.Generator:
    """A generator in a known state."""
    return torch.Generator().manual_seed(seed)


class Learning:
    """A rule attached to a bandit, with a rollout to learn from.

    Args:
        rule: Fresh.
        group_size: Drawings of each prompt.
        sampling: How to draw.
        backbone: The policy; a fresh bandit by default.
    """

    def __init__(
        self, rule: UpdateRule, group_size: int, sampling: ImageSampling, backbone: Bandit | None = None
    ) -> None:
        self.rule, self.sampling, self.backbone = rule, sampling, backbone or Bandit()
        self.rollout = bandit_rollout(self.backbone, group_size, sampling, seed=0)
        rule.attach(self.backbone)

    def loss(self, rollout: Rollout | None = None, seed: int = 1) -> tuple[Tensor, Mapping[str, object]]:
        """The rule's loss and logs, refused where they could not be trained with."""
        given: Any = self.rule.loss(self.backbone, rollout or self.rollout, self.sampling, seeded(seed))
        where = who(self.rule, "loss")
        pair = isinstance(given, tuple) and len(given) == 2
        assert pair, f"{where} returned a {type(given).__name__}, expected the loss and a dict of what to log"
        loss, logs = given
        assert isinstance(loss, Tensor), f"{where} returned a {type(loss).__name__} for a loss, expected a tensor"
        assert loss.shape == (), f"{where} returned a loss of shape {tuple(loss.shape)}, expected a scalar"
        assert torch.isfinite(loss), f"{where} returned a loss of {loss.item()}, expected a finite number"
        assert loss.requires_grad, f"{where} returned a loss without gradient: nothing would be learnt"
        _check_logs(where, logs)
        return loss, logs

    def gradients(self, rollout: Rollout | None = None, seed: int = 1) -> tuple[Tensor, Gradients]:
        """The loss and the gradient of every trainable parameter, finite."""
        self.backbone.zero_grad()
        loss, _ = self.loss(rollout, seed)
        loss.backward()
        trained = {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}
        missing = [name for name, p in trained.items() if p.grad is None]
        assert not missing, (
            f"{who(self.rule, 'loss')}: no gradient reaches the trainable parameter {missing[0]!r}, and training on "
            "several devices stops there: add unirl.functional.reductions.zero_loss(backbone)"
        )
        slopes = {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}
        bad = [name for name, slope in slopes.items() if not torch.isfinite(slope).all()]
        assert not bad, f"{who(self.rule, 'loss')}: the gradient of {bad} is not finite"
        return loss.detach(), slopes

    def steps(self, count: int, lr: float, fresh: bool) -> list[float]:
        """Train, and return the loss of each step.

        Args:
            count: How many steps.
            lr: Of Adam.
            fresh: Whether each step learns from a rollout of its own, or all from the first, as later updates do.
        """
        optimizer = torch.optim.Adam([p for p in self.backbone.parameters() if p.requires_grad], lr)
        size, updates = self.rollout.group_size, 1 if fresh else 2
        rollout, losses = self.prepared(self.rollout, updates), []
        for step in range(count):
            if fresh:
                rollout = self.prepared(bandit_rollout(self.backbone, size, self.sampling, seed=step), updates)
            loss, _ = self.loss(rollout, seed=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def prepared(self, rollout: Rollout, updates: int) -> Rollout:
        """The rollout as the rule prepares it for so many updates."""
        generators = [seeded(i + 1) for i in range(updates)]
        given: object = self.rule.prepare(self.backbone, rollout, self.sampling, generators)
        where = who(self.rule, "prepare")
        assert isinstance(given, Rollout), f"{where} returned a {type(given).__name__}, expected a Rollout"
        return given

    def kept(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the models that the rule holds, other than those in training."""
        own = {id(parameter) for parameter in self.backbone.parameters()}
        for module in held_modules(self.rule):
            yield from ((name, p) for name, p in module.named_parameters() if id(p) not in own)


def cases(rollout: Rollout) -> dict[str, Rollout]:
    """What may happen to a rollout in training, by what it is."""
    ones, none = torch.ones_like(rollout.scores), torch.zeros_like(rollout.accepted)
    return {
        "mixed scores": rollout,
        "mixed scores, nothing accepted": replace(rollout, accepted=none),
        "equal scores, nothing accepted": replace(rollout, scores=0.3 * ones, accepted=none),
        "equal scores, everything accepted": replace(rollout, scores=ones, accepted=~none),
        "every sample of weight 0": replace(rollout, weights=0 * ones),
    }


def dropped(rollout: Rollout) -> tuple[Rollout, Rollout]:
    """Two rollouts that differ only in what was drawn, said and earned in samples of weight 0."""
    weights = torch.ones_like(rollout.scores)
    weights[:: rollout.group_size] = 0
    out = weights == 0
    codes, ids = rollout.images.codes.clone(), rollout.answers.ids.clone()
    codes[out] = (codes[out] + 1) % KINDS
    ids[out, 0] = (ids[out, 0] + 1) % KINDS
    images = replace(rollout.images, codes=codes, actions=codes)
    answers = replace(rollout.answers, ids=ids, text=[str(row[0]) for row in ids.tolist()])
    scores = torch.where(out, 1 - rollout.scores, rollout.scores)
    first = replace(rollout, weights=weights)
    return first, replace(first, images=images, answers=answers, scores=scores)


def assert_checkpointed(rollout: Rollout, where: str) -> None:
    """Assert that a stopped run could keep the rollout that it learns from."""
    file = io.BytesIO()
    try:
        torch.save(copy.deepcopy(rollout), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise AssertionError(f"{where} adds to the rollout what no checkpoint can hold: {error}") from error


def _check_logs(where: str, logs: object) -> None:
    assert isinstance(logs, Mapping), f"{where} returned logs as a {type(logs).__name__}, expected a dict"
    for name, value in logs.items():
        assert isinstance(name, str), f"{where} logs under {name!r}; names are strings"
        if isinstance(value, Tensor):
            assert value.numel() == 1, f"{where} logs {name!r} with shape {tuple(value.shape)}, expected a scalar"
            assert not value.requires_grad, f"{where} logs {name!r} with gradient, which keeps activations: detach it"
        else:
            assert isinstance(value, Number), f"{where} logs {name!r} as a {type(value).__name__}, expected a scalar"
        assert torch.isfinite(torch.as_tensor(value)), f"{where} logs {name!r} as {value}; it must be finite"


class UpdateConformance(ABC):
    """Checks that an update rule keeps the contract; a message says in a sentence what is wrong, and in which method.

    The model is a `Bandit`: a table of logits for each prompt.

    Example:
        >>> from unirl.updates.grpo import GRPO
        >>> class TestGRPO(UpdateConformance):
        ...     def make(self):
        ...         return GRPO()
        >>> TestGRPO().test_it_lowers_its_own_loss()
    """

    group_size: ClassVar[int] = 4
    """Drawings of each prompt."""
    sampling: ClassVar[ImageSampling] = ImageSampling(steps=4)
    """How to draw."""
    through: ClassVar[bool] = False
    """Whether gradient flows through drawings, straight: then the loss falls over fresh ones, not on the same ones."""
    lr: ClassVar[float] = 0.05
    """Of Adam."""
    steps: ClassVar[int] = 150
    """Training steps on the bandit."""
    rise: ClassVar[float | None] = 0.15
    """By how much they raise the share of rewarded drawings, a third at first; None where drawing is not taught."""

    @abstractmethod
    def make(self) -> UpdateRule:
        """A fresh rule."""

    def test_its_loss_is_a_number_to_learn_from(self) -> None:
        rule = self.make()
        assert isinstance(rule, UpdateRule), f"make gave a {type(rule).__name__}, which is no unirl.updates.UpdateRule"
        _, slopes = self._learning().gradients()
        moved = any(slope.abs().max() > 0 for slope in slopes.values())
        assert moved, f"{who(rule, 'loss')}: every gradient is 0 though scores differ: nothing would be learnt"

    def test_gradient_reaches_nothing_but_the_model_in_training(self) -> None:
        learning = self._learning()
        learning.gradients()
        where = who(learning.rule, "loss")
        frozen = [
            name for name, p in learning.backbone.named_parameters() if not p.requires_grad and p.grad is not None
        ]
        assert not frozen, f"{where}: a gradient reaches {frozen[0]!r}, which is frozen"
        held = [name for name, p in learning.kept() if p.grad is not None]
        assert not held, f"{where}: a gradient reaches {held[:1]} of a model that attach kept: use torch.no_grad()"

    def test_it_lowers_its_own_loss(self) -> None:
        learning = self._learning()
        losses = learning.steps(self.steps if self.through else 30, self.lr, fresh=self.through)
        first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
        assert last < first, (
            f"{who(learning.rule, 'loss')} does not fall when it is minimised: from {first:.4g} to {last:.4g} in "
            f"{len(losses)} steps; its value and its gradient disagree"
        )

    def test_it_raises_the_share_of_rewarded_drawings(self) -> None:
        if self.rise is None:
            pytest.skip("it teaches no drawing")
        learning = self._learning()
        before = rewarded(learning.backbone, self.sampling)
        learning.steps(self.steps, self.lr, fresh=True)
        after = rewarded(learning.backbone, self.sampling)
        assert after >= before + self.rise, (
            f"{who(learning.rule, 'loss')} does not teach what is rewarded: the share of rewarded drawings went "
            f"from {before:.2f} to {after:.2f} in {self.steps} steps, expected {before + self.rise:.2f}; a wrong sign?"
        )

    def test_chance_comes_from_its_generator_alone(self) -> None:
        runs = []
        for seed in (0, 1):
            learning = self._learning()
            stir(seed)
            before = torch.get_rng_state(), random.getstate()
            rollout = learning.prepared(learning.rollout, 2)
            runs.append((rollout, learning.gradients(rollout)))
            after = torch.get_rng_state(), random.getstate()
            method = who(learning.rule, "loss")
            assert same(before, after), f"{method} or prepare draws from a global generator: use the one it is given"
        assert same(runs[0][0], runs[1][0]), f"{who(learning.rule, 'prepare')} is not decided by its generators"
        assert same(runs[0][1], runs[1][1]), f"{who(learning.rule, 'loss')} is not decided by its generator"

    def test_samples_of_weight_0_teach_nothing(self) -> None:
        learning = self._learning()
        runs = [learning.gradients(learning.prepared(rollout, 1)) for rollout in dropped(learning.rollout)]
        alike = all(torch.allclose(runs[0][1][name], slope, atol=1e-6) for name, slope in runs[1][1].items())
        told = "multiply what each sample adds by rollout.kept, and leave those of weight 0 out of their group"
        assert alike, f"{who(learning.rule, 'loss')} learns from samples of weight 0: {told}"

    @pytest.mark.parametrize("updates", [1, 2])
    def test_it_learns_whatever_a_rollout_holds(self, updates: int) -> None:
        for what, rollout in cases(self._learning().rollout).items():
            learning = self._learning()
            prepared = learning.prepared(rollout, updates)
            for update in range(updates):
                try:
                    learning.gradients(replace(prepared, update=update), seed=update + 1)
                except Exception as error:
                    raise AssertionError(f"{_said(learning.rule, error)} (the rollout has: {what})") from error

    def test_it_logs_the_same_names_whatever_a_rollout_holds(self) -> None:
        learning = self._learning()
        names = {what: list(learning.loss(rollout)[1]) for what, rollout in cases(learning.rollout).items()}
        first = names["mixed scores"]
        for what, others in names.items():
            told = f"logs {others} where the rollout has {what}, and {first} otherwise"
            where = who(learning.rule, "loss")
            assert others == first, f"{where} {told}; processes that log different names wait for each other forever"

    def test_a_rollout_can_be_learnt_from_twice(self) -> None:
        learning = self._learning()
        before, where = copy.deepcopy(learning.rollout), who(learning.rule, "prepare")
        prepared = learning.prepared(learning.rollout, 2)
        plain = replace(prepared, old_log_probs=before.old_log_probs)
        assert same(plain, before), f"{where} changes what was drawn or earned; it may only add old_log_probs"
        given = len(prepared.old_log_probs)
        assert given in (0, 2), f"{where} gave old_log_probs for {given} updates, expected 2: one for each generator"
        assert_checkpointed(prepared, where)
        optimizer = torch.optim.SGD(learning.backbone.parameters(), self.lr)
        for update in range(2):
            learning.gradients(replace(prepared, update=update), seed=update + 1)
            optimizer.step()

    def test_it_leaves_rollout_and_weights_as_they_were(self) -> None:
        learning = self._learning()
        rollout, weights = copy.deepcopy((learning.rollout, learning.backbone.state_dict()))
        learning.gradients()
        where = who(learning.rule, "loss")
        assert same(rollout, learning.rollout), f"{where} changes the rollout in place; the next update learns from it"
        assert same(weights, learning.backbone.state_dict()), f"{where} changes the model's weights; optimizers do that"

    def test_attach_leaves_the_model_as_it_was(self) -> None:
        rule, backbone = self.make(), Bandit()
        before = _state(backbone)
        rule.attach(backbone)
        assert same(before, _state(backbone)), f"{who(rule, 'attach')} changes the model that it looks at"

    def test_what_attach_keeps_stays_as_it_was(self) -> None:
        learning = self._learning()
        where = who(learning.rule, "attach")
        itself = any(module is learning.backbone for module in held_modules(learning.rule))
        assert not itself, f"{where} keeps the model itself, which training changes: keep a copy, as updates.reference"
        before = {name: p.detach().clone() for name, p in learning.kept()}
        if not before:
            pytest.skip("attach keeps no model")
        learning.steps(10, self.lr, fresh=True)
        after = dict(learning.kept())
        moved = [name for name, old in before.items() if not torch.equal(old, after[name])]
        assert not moved, f"{where} keeps a model whose {moved[:1]} changed in training; a reference must stay"

    def test_check_refuses_what_it_cannot_train(self) -> None:
        self.make().check(Bandit(), self.group_size, self.sampling)
        rigid = Bandit(relaxes=False)
        settings = {"group_size 1": (1, Bandit()), "a backbone that cannot relax": (self.group_size, rigid)}
        for what, (size, backbone) in settings.items():
            rule = self.make()
            try:
                rule.check(backbone, size, self.sampling)
            except UserError:
                continue
            try:
                Learning(rule, size, self.sampling, backbone).gradients()
            except Exception as error:
                told = f"{who(rule, 'check')} allows {what}, but training fails: {_said(rule, error)}"
                raise AssertionError(f"{told}; raise a UserError in check") from error

    def _learning(self) -> Learning:
        return Learning(self.make(), self.group_size, self.sampling)


def _said(rule: UpdateRule, error: Exception) -> str:
    text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return text if text.startswith(type(rule).__name__) else f"{who(rule, 'loss')} fails with {text}"


def _state(backbone: Bandit) -> dict[str, Any]:
    weights: dict[str, Any] = {name: value.clone() for name, value in backbone.state_dict().items()}
    flags = {f"{name} is trained": p.requires_grad for name, p in backbone.named_parameters()}
    return {**weights, **flags, "training": backbone.training}
