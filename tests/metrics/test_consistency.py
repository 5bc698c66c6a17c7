import torch

from unirl.metrics.consistency import Consistency, is_correct_answer
from unirl.types import Example, Item


def test_shares_by_hand_and_over_several_batches() -> None:
    metric = Consistency()
    # drawn right: 3 of 5, of which 2 are also answered; seen right: 4 of 5, of which 2 are drawn.
    drawn, said, seen = (torch.tensor(v).bool() for v in ([1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 1, 1]))
    for rows in (slice(0, 2), slice(2, 5)):
        metric.update(drawn[rows], said[rows], seen[rows])
    got = {name: value.item() for name, value in metric.compute().items()}
    expected = {"mmu_given_t2i": 2 / 3, "t2i_given_mmu": 2 / 4, "imbalance": 1 / 6}
    assert all(abs(got[name] - value) < 1e-6 for name, value in expected.items())


def test_nothing_drawn_right_leaves_out_what_is_not_defined() -> None:
    metric, yes, no = Consistency(), torch.tensor([True]), torch.tensor([False])
    metric.update(no, yes, yes)
    assert {name: value.item() for name, value in metric.compute().items()} == {"t2i_given_mmu": 0.0}


def test_an_answer_may_say_more_than_the_right_one() -> None:
    objects = (Item("dog"), Item("cup", relation=("left of", 0)))
    example = Example("a cup left of a dog", "where ?", "left", "position", objects)
    assert [is_correct_answer(example, text) for text in ("left", "left above", "right", "above")] == [
        True,
        True,
        False,
        False,
    ]
    assert is_correct_answer(Example("p", "is it ?", "Is It", "c"), "is it")
