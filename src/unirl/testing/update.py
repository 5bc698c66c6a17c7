"""The conformance class of update rules."""

import copy
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from numbers import Number
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from unirl.errors import UserError
from unirl.testing.bandit import CODEBOOK_SIZE, BanditBackbone, expected_reward, make_bandit_rollout
from unirl.testing.comparison import (
    describe_type,
    find_modules,
    global_rng_state,
    is_equal,
    method_name,
    seed_global_rngs,
)
from unirl.testing.devices import ADVICE, on_pretend_device
from unirl.types import ImageSampling, Rollout, to_device
from unirl.updates.base import UpdateRule, Workload

Gradients = dict[str, Tensor]


class UpdateConformance(ABC):
    """Checks the contract of an update rule. Derive a test class from it and define `make`.

    The model is a `BanditBackbone`. A failed check names the method, what it returned and what is expected.

    Example:
        >>> from unirl.updates.grpo import GRPO
        >>> class TestGRPO(UpdateConformance):
        ...     def make(self):
        ...         return GRPO()
        >>> TestGRPO().test_loss_decreases()
    """

    group_size: ClassVar[int] = 4
    """Samples of each prompt."""
    sampling: ClassVar[ImageSampling] = ImageSampling(steps=4)
    """How images are sampled."""
    end_to_end: ClassVar[bool] = False
    """Whether gradient passes through straight-through codes. Then the loss decreases over new rollouts, not on one."""
    learning_rate: ClassVar[float] = 0.05
    """Learning rate of Adam."""
    num_steps: ClassVar[int] = 150
    """Training steps on the bandit."""
    min_improvement: ClassVar[float | None] = 0.15
    """Increase of the expected reward in `num_steps`, from about 1/3. None if the rule does not train generation."""

    @abstractmethod
    def make(self) -> UpdateRule:
        """A new update rule."""

    def test_loss_is_a_finite_scalar_with_gradient(self) -> None:
        """The loss is a finite scalar whose gradient is not 0 everywhere."""
        rule = self.make()
        assert isinstance(rule, UpdateRule), f"make returned {describe_type(rule)}, expected a unirl.updates.UpdateRule"
        _, gradients = self._trainer().gradients()
        trains = any(gradient.abs().max() > 0 for gradient in gradients.values())
        assert trains, f"{method_name(rule, 'loss')} has a gradient of 0 though scores differ; nothing would be trained"

    def test_gradient_reaches_only_trainable_parameters(self) -> None:
        """Frozen parameters and reference models get no gradient."""
        trainer = self._trainer()
        trainer.gradients()
        method, parameters = method_name(trainer.rule, "loss"), trainer.backbone.named_parameters()
        frozen = [name for name, p in parameters if not p.requires_grad and p.grad is not None]
        assert not frozen, f"{method} passes gradient to the frozen parameter {frozen[0]!r}; detach it"
        reference = [name for name, p in trainer.reference_parameters() if p.grad is not None]
        assert not reference, (
            f"{method} passes gradient to {reference[0]!r} of a model that attach stored; use torch.no_grad()"
        )

    def test_loss_decreases(self) -> None:
        """Gradient descent decreases the loss."""
        trainer = self._trainer()
        num_steps = self.num_steps if self.end_to_end else 30
        losses = trainer.train(num_steps, self.learning_rate, new_rollouts=self.end_to_end)
        first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
        assert last < first, (
            f"{method_name(trainer.rule, 'loss')} went from {first:.4g} to {last:.4g} in {len(losses)} steps, expected "
            "a decrease; its value and its gradient disagree"
        )

    def test_reward_increases(self) -> None:
        """Training increases the expected reward of the bandit."""
        if self.min_improvement is None:
            pytest.skip("min_improvement is None")
        trainer = self._trainer()
        before = expected_reward(trainer.backbone, self.sampling)
        trainer.train(self.num_steps, self.learning_rate, new_rollouts=True)
        after = expected_reward(trainer.backbone, self.sampling)
        assert after >= before + self.min_improvement, (
            f"{method_name(trainer.rule, 'loss')} took the expected reward from {before:.2f} to {after:.2f} in "
            f"{self.num_steps} steps, expected at least {before + self.min_improvement:.2f}; check the sign of the loss"
        )

    def test_randomness_comes_from_the_generator(self) -> None:
        """The generators determine `prepare` and `loss`."""
        prepared, results = [], []
        for seed in (0, 1):
            trainer = self._trainer()
            seed_global_rngs(seed)
            before = global_rng_state()
            rollout = trainer.prepare(trainer.rollout, 2)
            prepared.append(rollout)
            results.append(trainer.gradients(rollout))
            method = method_name(trainer.rule, "loss")
            unused = is_equal(before, global_rng_state())
            assert unused, f"{method} or prepare uses global random numbers; use the generators that they are given"
        name = type(self.make()).__name__
        assert is_equal(*prepared), f"{name}.prepare returned other values with equal generators; use only those"
        assert is_equal(*results), f"{name}.loss returned other values with an equal generator; use only that one"

    def test_samples_of_weight_0_have_no_effect(self) -> None:
        """Samples of weight 0 change no gradient."""
        trainer = self._trainer()
        rollouts = _rollouts_with_ignored_samples(trainer.rollout)
        (_, first), (_, second) = (trainer.gradients(trainer.prepare(rollout, 1)) for rollout in rollouts)
        equal = all(torch.allclose(first[name], gradient, atol=1e-6) for name, gradient in second.items())
        assert equal, (
            f"{method_name(trainer.rule, 'loss')} depends on samples of weight 0; multiply each sample's loss by "
            "rollout.sample_weights, and leave those of weight 0 out of group statistics"
        )

    @pytest.mark.parametrize("num_iterations", [1, 2])
    def test_loss_handles_every_rollout(self, num_iterations: int) -> None:
        """Equal scores, nothing accepted and weights of 0 give finite losses and gradients."""
        for name, rollout in _rollout_cases(self._trainer().rollout).items():
            trainer = self._trainer()
            prepared = trainer.prepare(rollout, num_iterations)
            for iteration in range(num_iterations):
                try:
                    trainer.gradients(replace(prepared, iteration=iteration), seed=iteration + 1)
                except Exception as error:
                    raise AssertionError(f"{_describe_failure(trainer.rule, error)} (rollout with {name})") from error

    @pytest.mark.parametrize("num_iterations", [1, 2])
    def test_loss_on_another_device(self, num_iterations: int) -> None:
        """On another device than the CPU, the loss is on that device and has gradients."""
        trainer = self._trainer()
        with on_pretend_device(trainer.backbone, trainer.rule) as accelerator:
            rollout, method = to_device(trainer.rollout, accelerator.device), method_name(trainer.rule, "loss")
            try:
                prepared = trainer.prepare(rollout, num_iterations)
                loss, gradients = trainer.gradients(prepared)
            except RuntimeError as error:
                raise AssertionError(
                    f"{method} or prepare failed on another device than the CPU: {error}; {ADVICE}"
                ) from error
            assert {tensor.device for tensor in (loss, *gradients.values())} == {accelerator.device}, (
                f"{method} returned a loss on {loss.device}, though model and rollout are on another device"
            )

    def test_logged_names_are_constant(self) -> None:
        """The names of the logs do not depend on the rollout."""
        trainer = self._trainer()
        names = {name: list(trainer.loss(rollout)[1]) for name, rollout in _rollout_cases(trainer.rollout).items()}
        expected = names["different scores"]
        for name, logged in names.items():
            assert logged == expected, (
                f"{method_name(trainer.rule, 'loss')} logs {logged} for a rollout with {name}, expected {expected}; "
                "processes that log different names deadlock"
            )

    def test_prepare_keeps_the_rollout_reusable(self) -> None:
        """`prepare` only sets `old_log_probs`, and checkpoints can hold the rollout."""
        trainer = self._trainer()
        before, method = copy.deepcopy(trainer.rollout), method_name(trainer.rule, "prepare")
        prepared = trainer.prepare(trainer.rollout, 2)
        unprepared = replace(prepared, old_log_probs=before.old_log_probs)
        assert is_equal(unprepared, before), f"{method} changed the rollout; it may only set old_log_probs"
        count = len(prepared.old_log_probs)
        assert count in (0, 2), f"{method} returned {count} old_log_probs, expected 2, one per generator"
        _assert_can_be_saved(prepared, method)
        optimizer = torch.optim.SGD(trainer.backbone.parameters(), self.learning_rate)
        for iteration in range(2):
            trainer.gradients(replace(prepared, iteration=iteration), seed=iteration + 1)
            optimizer.step()

    def test_loss_does_not_modify_rollout_or_weights(self) -> None:
        """Rollout and weights stay as they are."""
        trainer = self._trainer()
        rollout, weights = copy.deepcopy((trainer.rollout, trainer.backbone.state_dict()))
        trainer.gradients()
        method = method_name(trainer.rule, "loss")
        assert is_equal(rollout, trainer.rollout), f"{method} modified the rollout in place; copy its tensors first"
        equal = is_equal(weights, trainer.backbone.state_dict())
        assert equal, f"{method} modified the weights of the model; leave that to the optimizer"

    def test_attach_does_not_modify_the_model(self) -> None:
        """Weights, `requires_grad` and train or eval mode stay as they are."""
        rule, backbone = self.make(), BanditBackbone()
        before = _model_state(backbone)
        rule.attach(backbone)
        unchanged = is_equal(before, _model_state(backbone))
        assert unchanged, (
            f"{method_name(rule, 'attach')} modified the model; copy it first, as unirl.updates.Reference does"
        )

    def test_reference_model_stays_fixed(self) -> None:
        """A stored reference model is a copy that training does not change."""
        trainer = self._trainer()
        method = method_name(trainer.rule, "attach")
        shared = any(module is trainer.backbone for module in find_modules(trainer.rule))
        assert not shared, (
            f"{method} stored the model in training itself; store a copy, as unirl.updates.Reference does"
        )
        before = {name: p.detach().clone() for name, p in trainer.reference_parameters()}
        if not before:
            pytest.skip("attach stores no model")
        trainer.train(10, self.learning_rate, new_rollouts=True)
        after = dict(trainer.reference_parameters())
        changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
        assert not changed, (
            f"{method} stored a model whose {changed[0]!r} changed in training; a reference model is fixed"
        )

    def test_workload_is_valid_and_has_no_side_effects(self) -> None:
        """`workload` returns counts of 0 or more, and changes neither the rule nor the model."""
        trainer = self._trainer()
        rule, backbone, method = trainer.rule, trainer.backbone, method_name(trainer.rule, "workload")
        before = _rule_state(rule), _model_state(backbone)
        workload: object = rule.workload(backbone, self.sampling)
        assert isinstance(workload, Workload), f"{method} returned {describe_type(workload)}, expected a Workload"
        for field in fields(workload):
            value, count = getattr(workload, field.name), not isinstance(field.default, bool)
            valid = isinstance(value, int) and value >= 0 if count else isinstance(value, bool)
            expected = "an int of 0 or more" if count else "a bool"
            assert valid, f"{method} returned {field.name}={value!r}, expected {expected}"
        assert rule.workload(backbone, self.sampling) == workload, (
            f"{method} returned another Workload in a second call"
        )
        after = _rule_state(rule), _model_state(backbone)
        assert is_equal(before, after), f"{method} modified the rule or the model; it must only compute numbers"

    def test_check_rejects_unsupported_settings(self) -> None:
        """`check` raises a UserError for settings with which training fails."""
        self.make().check(BanditBackbone(), self.group_size, self.sampling)
        settings = {
            "group_size 1": (1, BanditBackbone()),
            "a backbone without straight_through": (self.group_size, BanditBackbone(differentiable_codes=False)),
        }
        for name, (group_size, backbone) in settings.items():
            rule = self.make()
            try:
                rule.check(backbone, group_size, self.sampling)
            except UserError:
                continue
            try:
                BanditTrainer(rule, group_size, self.sampling, backbone).gradients()
            except Exception as error:
                failure = _describe_failure(rule, error)
                raise AssertionError(
                    f"{method_name(rule, 'check')} accepts {name}, but {failure}; raise a UserError in check"
                ) from error

    def _trainer(self) -> "BanditTrainer":
        return BanditTrainer(self.make(), self.group_size, self.sampling)


