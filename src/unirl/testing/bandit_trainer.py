"""Training of a bandit by an update rule, for the checks of update rules."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from unirl.testing.bandit import CODEBOOK_SIZE, BanditBackbone, make_bandit_rollout
from unirl.testing.comparison import describe_type, find_modules, method_name
from unirl.types import ImageSampling, Rollout
from unirl.updates.base import UpdateRule

Gradients = dict[str, Tensor]


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

    def train(
        self,
        num_steps: int,
        learning_rate: float,
        new_rollouts: bool,
        make_rollout: Callable[..., Rollout] = make_bandit_rollout,
    ) -> list[float]:
        """Train, and return the loss of each step.

        Args:
            num_steps: Number of steps.
            learning_rate: Learning rate of Adam.
            new_rollouts: Whether each step has a new rollout, or all steps have the first one.
            make_rollout: Makes the new ones.
        """
        optimizer = torch.optim.Adam(self._trainable_parameters().values(), learning_rate)
        group_size, num_iterations = self.rollout.group_size, 1 if new_rollouts else 2
        rollout, losses = self.prepare(self.rollout, num_iterations), []
        for step in range(num_steps):
            if new_rollouts:
                rollout = make_rollout(self.backbone, group_size, self.sampling, seed=step)
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


def rollout_cases(rollout: Rollout) -> dict[str, Rollout]:
    """Rollouts that occur in training, by description."""
    ones, none_accepted = torch.ones_like(rollout.scores), torch.zeros_like(rollout.accepted)
    return {
        "different scores": rollout,
        "different scores and nothing accepted": replace(rollout, accepted=none_accepted),
        "equal scores and nothing accepted": replace(rollout, scores=0.3 * ones, accepted=none_accepted),
        "equal scores and everything accepted": replace(rollout, scores=ones, accepted=~none_accepted),
        "weight 0 for every sample": replace(rollout, weights=0 * ones),
        "several questions about some images": repeat_questions(rollout),
    }


def repeat_questions(rollout: Rollout) -> Rollout:
    """The rollout as if every second group were asked its question three times, and had answered alike each time.

    The rows of `answers` that are to be ignored hold other tokens.
    """
    k, size = 3, rollout.group_size
    repeated = [i // size % 2 == 0 for i in range(len(rollout))]
    examples = [
        replace(e, questions=e.questions[:1] * k) if again else e
        for e, again in zip(rollout.examples, repeated, strict=True)
    ]
    answers = rollout.answers[torch.arange(len(rollout)).repeat_interleave(k)]
    ignored = ~torch.tensor([again or i == 0 for again in repeated for i in range(k)])[:, None]
    ids = torch.where(ignored, (answers.ids + 1) % CODEBOOK_SIZE, answers.ids)
    return replace(rollout, examples=examples, answers=replace(answers, ids=ids, mask=answers.mask & ~ignored))


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
