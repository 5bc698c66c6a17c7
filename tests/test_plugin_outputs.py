"""What plugins return: rewards, judges, hooks and update rules; nothing of it is lost in silence."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.masked import masked_tensor

from unirl import UserError, hookimpl
from unirl.hooks.lifecycle import Lifecycle
from unirl.judges import Judge
from unirl.judges.verdict_checks import checked_references, checked_understanding_set, checked_verdicts
from unirl.plugin_outputs import find_mismatch, plain
from unirl.rewards import Oracle, Reward, score
from unirl.types import Answers, Example, Images
from unirl.updates import SFT
from unirl.updates.loss_checks import check_loss

CPU, SIZE = torch.device("cpu"), 2
EXAMPLES = [Example("a cup", "what ?", "a cup")] * SIZE
IDS, PIXELS = torch.zeros(SIZE, 1, dtype=torch.long), torch.zeros(SIZE, 3, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore")  # kinds of tensors that PyTorch calls a prototype


def quantized() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(SIZE), 1.0, 0, torch.quint8)


BAD: dict[str, Callable[[], object]] = {
    "complex": lambda: torch.ones(SIZE, dtype=torch.complex64),
    "complex of real values": lambda: torch.ones(SIZE) + 0j,
    "half complex": lambda: torch.ones(SIZE, dtype=torch.complex32),
    "sparse": lambda: torch.ones(SIZE).to_sparse(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
    "quantized": quantized,
    "masked": lambda: masked_tensor(torch.ones(SIZE), torch.tensor([True, False])),
    "one number": lambda: torch.ones(()),
    "column": lambda: torch.ones(SIZE, 1),
    "too many": lambda: torch.ones(SIZE + 1),
    "another device": lambda: torch.ones(SIZE, device="meta"),
    "array": lambda: np.ones(SIZE),
    "list": lambda: [1.0] * SIZE,
    "number": lambda: 1.0,
}
"""Values that none of them may return."""
NOT_FINITE = {"nan": torch.tensor([0.0, torch.nan]), "inf": torch.tensor([0.0, torch.inf])}
GOOD = (torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool)


class Returning(Reward, Judge):
    """Returns a fixed value, as a reward, a judge or a hook."""

    def __init__(self, value: object, accepts: object = None) -> None:
        super().__init__()
        self.value, self.accepted = value, accepts

    def score(self, *_: object) -> Any:
        return self.value

    def accepts(self, *_: object) -> Any:
        return self.accepted

    def verdicts(self, *_: object) -> Any:
        return self.value

    def references(self, *_: object) -> Any:
        return self.value

    def understanding_set(self, *_: object) -> Any:
        return self.value

    @hookimpl
    def unirl_rollout_scored(self, rollout: Any) -> Any:
        return self.value


def scores(reward: Reward) -> Tensor:
    images, answers = Images(IDS, PIXELS), Answers(IDS, IDS.bool(), ["a cup"] * SIZE)
    return score([reward], EXAMPLES, images, answers)[0]


def weights(value: object) -> Tensor | None:
    rollout: Any = SimpleNamespace(scores=torch.zeros(SIZE))
    return Lifecycle([Returning(value)]).weights(rollout)


RECEIVERS: dict[str, tuple[str, Callable[[object], object]]] = {
    "score": ("reward 'returning' (", lambda value: scores(Returning(value))),
    "accepts": ("accepts returned", lambda value: scores(Returning(torch.ones(SIZE), value))),
    "hook": ("Returning", weights),
    "verdicts": ("judge Returning: verdicts", lambda value: checked_verdicts(Returning(value), EXAMPLES, PIXELS)),
    "oracle": ("judge Returning: verdicts", lambda value: scores(Oracle(Returning(value)))),
}


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_what_is_no_dense_tensor_of_real_numbers_is_refused_by_name(receiver: str) -> None:
    name, receive = RECEIVERS[receiver]
    values = {**BAD, **{key: lambda value=value: value for key, value in NOT_FINITE.items()}}
    for kind, make in values.items():
        with pytest.raises(UserError) as caught:
            receive(make())
        assert name in str(caught.value), (receiver, kind)
        assert "\n" not in str(caught.value)


def test_the_message_says_what_to_do() -> None:
    for kind, advice in (
        ("complex", "complex numbers (torch.complex64), expected real ones: take .real"),
        ("sparse", "a sparse tensor (torch.sparse_coo), expected a dense one: take .to_dense()"),
        ("quantized", "a quantized tensor (torch.quint8), expected numbers: take .dequantize()"),
        ("nested", "a nested tensor"),
        ("masked", "a MaskedTensor"),
        ("array", "ndarray, expected a tensor of 2 numbers"),
    ):
        mismatch = find_mismatch(BAD[kind](), (SIZE,), CPU)
        assert mismatch is not None
        assert advice in mismatch


def test_all_real_types_are_taken_and_kept() -> None:
    class Own(Tensor):
        pass

    values = [torch.tensor([0, 1]).to(dtype) for dtype in GOOD]
    values += [torch.nn.Parameter(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 1.0]).as_subclass(Own)]
    values += [torch.tensor([0.0, 1.0]) * torch.ones((), requires_grad=True)]
    for value in values:
        for got in (scores(Returning(value)), weights(value)):
            assert got is not None
            assert (type(got), got.dtype, got.requires_grad) == (Tensor, torch.float32, False)
            assert got.tolist() == [0, 1]


def test_a_plugin_may_reuse_its_buffer() -> None:
    buffer = torch.ones(SIZE)
    kept = [plain(buffer), scores(Returning(buffer)), weights(buffer)]
    buffer.zero_()
    assert all(value is not None and value.tolist() == [1] * SIZE for value in kept)


def test_weights_whose_product_is_not_finite_are_refused() -> None:
    rollout: Any = SimpleNamespace(scores=torch.zeros(SIZE))
    with pytest.raises(UserError, match="product is not finite"):
        Lifecycle([Returning(torch.full((SIZE,), 1e30)), Returning(torch.full((SIZE,), 1e30))]).weights(rollout)


def test_images_of_a_judge_are_checked() -> None:
    for images in (PIXELS + 0j, PIXELS[:1], PIXELS[:, :1], PIXELS.byte(), PIXELS.to_sparse(), PIXELS.numpy(), [PIXELS]):
        with pytest.raises(UserError, match="judge Returning: references returned"):
            checked_references(Returning(images), EXAMPLES)
        with pytest.raises(UserError, match="judge Returning: understanding_set returned"):
            checked_understanding_set(Returning((EXAMPLES, images)), SIZE)
    for pair in (PIXELS, (PIXELS, EXAMPLES), (EXAMPLES,), (EXAMPLES, PIXELS, 1)):
        with pytest.raises(UserError, match="understanding_set returned no pair"):
            checked_understanding_set(Returning(pair), SIZE)
    assert checked_references(Returning(None), EXAMPLES) is checked_understanding_set(Returning(None), SIZE) is None
    assert checked_references(Returning(PIXELS), EXAMPLES) is PIXELS


def test_a_loss_is_one_real_number_with_a_gradient() -> None:
    one = torch.ones((), requires_grad=True)
    for loss, message in (
        (one + 1j, "the loss: got complex numbers"),
        (one[None], "shape (1,), expected (): a single number"),
        (one * torch.ones(3), "shape (3,), expected ()"),
        (one.detach(), "without a gradient; add unirl.functional.zero_loss"),
        (torch.ones((), device="meta", requires_grad=True), "a tensor on meta, expected cpu"),
        (1.0, "float, expected a tensor of a single number"),
        (None, "NoneType"),
    ):
        with pytest.raises(UserError, match=f"update rule SFT: .*{re.escape(message)}"):
            check_loss(SFT(), (loss, {}), CPU)
    for result in (one, (one,), (one, None), [one, {}], None):
        with pytest.raises(UserError, match=r"update rule SFT: loss returned .* expected a loss and a dict of metrics"):
            check_loss(SFT(), result, CPU)
    for metric in (one + 1j, torch.ones(2), "high", None, 1j, one.to_sparse()):
        with pytest.raises(UserError, match="update rule SFT: the metric 'kl': got "):
            check_loss(SFT(), (one, {"kl": metric}), CPU)
    metrics = {"kl": one.detach(), "share": 0.5, "count": torch.tensor(3), "nan": torch.tensor(torch.nan)}
    assert check_loss(SFT(), (one, metrics), CPU) == (one, metrics)
