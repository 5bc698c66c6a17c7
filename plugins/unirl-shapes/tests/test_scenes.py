from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unirl.errors import UserError
from unirl.judges.verdict import Detection, verdict
from unirl_shapes.examples import all_examples, counting, draw_example, position, true_answer, two_object, words
from unirl_shapes.render import BACKGROUND, render, render_batch
from unirl_shapes.scenes import Thing, clutter, near_miss, relation_of, scene_for
from unirl_shapes.vocabulary import CATEGORIES, CELLS, COLORS, SHAPES

seeds = st.integers(0, 2**32)
VOCABULARY = set(words())
extras = st.integers(0, 4)


def seen(scene):
    """What a perfect detector reports."""
    boxes = [(thing, divmod(thing.cell, 4)) for thing in scene]
    return [Detection(t.shape, (x + 1 / 8, y + 1 / 8, x + 7 / 8, y + 7 / 8), 1.0, t.color) for t, (y, x) in boxes]


def right(example, scene):
    return verdict(example.objects, example.exclude, seen(scene)).correct


def says_yes(example, answer):
    return answer == example.answer or (example.category == "position" and example.answer in answer.split())


@given(seeds, extras)
def test_scenes_show_what_was_asked(seed, extra):
    rng = Random(seed)
    example = draw_example(rng)
    scene = scene_for(example, rng, extra)
    assert right(example, scene)
    assert says_yes(example, true_answer(example, scene))
    asked = {item.name for item in example.objects}
    assert sum(thing.shape not in asked for thing in scene) == extra
    assert len({thing.cell for thing in scene}) == len(scene)


@given(seeds, extras)
def test_near_misses_miss_or_are_ambiguous(seed, extra):
    rng = Random(seed)
    example = draw_example(rng)
    answer = true_answer(example, near_miss(example, rng, extra))
    # A second thing of the same color leaves a color question with its answer; it never does so by accident.
    assert not says_yes(example, answer)


@settings(deadline=None)
@given(seeds)
def test_truth_and_verdict_agree_on_any_scene(seed):
    rng = Random(seed)
    for _ in range(20):
        example = draw_example(rng)
        kinds = (scene_for(example, rng, 2), near_miss(example, rng, 2), clutter(rng, rng.randrange(9)))
        for scene in kinds:
            answer = true_answer(example, scene)
            if right(example, scene):
                assert says_yes(example, answer)
            elif says_yes(example, answer):  # two circles of one color are one circle too many, in one color
                assert example.category in ("colors", "color_attr")
                assert any(sum(t.shape == item.name for t in scene) > 1 for item in example.objects)
            assert set(answer.split()) <= VOCABULARY


@pytest.mark.parametrize("category", CATEGORIES)
def test_near_misses_take_every_way(category):
    rng = Random(0)
    example = all_examples(category)[0]
    answers = {true_answer(example, near_miss(example, rng)) for _ in range(500)}
    wanted = {
        "single_object": {"none"},
        "two_object": {"none", "circle", "square"},
        "counting": {"zero circles", "two circles", "three circles", "four circles", "many circles"},
        "colors": {"none", "many", *COLORS} - {"red"},
        "position": {"none", "many", "right", "above", "below", "right above", "right below"},
        "color_attr": {"red and none", "none and orange", "orange and red", "many and orange", "red and many"},
    }[category]
    assert wanted <= answers


def test_clutter_holds_as_much_as_was_asked():
    assert [len(clutter(Random(n), n)) for n in range(17)] == list(range(17))


def test_answers_by_hand():
    red, blue, square = Thing("circle", "red", 0), Thing("circle", "blue", 15), Thing("square", "red", 5)
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
    assert true_answer(counting("circle", 4), tuple(Thing("circle", "red", i) for i in range(5))) == "many circles"
    assert true_answer(two_object("square", "circle"), (square,)) == "square"


@pytest.mark.parametrize(
    ("a", "b", "holds"),
    [(0, 1, {"left of"}), (5, 0, {"right of", "below"}), (0, 9, {"above"}), (0, 14, {"left of", "above"})],
)
def test_relations_of_cells(a, b, holds):
    assert relation_of(a, b) == holds


def test_every_relation_is_met_somewhere():
    example = position("ring", "above", "cross")
    cells = {tuple(t.cell for t in scene_for(example, Random(seed))) for seed in range(500)}
    assert len(cells) > 50
    assert all("above" in relation_of(*pair) for pair in cells)


def test_rendering_is_exact():
    picture = render((Thing("square", "red", 6),), 64)
    inside = picture[:, 18:30, 34:46]
    torch.testing.assert_close(inside, torch.tensor(COLORS["red"])[:, None, None].expand_as(inside))
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[18:30, 34:46] = False
    assert (picture[:, outside] == BACKGROUND).all()


@pytest.mark.parametrize("size", [64, 96, 128, 160])
def test_every_shape_is_centred_in_its_cell(size):
    c = size // 4
    for shape in SHAPES:
        for cell in range(CELLS):
            picture = (render((Thing(shape, "blue", cell),), size)[0] - BACKGROUND).abs()
            y, x = (dim.flatten() * c for dim in torch.tensor(divmod(cell, 4)))
            assert picture.sum() == pytest.approx(picture[y : y + c, x : x + c].sum())
            assert torch.equal(picture, picture.flip(1).roll((2 * int(x) + c - size), 1))


def test_a_batch_is_its_pictures():
    scenes = [clutter(Random(i), i) for i in range(9)]
    batch = render_batch(scenes, 96)
    assert batch.shape == (9, 3, 96, 96)
    assert batch.dtype == torch.float32
    assert 0 <= batch.min() <= batch.max() <= 1
    assert torch.equal(batch, torch.stack([render(scene, 96) for scene in scenes]))


@pytest.mark.parametrize("size", [0, 32, 65, 80])
def test_odd_sizes_are_refused(size):
    with pytest.raises(UserError, match="multiple of 32"):
        render((), size)