class BanditTrainer:
    """Trains a bandit by an update rule, and asserts that each loss is valid.

    Args:
        rule: A new update rule.
        group_size: Samples of each prompt.
        sampling: How images are sampled.
        backbone: The policy; a new bandit by default.
    """

    def __init__(
        self, rule: UpdateRule, group_size: int, sampling: ImageSampling, backbone: BanditBackbone | None = None
    ) -> None:
        self.rule, self.sampling, self.backbone = rule, sampling, backbone or BanditBackbone()
        self.rollout = make_bandit_rollout(self.backbone, group_size, sampling, seed=0)
        rule.attach(self.backbone)

    def loss(self, rollout: Rollout | None = None, seed: int = 1) -> tuple[Tensor, Mapping[str, object]]:
        """The loss and logs of the rule, asserted to be a finite scalar with gradient and finite scalars."""
        result: Any = self.rule.loss(self.backbone, rollout or self.rollout, self.sampling, self._generator(seed))
        method = method_name(self.rule, "loss")
        pair = isinstance(result, tuple) and len(result) == 2
        assert pair, f"{method} returned {describe_type(result)}, expected a tuple of the loss and a dict of logs"
        loss, logs = result
        assert isinstance(loss, Tensor), f"{method} returned {describe_type(loss)} as loss, expected a tensor"
        assert loss.shape == (), f"{method} returned a loss of shape {tuple(loss.shape)}, expected a scalar"
        assert torch.isfinite(loss), f"{method} returned a loss of {loss.item()}, expected a finite number"
        assert loss.requires_grad, f"{method} returned a loss without gradient; nothing would be trained"
        _assert_logs(logs, method)
        return loss, logs

    def gradients(self, rollout: Rollout | None = None, seed: int = 1) -> tuple[Tensor, Gradients]:
        """The loss, and the gradient of every trainable parameter, asserted to exist and to be finite."""
        self.backbone.zero_grad()
        loss, _ = self.loss(rollout, seed)
        loss.backward()
        method, trainable = method_name(self.rule, "loss"), self._trainable_parameters()
        missing = [name for name, p in trainable.items() if p.grad is None]
        assert not missing, (
            f"{method} passes no gradient to the trainable parameter {missing[0]!r}, which stops training on several "
            "devices; add unirl.functional.zero_loss(backbone)"
        )
        gradients = {name: p.grad.clone() for name, p in trainable.items() if p.grad is not None}
        bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        assert not bad, f"{method} has a gradient of {bad[0]!r} that is not finite"
        return loss.detach(), gradients

    def train(self, num_steps: int, learning_rate: float, new_rollouts: bool) -> list[float]:
        """Train, and return the loss of each step.

        Args:
            num_steps: Number of steps.
            learning_rate: Learning rate of Adam.
            new_rollouts: Whether each step has a new rollout, or all steps have the first one.
        """
        optimizer = torch.optim.Adam(self._trainable_parameters().values(), learning_rate)
        group_size, num_iterations = self.rollout.group_size, 1 if new_rollouts else 2
        rollout, losses = self.prepare(self.rollout, num_iterations), []
        for step in range(num_steps):
            if new_rollouts:
                rollout = make_bandit_rollout(self.backbone, group_size, self.sampling, seed=step)
                rollout = self.prepare(rollout, num_iterations)
            loss, _ = self.loss(rollout)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def prepare(self, rollout: Rollout, num_iterations: int) -> Rollout:
        """The rollout as the rule prepares it for a number of iterations."""
        generators = [self._generator(i + 1) for i in range(num_iterations)]
        prepared: object = self.rule.prepare(self.backbone, rollout, self.sampling, generators)
        method = method_name(self.rule, "prepare")
        assert isinstance(prepared, Rollout), f"{method} returned {describe_type(prepared)}, expected a unirl.Rollout"
        return prepared

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.backbone.palette.device).manual_seed(seed)

    def reference_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the models that the rule holds, without those of the model in training."""
        in_training = {id(parameter) for parameter in self.backbone.parameters()}
        for module in find_modules(self.rule):
            yield from ((name, p) for name, p in module.named_parameters() if id(p) not in in_training)

    def _trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}


def _rollout_cases(rollout: Rollout) -> dict[str, Rollout]:
    """Rollouts that occur in training, by description."""
    ones, none_accepted = torch.ones_like(rollout.scores), torch.zeros_like(rollout.accepted)
    return {
        "different scores": rollout,
        "different scores and nothing accepted": replace(rollout, accepted=none_accepted),
        "equal scores and nothing accepted": replace(rollout, scores=0.3 * ones, accepted=none_accepted),
        "equal scores and everything accepted": replace(rollout, scores=ones, accepted=~none_accepted),
        "weight 0 for every sample": replace(rollout, weights=0 * ones),
    }


def _rollouts_with_ignored_samples(rollout: Rollout) -> tuple[Rollout, Rollout]:
    """Two rollouts that differ only in images, answers and scores of samples of weight 0."""
    weights = torch.ones_like(rollout.scores)
    weights[:: rollout.group_size] = 0
    ignored = weights == 0
    codes, ids = rollout.images.codes.clone(), rollout.answers.ids.clone()
    codes[ignored] = (codes[ignored] + 1) % CODEBOOK_SIZE
    ids[ignored, 0] = (ids[ignored, 0] + 1) % CODEBOOK_SIZE
    images = replace(rollout.images, codes=codes, actions=codes)
    answers = replace(rollout.answers, ids=ids, text=[str(row[0]) for row in ids.tolist()])
    scores = torch.where(ignored, 1 - rollout.scores, rollout.scores)
    first = replace(rollout, weights=weights)
    return first, replace(first, images=images, answers=answers, scores=scores)


def _assert_can_be_saved(rollout: Rollout, method: str) -> None:
    file = io.BytesIO()
    try:
        torch.save(copy.deepcopy(rollout), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise AssertionError(
            f"{method} returned a rollout that no checkpoint can hold; store only tensors in old_log_probs: {error}"
        ) from error


def _assert_logs(logs: object, method: str) -> None:
    assert isinstance(logs, Mapping), f"{method} returned {describe_type(logs)} as logs, expected a dict"
    for name, value in logs.items():
        assert isinstance(name, str), f"{method} logs under {name!r}, expected a string"
        if isinstance(value, Tensor):
            assert value.numel() == 1, f"{method} logs {name!r} of shape {tuple(value.shape)}, expected a scalar"
            assert not value.requires_grad, f"{method} logs {name!r} with gradient, which keeps activations; detach it"
        else:
            assert isinstance(value, Number), f"{method} logs {name!r} as {describe_type(value)}, expected a scalar"
        assert torch.isfinite(torch.as_tensor(value)), f"{method} logs {name!r} as {value}, expected a finite number"


def _describe_failure(rule: UpdateRule, error: Exception) -> str:
    text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return text if text.startswith(type(rule).__name__) else f"{method_name(rule, 'loss')} fails with {text}"


def _model_state(backbone: BanditBackbone) -> dict[str, Any]:
    state: dict[str, Any] = {name: value.clone() for name, value in backbone.state_dict().items()}
    trainable = {f"{name}.requires_grad": p.requires_grad for name, p in backbone.named_parameters()}
    return {**state, **trainable, "training": backbone.training}


def _rule_state(rule: UpdateRule) -> dict[str, Any]:
    """Attributes of a rule, with copies of tensors and containers."""

    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) else copy.copy(value)

    return {
        name: copied(value) if isinstance(value, Tensor | dict | list | set) else value
        for name, value in vars(rule).items()
    }
