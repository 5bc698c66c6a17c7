from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unirl import UserError
from unirl.judges import Detection, verdict
from unirl_shapes.examples import all_examples, counting, position, sample_example, true_answer, two_object, words
from unirl_shapes.render import BACKGROUND, render, render_batch
from unirl_shapes.scenes import SceneObject, cell_relations, near_miss, random_scene, scene_for
from unirl_shapes.vocabulary import CATEGORIES, CELLS, COLORS, SHAPES

seeds = st.integers(0, 2**32)
VOCABULARY = set(words())
extras = st.integers(0, 4)


def detections(scene):
    """The detections of a perfect detector."""
    boxes = [(placed, divmod(placed.cell, 4)) for placed in scene]
    return [Detection(t.shape, (x + 1 / 8, y + 1 / 8, x + 7 / 8, y + 7 / 8), 1.0, t.color) for t, (y, x) in boxes]


def is_correct(example, scene):
    return verdict(example.objects, example.exclude, detections(scene)).correct


def is_right_answer(example, answer):
    return answer == example.answer or (example.category == "position" and example.answer in answer.split())


@given(seeds, extras)
def test_scenes_are_correct(seed, extra):
    rng = Random(seed)
    example = sample_example(rng)
    scene = scene_for(example, rng, extra)
    assert is_correct(example, scene)
    assert is_right_answer(example, true_answer(example, scene))
    names = {item.name for item in example.objects}
    assert sum(placed.shape not in names for placed in scene) == extra
    assert len({placed.cell for placed in scene}) == len(scene)


@given(seeds, extras)
def test_near_misses_are_wrong_or_ambiguous(seed, extra):
    rng = Random(seed)
    example = sample_example(rng)
    answer = true_answer(example, near_miss(example, rng, extra))
    # A second object of the same color would not change the answer about colors; it never has the same color.
    assert not is_right_answer(example, answer)


@settings(deadline=None)
@given(seeds)
def test_true_answers_and_verdicts_agree_on_any_scene(seed):
    rng = Random(seed)
    for _ in range(20):
        example = sample_example(rng)
        kinds = (scene_for(example, rng, 2), near_miss(example, rng, 2), random_scene(rng, rng.randrange(9)))
        for scene in kinds:
            answer = true_answer(example, scene)
            if is_correct(example, scene):
                assert is_right_answer(example, answer)
            elif is_right_answer(example, answer):  # two circles of one color
                assert example.category in ("colors", "color_attr")
                assert any(sum(t.shape == item.name for t in scene) > 1 for item in example.objects)
            assert set(answer.split()) <= VOCABULARY


@pytest.mark.parametrize("category", CATEGORIES)
def test_near_misses_have_all_kinds_of_errors(category):
    rng = Random(0)
    example = all_examples(category)[0]
    answers = {true_answer(example, near_miss(example, rng)) for _ in range(500)}
    expected = {
        "single_object": {"none"},
        "two_object": {"none", "circle", "square"},
        "counting": {"zero circles", "two circles", "three circles", "four circles", "many circles"},
        "colors": {"none", "many", *COLORS} - {"red"},
        "position": {"none", "many", "right", "above", "below", "right above", "right below"},
        "color_attr": {"red and none", "none and orange", "orange and red", "many and orange", "red and many"},
    }[category]
    assert expected <= answers


def test_random_scenes_have_the_given_number_of_objects():
    assert [len(random_scene(Random(n), n)) for n in range(17)] == list(range(17))


def test_answers_by_hand():
    red, blue, square = (
        SceneObject("circle", "red", 0),
        SceneObject("circle", "blue", 15),
        SceneObject("square", "red", 5),
    )
    by_category = {category: all_examples(category)[0] for category in CATEGORIES}
    assert [e.question for e in by_category.values()] == [
        "do you see a circle ?",
        "do you see a circle and a square ?",
        "how many circles do you see ?",
        "what color is the circle ?",
        "where is the circle from the square ?",
        "what color are the circle and the square ?",
    ]
    answers = [
        [true_answer(e, scene) for e in by_category.values()]
        for scene in [(), (red,), (red, square), (red, blue, square), (blue, square)]
    ]
    assert answers == [
        ["none", "none", "zero circles", "none", "none", "none and none"],
        ["circle", "circle", "one circle", "red", "none", "red and none"],
        ["circle", "circle and square", "one circle", "red", "left above", "red and red"],
        ["circle", "circle and square", "two circles", "many", "many", "many and red"],
        ["circle", "circle and square", "one circle", "blue", "right below", "blue and red"],
    ]
    assert (
        true_answer(counting("circle", 4), tuple(SceneObject("circle", "red", i) for i in range(5))) == "many circles"
    )
    assert true_answer(two_object("square", "circle"), (square,)) == "square"


def test_relations_of_cells():
    expected = {(0, 1): {"left of"}, (5, 0): {"right of", "below"}, (0, 9): {"above"}, (0, 14): {"left of", "above"}}
    assert {cells: cell_relations(*cells) for cells in expected} == expected


def test_relations_hold_in_many_pairs_of_cells():
    example = position("ring", "above", "cross")
    cells = {tuple(t.cell for t in scene_for(example, Random(seed))) for seed in range(500)}
    assert len(cells) > 50
    assert all("above" in cell_relations(*pair) for pair in cells)


def test_rendering_is_exact():
    image = render((SceneObject("square", "red", 6),), 64)
    inside = image[:, 18:30, 34:46]
    torch.testing.assert_close(inside, torch.tensor(COLORS["red"])[:, None, None].expand_as(inside))
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[18:30, 34:46] = False
    assert (image[:, outside] == BACKGROUND).all()


@pytest.mark.parametrize("size", [64, 96, 128, 160])
def test_every_shape_is_centered_in_its_cell(size):
    c = size // 4
    for shape in SHAPES:
        for cell in range(CELLS):
            image = (render((SceneObject(shape, "blue", cell),), size)[0] - BACKGROUND).abs()
            y, x = (dim.flatten() * c for dim in torch.tensor(divmod(cell, 4)))
            assert image.sum() == pytest.approx(image[y : y + c, x : x + c].sum())
            assert torch.equal(image, image.flip(1).roll((2 * int(x) + c - size), 1))


def test_a_batch_equals_its_images():
    scenes = [random_scene(Random(i), i) for i in range(9)]
    batch = render_batch(scenes, 96)
    assert batch.shape == (9, 3, 96, 96)
    assert batch.dtype == torch.float32
    assert 0 <= batch.min() <= batch.max() <= 1
    assert torch.equal(batch, torch.stack([render(scene, 96) for scene in scenes]))


@pytest.mark.parametrize("size", [0, 32, 65, 80])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match="multiple of 32"):
        render((), size)
