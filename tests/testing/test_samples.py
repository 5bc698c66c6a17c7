import torch

from unirl.prompts.geneval import GenEval
from unirl.testing.checks import same
from unirl.testing.samples import EXAMPLES, ODD_TEXTS, sample_answers, sample_images, sample_rollout


def test_examples_cover_every_category_once() -> None:
    assert tuple(example.category for example in EXAMPLES) == GenEval.categories


def test_pictures_are_the_same_every_time_and_begin_alike() -> None:
    first = sample_images(4)
    assert same(first, sample_images(4))
    assert first.pixels is not None
    assert 0 <= first.pixels.min() <= first.pixels.max() <= 1
    assert sample_images(4, pixels=False).pixels is None


def test_answers_alike_have_tokens_alike_whatever_stands_beside_them() -> None:
    alone, beside = sample_answers(["a red ring"]), sample_answers([*ODD_TEXTS, "a red ring"])
    length = alone.mask.shape[1]
    assert torch.equal(alone.ids[0], beside.ids[-1, :length])
    assert beside.mask[-1].sum() == length
    assert beside.mask.any(1).all()


def test_a_rollout_is_prompt_major_and_takes_other_values() -> None:
    rollout = sample_rollout([1.0, 0.0, 1.0, 0.5], 2, weights=torch.zeros(4))
    assert [example.category for example in rollout.examples] == ["single_object"] * 2 + ["two_object"] * 2
    assert rollout.accepted.tolist() == [True, False, True, False]
    assert rollout.kept.tolist() == [0.0] * 4
