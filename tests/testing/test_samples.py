import torch

from unirl.prompts.geneval import GenEval
from unirl.testing import EDGE_CASE_TEXTS, EXAMPLES, make_answers, make_images, make_rollout
from unirl.testing.comparison import is_equal


def test_examples_have_each_category_once() -> None:
    assert tuple(example.category for example in EXAMPLES) == GenEval.categories


def test_images_are_reproducible() -> None:
    images = make_images(4)
    assert is_equal(images, make_images(4))
    assert images.pixels is not None
    assert 0 <= images.pixels.min() <= images.pixels.max() <= 1
    assert make_images(4, pixels=False).pixels is None


def test_tokens_of_an_answer_do_not_depend_on_the_batch() -> None:
    alone, in_batch = make_answers(["a red ring"]), make_answers([*EDGE_CASE_TEXTS, "a red ring"])
    length = alone.mask.shape[1]
    assert torch.equal(alone.ids[0], in_batch.ids[-1, :length])
    assert in_batch.mask[-1].sum() == length
    assert in_batch.mask.any(1).all()


def test_rollout_is_prompt_major_and_takes_other_fields() -> None:
    rollout = make_rollout([1.0, 0.0, 1.0, 0.5], 2, weights=torch.zeros(4))
    assert [example.category for example in rollout.examples] == ["single_object"] * 2 + ["two_object"] * 2
    assert rollout.accepted.tolist() == [True, False, True, False]
    assert rollout.sample_weights.tolist() == [0.0] * 4
