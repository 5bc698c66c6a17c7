from collections import Counter
from dataclasses import replace
from random import Random

import pytest
import torch
from scipy.ndimage import gaussian_filter

from unirl.errors import UserError
from unirl_shapes.detector import detect
from unirl_shapes.examples import colors, counting, draw_example, position, true_answer
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.render import BACKGROUND, render, render_batch
from unirl_shapes.scenes import Thing, clutter, near_miss, scene_for
from unirl_shapes.vocabulary import CATEGORIES, CELLS, COLORS, SHAPES

KINDS = [(shape, color) for shape in SHAPES for color in COLORS]


def found(picture):
    cell = picture.shape[-1] / 4
    centres = [(d, (d.box[0] + d.box[2]) / 2, (d.box[1] + d.box[3]) / 2) for d in detect(picture)]
    return Counter(Thing(d.name, d.color, int(y // cell) * 4 + int(x // cell)) for d, x, y in centres)


@pytest.mark.parametrize("size", [64, 96, 128, 256])
def test_every_shape_color_and_cell_in_the_densest_scenes(size):
    scenes = [
        tuple(Thing(*KINDS[(cell * 7 + turn) % len(KINDS)], cell) for cell in range(CELLS))
        for turn in range(len(KINDS) if size == 64 else 4)
    ]
    assert all(
        found(picture) == Counter(scene) for scene, picture in zip(scenes, render_batch(scenes, size), strict=True)
    )


def test_neighbours_of_one_color_stay_apart():
    scene = tuple(Thing("square", "green", cell) for cell in range(CELLS))
    assert found(render(scene)) == Counter(scene)


def test_clean_clutter_is_read_exactly():
    rng = Random(0)
    scenes = [clutter(rng, rng.randrange(17)) for _ in range(300)]
    exact = [found(picture) == Counter(scene) for scene, picture in zip(scenes, render_batch(scenes), strict=True)]
    assert sum(exact) / len(exact) >= 0.995


def test_a_mild_blur_and_noise_are_forgiven():
    rng = Random(1)
    scenes = [clutter(rng, rng.randrange(9)) for _ in range(300)]
    pictures = torch.from_numpy(gaussian_filter(render_batch(scenes).numpy(), (0, 0, 0.5, 0.5)))
    pictures = pictures + 0.03 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    exact = [found(picture) == Counter(scene) for scene, picture in zip(scenes, pictures, strict=True)]
    assert sum(exact) / len(exact) >= 0.97


def verdicts_and_truths(pairs, size):
    verdicts = ShapesJudge().verdicts([e for e, _ in pairs], render_batch([s for _, s in pairs], size))
    return zip(verdicts.tolist(), [(e, true_answer(e, s)) for e, s in pairs], strict=True)


@pytest.mark.parametrize("size", [64, 128])
def test_verdicts_agree_with_the_truth(size):
    rng = Random(size)
    pairs = []
    for _ in range(150):
        example = draw_example(rng)
        pairs += [(example, scene_for(example, rng, 2)), (example, near_miss(example, rng, 2))]
        pairs += [(example, clutter(rng, rng.randrange(9)))]
    for right, (example, answer) in verdicts_and_truths(pairs, size):
        yes = answer == example.answer or (example.category == "position" and example.answer in answer.split())
        assert right == yes or (yes and example.category in ("colors", "color_attr"))  # two of one color


PARTS = {
    "top half": (slice(0, 6), slice(0, 12)),
    "bottom half": (slice(6, 12), slice(0, 12)),
    "left half": (slice(0, 12), slice(0, 6)),
    "right third": (slice(0, 12), slice(8, 12)),
    "top quarter": (slice(0, 3), slice(0, 12)),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_half_formed_shapes_are_no_shapes(shape, part):
    if (shape, part) == ("triangle", "top quarter"):
        return  # What is left is nearly all of it: a blurred triangle looks like this.
    picture = render((Thing(shape, "purple", 0),))
    picture[:, 2:14, 2:14][(slice(None), *PARTS[part])] = BACKGROUND
    assert detect(picture) == []


def test_blank_noise_and_nonsense_hold_nothing():
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    for picture in (
        torch.zeros(3, 64, 64),
        torch.full((3, 64, 64), BACKGROUND),
        noise,
        torch.full((3, 64, 64), torch.nan),
        torch.full((3, 64, 64), torch.inf),
    ):
        assert detect(picture) == []


def test_specks_and_colors_of_no_shape_are_dropped():
    picture = render((Thing("circle", "red", 5),))
    picture[:, 2:5, 2:5] = 0.1
    picture[:, 60:62, 60:62] = torch.tensor(COLORS["blue"])[:, None, None]
    picture[:, 50:62, 2:14] = 0.5
    assert found(picture) == Counter([Thing("circle", "red", 5)])


def test_two_colors_in_one_shape_are_no_shape():
    picture = render((Thing("circle", "red", 5),))
    picture[:, :, 24:] = render((Thing("circle", "blue", 5),))[:, :, 24:]
    assert detect(picture) == []


def test_verdicts_by_hand():
    scene = (Thing("circle", "red", 0), Thing("square", "blue", 1), Thing("circle", "green", 12))
    asked = [counting("circle", 2), counting("circle", 1), counting("square", 1), colors("square", "red")]
    asked += [colors("square", "blue"), position("square", "right of", "circle")]
    verdicts = ShapesJudge().verdicts(asked, render(scene).expand(6, -1, -1, -1))
    assert verdicts.dtype == torch.bool
    # "Right of the circle" takes one circle for granted, and there are two.
    assert verdicts.tolist() == [True, False, True, False, True, False]
    assert ShapesJudge().verdicts([], torch.zeros(0, 3, 64, 64)).shape == (0,)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 96), "square"),
        ((1, 1, 64, 64), "square"),
        ((1, 3, 48, 48), "multiple of 32"),
        ((2, 3, 64, 64), "2 for 1"),
    ],
)
def test_wrong_pictures_are_refused(shape, message):
    with pytest.raises(UserError, match=message):
        ShapesJudge().verdicts([counting("ring", 1)], torch.zeros(shape))


