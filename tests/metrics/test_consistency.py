import pytest
import torch

from unirl.metrics import Consistency, is_correct_answer
from unirl.types import Example, Item


def test_shares_by_hand_and_over_several_batches() -> None:
    metric = Consistency()
    generated = torch.tensor([1, 1, 1, 0, 0]).bool()  # 3 of 5 are correct
    own = torch.tensor([1, 1, 0, 1, 0]).bool()  # 2 of these 3
    reference = torch.tensor([1, 0, 1, 1, 1]).bool()  # 4 of 5, of which 2 are generated correctly
    for rows in (slice(0, 2), slice(2, 5)):
        metric.update(generated[rows], own[rows], reference[rows])
    values = {name: value.item() for name, value in metric.compute().items()}
    assert values == pytest.approx({"mmu_given_t2i": 2 / 3, "t2i_given_mmu": 2 / 4, "imbalance": 1 / 6})


def test_undefined_shares_are_left_out() -> None:
    metric, yes, no = Consistency(), torch.tensor([True]), torch.tensor([False])
    metric.update(no, yes, yes)
    assert {name: value.item() for name, value in metric.compute().items()} == {"t2i_given_mmu": 0.0}


def test_an_answer_may_state_more_than_the_right_one() -> None:
    objects = (Item("dog"), Item("cup", relation=("left of", 0)))
    example = Example("a cup left of a dog", "where ?", "left", "position", objects)
    correct = [text for text in ("left", "left above", "right", "above") if is_correct_answer(example, text)]
    assert correct == ["left", "left above"]
    assert is_correct_answer(Example("p", "is it ?", "Is It", "c"), "is it")
