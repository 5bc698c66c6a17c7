"""The conformance class of update rules."""

import copy
import io
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.testing.bandit import (
    CODEBOOK_SIZE,
    BanditBackbone,
    expected_accuracy,
    expected_reward,
    make_answer_rollout,
)
from unirl.testing.bandit_trainer import BanditTrainer, repeat_questions, rollout_cases
from unirl.testing.comparison import (
    describe_type,
    find_modules,
    global_rng_state,
    is_equal,
    max_difference,
    method_name,
    seed_global_rngs,
)
from unirl.testing.devices import ADVICE, on_pretend_device
from unirl.testing.update_batches import TOLERANCE, BatchChecks
from unirl.types import Rollout, to_device
from unirl.updates.base import UpdateRule

MAX_ACCURACY_DROP = 0.02
"""Largest drop of the probability of correct answers in training, by chance."""
ROWS = (
    "rollout.answers has rollout.num_questions rows for each image: weigh them by rollout.answer_weights, and take "
    "questions and answers from scoring_batch"
)
"""Ends the message of a rule that takes one answer for each image."""


class UpdateConformance(BatchChecks):
    """Checks the contract of an update rule. Derive a test class from it and define `make`.

    The model is a `BanditBackbone`. A failed check names the method, what it returned and what is expected.

    Example:
        >>> from unirl.updates.grpo import GRPO
        >>> class TestGRPO(UpdateConformance):
        ...     def make(self):
        ...         return GRPO()
        >>> TestGRPO().test_loss_decreases()
    """

    end_to_end: ClassVar[bool] = False
    """Whether gradient passes through straight-through codes. Then the loss decreases over new rollouts, not on one."""
    learning_rate: ClassVar[float] = 0.05
    """Learning rate of Adam."""
    num_steps: ClassVar[int] = 150
    """Training steps on the bandit."""
    min_improvement: ClassVar[float | None] = 0.15
    """Increase of the expected reward in `num_steps`, from about 1/3. None if the rule does not train generation."""

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

    def test_correct_answers_become_no_rarer(self) -> None:
        """Where the scores are those of the answers, training does not make correct answers less probable."""
        trainer = self._trainer()
        before = expected_accuracy(trainer.backbone)
        trainer.train(15, self.learning_rate, new_rollouts=True, make_rollout=make_answer_rollout)
        after = expected_accuracy(trainer.backbone)
        assert after >= before - MAX_ACCURACY_DROP, (
            f"{method_name(trainer.rule, 'loss')} took the probability of correct answers from {before:.2f} to "
            f"{after:.2f} in 15 steps; check the sign of the term of the answers"
        )

    def test_samples_are_compared_by_advantage_rewards(self) -> None:
        """Where a reward is standardized, `scores` make no difference: `advantage_rewards` are compared."""
        trainer = self._trainer()
        rollout, method = trainer.rollout, method_name(trainer.rule, "loss")
        normalized = torch.arange(len(rollout), dtype=torch.float32).mul(0.7).sin()
        given = [
            replace(rollout, normalized_rewards=normalized, scores=s) for s in (rollout.scores, 1 - rollout.scores)
        ]
        (_, first), (_, second) = (trainer.gradients(trainer.prepare(one, 1)) for one in given)
        different = [name for name in first if max_difference(first[name], second[name]) > TOLERANCE]
        assert not different, (
            f"{method} has another gradient of {different[0]!r} for other rollout.scores with the same "
            "rollout.normalized_rewards; compare the samples of a group by rollout.advantage_rewards"
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

    def test_questions_share_the_weight_of_an_image(self) -> None:
        """Several questions about an image count as much as one, and repeated rows that fill up `answers` nothing."""
        rule, expected, trainer = self.make(), self._trainer(), self._trainer()
        method = method_name(rule, "loss")
        _, one = expected.gradients(expected.prepare(expected.rollout, 1))
        try:
            _, several = trainer.gradients(trainer.prepare(repeat_questions(trainer.rollout), 1))
        except Exception as error:
            failure = _describe_failure(rule, error)
            raise AssertionError(f"{failure} (several questions about an image); {ROWS}") from error
        different = [name for name in one if max_difference(one[name], several[name]) > TOLERANCE]
        assert not different, (
            f"{method} has another gradient of {different[0]!r} where the same question is asked and answered three "
            f"times; {ROWS}"
        )

    @pytest.mark.parametrize("num_iterations", [1, 2])
    def test_loss_handles_every_rollout(self, num_iterations: int) -> None:
        """Equal scores, nothing accepted and weights of 0 give finite losses and gradients."""
        for name, rollout in rollout_cases(self._trainer().rollout).items():
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
        """The names of the logs do not depend on the rollout, and are those of `metric_names` where it says some."""
        trainer = self._trainer()
        names = {name: list(trainer.loss(rollout)[1]) for name, rollout in rollout_cases(trainer.rollout).items()}
        expected = names["different scores"]
        for name, logged in names.items():
            assert logged == expected, (
                f"{method_name(trainer.rule, 'loss')} logs {logged} for a rollout with {name}, expected {expected}; "
                "processes that log different names deadlock"
            )
        declared = trainer.rule.metric_names
        assert declared is None or set(declared) == set(expected), (
            f"{type(trainer.rule).__name__}.metric_names has {sorted(declared or ())}, and `loss` logs "
            f"{sorted(expected)}; callbacks that watch a metric are checked by them"
        )

    def test_prepare_keeps_the_rollout_reusable(self) -> None:
        """`prepare` only sets `old_log_probs` and `answer_labels`, and checkpoints can hold the rollout."""
        trainer = self._trainer()
        before, method = copy.deepcopy(trainer.rollout), method_name(trainer.rule, "prepare")
        prepared = trainer.prepare(trainer.rollout, 2)
        unprepared = replace(prepared, old_log_probs=before.old_log_probs, answer_labels=before.answer_labels)
        assert is_equal(unprepared, before), (
            f"{method} changed the rollout; it may only set old_log_probs and answer_labels"
        )
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
