from collections import Counter
from dataclasses import replace
from random import Random

import pytest
import torch
from scipy.ndimage import gaussian_filter

from unirl import Example, Item, UserError
from unirl_shapes.detector import detect
from unirl_shapes.examples import colors, counting, is_held_out, position, sample_example, true_answer
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.render import BACKGROUND, render, render_batch
from unirl_shapes.scenes import SceneObject, near_miss, random_scene, scene_for
from unirl_shapes.vocabulary import ALL_CATEGORIES, CATEGORIES, CELLS, COLORS, SHAPES

KINDS = [(shape, color) for shape in SHAPES for color in COLORS]


def detected(image):
    cell = image.shape[-1] / 4
    centers = [(d, (d.box[0] + d.box[2]) / 2, (d.box[1] + d.box[3]) / 2) for d in detect(image)]
    return Counter(SceneObject(d.name, d.color, int(y // cell) * 4 + int(x // cell)) for d, x, y in centers)


@pytest.mark.parametrize("size", [64, 96, 128, 256])
def test_all_shapes_colors_and_cells_in_full_scenes(size):
    scenes = [
        tuple(SceneObject(*KINDS[(cell * 7 + offset) % len(KINDS)], cell) for cell in range(CELLS))
        for offset in range(len(KINDS) if size == 64 else 4)
    ]
    assert all(
        detected(image) == Counter(scene) for scene, image in zip(scenes, render_batch(scenes, size), strict=True)
    )


def test_neighbors_of_the_same_color_are_separated():
    scene = tuple(SceneObject("square", "green", cell) for cell in range(CELLS))
    assert detected(render(scene)) == Counter(scene)


def test_random_scenes_are_detected_exactly():
    rng = Random(0)
    scenes = [random_scene(rng, rng.randrange(17)) for _ in range(300)]
    exact = [detected(image) == Counter(scene) for scene, image in zip(scenes, render_batch(scenes), strict=True)]
    assert sum(exact) / len(exact) >= 0.995


def test_mild_blur_and_noise_change_little():
    rng = Random(1)
    scenes = [random_scene(rng, rng.randrange(9)) for _ in range(300)]
    images = torch.from_numpy(gaussian_filter(render_batch(scenes).numpy(), (0, 0, 0.5, 0.5)))
    images = images + 0.03 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    exact = [detected(image) == Counter(scene) for scene, image in zip(scenes, images, strict=True)]
    assert sum(exact) / len(exact) >= 0.97


def verdicts_and_true_answers(pairs, size):
    verdicts = ShapesJudge().verdicts([e for e, _ in pairs], render_batch([s for _, s in pairs], size))
    return zip(verdicts.tolist(), [(e, true_answer(e, s)) for e, s in pairs], strict=True)


@pytest.mark.parametrize("size", [64, 128])
def test_verdicts_agree_with_true_answers(size):
    rng = Random(size)
    pairs = []
    for _ in range(150):
        example = sample_example(rng)
        pairs += [(example, scene_for(example, rng, 2)), (example, near_miss(example, rng, 2))]
        pairs += [(example, random_scene(rng, rng.randrange(9)))]
    for correct, (example, answer) in verdicts_and_true_answers(pairs, size):
        expected = answer == example.answer or (example.category == "position" and example.answer in answer.split())
        assert correct == expected or (expected and example.category in ("colors", "color_attr"))  # two of one color


PARTS = {
    "top half": (slice(0, 6), slice(0, 12)),
    "bottom half": (slice(6, 12), slice(0, 12)),
    "left half": (slice(0, 12), slice(0, 6)),
    "right third": (slice(0, 12), slice(8, 12)),
    "top quarter": (slice(0, 3), slice(0, 12)),
}


def test_incomplete_shapes_are_not_detected():
    cases = {(shape, part) for shape in SHAPES for part in PARTS}
    cases -= {("triangle", "top quarter")}  # nearly complete, and like a blurred triangle
    found = {}
    for shape, part in cases:
        image = render((SceneObject(shape, "purple", 0),))
        image[:, 2:14, 2:14][(slice(None), *PARTS[part])] = BACKGROUND
        found[shape, part] = detect(image)
    assert [case for case, detections in found.items() if detections] == []


def test_nothing_is_detected_in_blank_images_noise_and_nan():
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    for image in (
        torch.zeros(3, 64, 64),
        torch.full((3, 64, 64), BACKGROUND),
        noise,
        torch.full((3, 64, 64), torch.nan),
        torch.full((3, 64, 64), torch.inf),
    ):
        assert detect(image) == []


def test_small_regions_and_other_colors_are_ignored():
    image = render((SceneObject("circle", "red", 5),))
    image[:, 2:5, 2:5] = 0.1
    image[:, 60:62, 60:62] = torch.tensor(COLORS["blue"])[:, None, None]
    image[:, 50:62, 2:14] = 0.5
    assert detected(image) == Counter([SceneObject("circle", "red", 5)])


def test_a_shape_of_two_colors_is_not_detected():
    image = render((SceneObject("circle", "red", 5),))
    image[:, :, 24:] = render((SceneObject("circle", "blue", 5),))[:, :, 24:]
    assert detect(image) == []


def test_verdicts_by_hand():
    scene = (SceneObject("circle", "red", 0), SceneObject("square", "blue", 1), SceneObject("circle", "green", 12))
    examples = [counting("circle", 2), counting("circle", 1), counting("square", 1), colors("square", "red")]
    examples += [colors("square", "blue"), position("square", "right of", "circle")]
    verdicts = ShapesJudge().verdicts(examples, render(scene).expand(6, -1, -1, -1))
    assert verdicts.dtype == torch.bool
    # "Right of the circle" requires a single circle, and there are two.
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
def test_images_of_other_shapes_are_refused(shape, message):
    with pytest.raises(UserError, match=message):
        ShapesJudge().verdicts([counting("ring", 1)], torch.zeros(shape))


def test_the_understanding_set_is_balanced_repeatable_and_true():
    judge = ShapesJudge()
    examples, images = judge.understanding_set(240, seed=2)
    same_examples, same_images = judge.understanding_set(240, seed=2)
    assert examples == same_examples
    assert torch.equal(images, same_images)
    assert images.shape == (240, 3, 64, 64)
    assert Counter(e.category for e in examples) == dict.fromkeys(CATEGORIES, 40)
    verdicts = judge.verdicts(examples, images)
    for category in CATEGORIES:
        share = sum(v for v, e in zip(verdicts.tolist(), examples, strict=True) if e.category == category) / 40
        assert 0.5 <= share <= 0.7
    assert judge.understanding_set(6, seed=3)[0] != [replace(e) for e in examples[:6]]


def test_prompts_of_the_understanding_set_do_not_tell_the_answer():
    examples, _ = ShapesJudge().understanding_set(600)
    singles = [(e.objects[0].name, e.answer) for e in examples if e.category == "single_object"]
    present = {shape: [answer == shape for name, answer in singles if name == shape] for shape in ("diamond", "ring")}
    assert all(0.3 < sum(values) / len(values) < 0.7 for values in present.values())


def test_the_understanding_set_has_the_size_of_the_judge():
    assert ShapesJudge(size=96).understanding_set(4)[1].shape == (4, 3, 96, 96)
    with pytest.raises(UserError, match="multiple of 32"):
        ShapesJudge(size=50)


def test_references_are_correct_and_always_the_same() -> None:
    judge, examples = ShapesJudge(), ShapesPrompts().held_out(120)
    images = judge.references(examples)
    assert judge.verdicts(examples, images).all()
    assert torch.equal(judge.references(examples[60:]), images[60:])


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        ((), "it has no 'objects'"),
        ((Item("dog"),), "no 'dog'"),
        ((Item("ring", color="pink"),), "'pink ring'"),
    ],
)
def test_it_refuses_what_it_cannot_judge(objects, problem):
    """Without objects every image would be correct, and with unknown ones none."""
    example = Example("a photo", "what is it ?", "a ring", "colors", objects)
    for ask in (
        lambda: ShapesJudge().verdicts([example], torch.zeros(1, 3, 64, 64)),
        lambda: ShapesJudge().references([example]),
    ):
        with pytest.raises(UserError, match=problem):
            ask()


def test_every_example_of_the_world_can_be_judged():
    judge = ShapesJudge()
    for example in ShapesPrompts(dict.fromkeys(ALL_CATEGORIES, 1.0)).held_out(200):
        judge.check_example(example)


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        ((), "no 'objects'"),
        ((Item("dog"),), "knows no 'dog'"),
        ((Item("circle", 50),), "its 50 objects do not fit in an image"),
        ((Item("circle"), Item("ring", relation=("behind", 0))), "there is no relation 'behind'"),
        ((Item("circle", color="red"), Item("circle", color="blue")), "can make no correct image of it"),
    ],
)
def test_it_says_which_examples_it_cannot_judge(objects, problem):
    with pytest.raises(UserError, match=problem):
        ShapesJudge().check_example(Example("a photo", "what is it ?", "a ring", "colors", objects))


def test_a_full_image_has_a_reference():
    full = [
        Example(f"{count} circles", "what ?", "a ring", objects=(Item("circle", count),)) for count in range(13, 17)
    ]
    full.append(Example("all", "what ?", "a ring", objects=tuple(map(Item, SHAPES))))
    judge = ShapesJudge()
    assert judge.verdicts(full, judge.references(full)).all()
    for example in full:
        judge.check_example(example)


def test_settings_can_be_chosen_on_training_questions() -> None:
    examples, pixels = ShapesJudge(split="train").understanding_set(60)
    assert not any(is_held_out(example) for example in examples)
    assert len(pixels) == 60
    assert all(is_held_out(example) for example in ShapesJudge().understanding_set(60)[0])