def test_the_exam_is_balanced_repeatable_and_true():
    judge = ShapesJudge()
    examples, pictures = judge.understanding_set(240, seed=2)
    again, same = judge.understanding_set(240, seed=2)
    assert examples == again
    assert torch.equal(pictures, same)
    assert pictures.shape == (240, 3, 64, 64)
    assert Counter(e.category for e in examples) == dict.fromkeys(CATEGORIES, 40)
    verdicts = judge.verdicts(examples, pictures)
    for category in CATEGORIES:
        share = sum(v for v, e in zip(verdicts.tolist(), examples, strict=True) if e.category == category) / 40
        assert 0.5 <= share <= 0.7
    assert judge.understanding_set(6, seed=3)[0] != [replace(e) for e in examples[:6]]


def test_exam_prompts_do_not_tell_the_answer():
    examples, _ = ShapesJudge().understanding_set(600)
    singles = [(e.objects[0].name, e.answer) for e in examples if e.category == "single_object"]
    truths = {shape: [answer == shape for asked, answer in singles if asked == shape] for shape in ("diamond", "ring")}
    assert all(0.3 < sum(truth) / len(truth) < 0.7 for truth in truths.values())


def test_the_exam_has_the_asked_size():
    assert ShapesJudge(size=96).understanding_set(4)[1].shape == (4, 3, 96, 96)
    with pytest.raises(UserError, match="multiple of 32"):
        ShapesJudge(size=50)


def test_references_show_what_is_asked_for_and_are_always_the_same() -> None:
    judge, examples = ShapesJudge(), ShapesPrompts().held_out(120)
    pictures = judge.references(examples)
    assert judge.verdicts(examples, pictures).all()
    assert torch.equal(judge.references(examples[60:]), pictures[60:])
