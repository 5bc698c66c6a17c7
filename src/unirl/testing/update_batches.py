"""Which samples an update rule scores: checks in micro-batches, and as one of several processes under FSDP2."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.testing.bandit_trainer import BanditTrainer, rollout_cases
from unirl.testing.comparison import find_modules, max_difference, method_name
from unirl.types import Images, ImageSampling, Rollout
from unirl.updates import batching
from unirl.updates.base import UpdateRule

SCORING_METHODS = ("image_log_probs", "image_log_likelihood", "answer_log_probs", "straight_through")
"""Methods that are collective where the model is sharded."""
TOLERANCE = 1e-5
"""Largest difference of losses, gradients and logs."""


class BatchChecks(ABC):
    """The part of `UpdateConformance` about the samples that are scored."""

    group_size: ClassVar[int] = 4
    """Samples of each prompt."""
    sampling: ClassVar[ImageSampling] = ImageSampling(steps=4)
    """How images are sampled."""

    @abstractmethod
    def make(self) -> UpdateRule:
        """A new update rule."""

    @pytest.mark.parametrize("num_iterations", [1, 2])
    def test_micro_batches_add_up(self, num_iterations: int) -> None:
        """With a `loss_unit`, losses, gradients and logs of micro-batches add up to those of the whole rollout."""
        rule = self.make()
        if rule.loss_unit is None:
            pytest.skip("loss_unit is None")
        size = 5 if rule.loss_unit == "sample" else 2 * self.group_size
        for name, rollout in rollout_cases(self._trainer().rollout).items():
            whole = self._last_iteration(rollout, num_iterations)
            parts = self._last_iteration(replace(rollout, loss_batch_size=size), num_iterations)
            different = [value for value in whole if max_difference(whole[value], parts[value]) > TOLERANCE]
            assert not different, (
                f"{method_name(rule, 'loss')}: {different[0]} of micro-batches of {size} samples add up to "
                f"{parts[different[0]].tolist()}, expected {whole[different[0]].tolist()} (rollout with {name}); take "
                "group statistics and denominators from the whole rollout and the generator from scoring_batch, or set "
                "loss_unit to None"
            )

    def test_sharded_ranks_make_the_same_calls(self) -> None:
        """Under FSDP2 a rank scores equally often, forward and backward, whatever its samples are."""
        cases, counts = rollout_cases(self._trainer().rollout), {}
        for name, rollout in cases.items():
            expected, trainer = self._trainer(), self._trainer()
            method = method_name(trainer.rule, "loss")
            _, gradients = expected.gradients(expected.prepare(rollout, 1))
            with _pretend_sharded(), _count_calls(trainer) as counts[name]:
                _, sharded = trainer.gradients(trainer.prepare(rollout, 1))
            different = [name for name in gradients if max_difference(gradients[name], sharded[name]) > TOLERANCE]
            assert not different, (
                f"{method} has another gradient of {different[0]!r} under FSDP2; multiply what was scored by weights "
                "that are 0 for the sample of a rank without samples"
            )
        first, *others = cases
        for name in others:
            assert counts[name] == counts[first], (
                f"{method} makes the calls {dict(counts[name])} for a rollout with {name}, and {dict(counts[first])} "
                f"for one with {first}; processes that make other calls deadlock under FSDP2: score the samples of "
                "unirl.updates.scoring_batch, and use all results in the loss"
            )

    def _trainer(self) -> BanditTrainer:
        return BanditTrainer(self.make(), self.group_size, self.sampling)

    def _last_iteration(self, rollout: Rollout, num_iterations: int) -> dict[str, Tensor]:
        """Loss, gradients and logs of the last iteration, as sums over micro-batches."""
        trainer, sums = self._trainer(), Counter[str]()
        prepared = replace(trainer.prepare(rollout, num_iterations), iteration=num_iterations - 1)
        if num_iterations > 1:  # the policy is no longer the one that generated
            with torch.no_grad():
                trainer.backbone.prompt_logits.mul_(2)
                trainer.backbone.answer_logits.mul_(0.5)
        for part in prepared.micro_batches():
            loss, gradients = trainer.gradients(part, seed=num_iterations)
            _add(sums, "the losses", {"": loss})
            _add(sums, "the gradients of ", gradients)
            _add(sums, "the logs of ", trainer.loss(part, seed=num_iterations)[1])
        return {name: torch.as_tensor(value) for name, value in sums.items()}


def _add(sums: dict[str, Any], prefix: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        sums[prefix + name] = sums.get(prefix + name, 0) + value


@contextmanager
def _pretend_sharded() -> Iterator[None]:
    """`scoring_batch` as on one of several ranks, where the others always have samples."""
    with (
        patch.object(batching, "is_sharded", lambda backbone: True),
        patch.object(batching, "any_rank", lambda value, device: True),
    ):
        yield


@contextmanager
def _count_calls(trainer: BanditTrainer) -> Iterator[Counter[str]]:
    """Counts calls of the scoring methods of the model and of reference models, and backward passes through them."""
    counts: Counter[str] = Counter()
    references = [module for module in find_modules(trainer.rule) if isinstance(module, Backbone)]
    models = {f"reference {i}.": module for i, module in enumerate(references)}
    with ExitStack() as patches:
        for prefix, model in {"": trainer.backbone, **models}.items():
            for name, method in _counting(model, prefix, counts).items():
                patches.enter_context(patch.object(model, name, method))
        yield counts


def _counting(backbone: Backbone, prefix: str, counts: Counter[str]) -> dict[str, Callable[..., Any]]:
    def counted(name: str) -> Callable[..., Any]:
        method = getattr(backbone, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[prefix + name] += 1
            result = method(*args, **kwargs)
            output: Any = result[0] if isinstance(result, tuple) else result
            output = output.soft if isinstance(output, Images) else output
            if output.requires_grad:
                output.register_hook(lambda _: counts.update([f"backward of {prefix}{name}"]))
            return result

        return call

    return {name: counted(name) for name in SCORING_METHODS}
