import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unirl.errors import UserError
from unirl.prompts.geneval import GenEval
from unirl.rewards.attribute.reward import Attribute
from unirl.rewards.keyword import Keyword
from unirl.types import Answers, Example, Images, Item
from unirl_shapes.examples import all_examples

CUP_AND_DOG = (Item("cup", 1, "red"), Item("dog", 1, "blue"))
GLASS_AND_PHONE = (Item("cell phone"), Item("wine glass", relation=("left of", 0)))
WORDS = st.sampled_from(
    [
        *("the", "a", "cup", "dog", "cell", "phone", "wine", "glass", "red", "blue", "grey", "two", "3", "four"),
        *("left", "of", "above", "is", "and", ",", "zero", "one", "many"),
    ]
)


def score(truth: str, *texts: str, objects: tuple[Item, ...] = (), reward: type = Attribute) -> list[float]:
    examples = [Example("a photo", "what?", truth, "colors", objects)] * len(texts)
    ids = torch.zeros(len(texts), 1, dtype=torch.long)
    scores = reward().score(examples, Images(ids), Answers(ids, ids.bool(), list(texts)))
    assert scores.dtype == torch.float32
    return scores.tolist()


def test_swapped_colors_are_wrong_here_and_right_to_keyword_matching() -> None:
    truth, swapped = "The cup is red and the dog is blue", "The cup is blue and the dog is red"
    assert score(truth, truth, swapped, objects=CUP_AND_DOG) == [1, 0]
    assert score(truth, truth, swapped, reward=Keyword) == [1, 1]
    assert score(truth, "The cup is red and the dog is red", "a red cup", "red", objects=CUP_AND_DOG) == [0.5] * 3


def test_clauses_come_in_any_order_and_dress() -> None:
    truth = "The cup is red and the dog is blue"
    same = (
        "a blue dog and a red cup",
        "The dog's color is blue, the cup is crimson.",
        "RED CUP; NAVY DOGS",
        "red and blue",
    )
    assert score(truth, *same, objects=CUP_AND_DOG) == [1] * len(same)
    assert score("red and blue", truth, "blue and red", "blue dog and red cup", objects=CUP_AND_DOG) == [1, 0, 1]


def test_numbers() -> None:
    four = (Item("bowl", 4),)
    assert score("four bowls", "4 bowls", "There are four bowls", "four", "bowls: 4", objects=four) == [1] * 4
    assert score("four bowls", "three bowls", "two chairs", "four chairs", "bowls", "", objects=four) == [0] * 5
    assert score("zero cups", "no cups", "0 cups", "none", "one cup") == [1, 1, 0, 0]


def test_listing_numbers_and_colors_pays_nothing_and_things_cost_nothing() -> None:
    assert score("ring", "circle, square and ring", "circle, square or ring", objects=(Item("ring"),)) == [1, 0]
    assert score("four bowls", "one two three four bowls", "three bowls and four bowls") == [0, 0]
    assert score("red", "red and blue", "red or blue", "red, red", objects=(Item("cup", 1, "red"),)) == [0, 0, 1]


def test_places_seen_from_either_side() -> None:
    truth = "The wine glass is left of the cell phone"
    same = ("a cell phone right of a wine glass", "left of the cell phone", "left", "to the left and above")
    assert score(truth, *same, objects=GLASS_AND_PHONE) == [1] * 4
    wrong = (
        "The cell phone is left of the wine glass",
        "right",
        "above",
        "left and right",
        "a wine glass, a cell phone",
    )
    assert score(truth, *wrong, objects=GLASS_AND_PHONE) == [0] * 5
    assert (
        score("The cup is above the dog", "the dog is beneath the cup", "cup on top of dog", "cup over dog") == [1] * 3
    )


def test_things_are_told_apart_and_colors_go_with_their_own() -> None:
    assert score("There is a cup and a dog", "a dog and a cup", "cup", "a dog and a cat", "cats") == [1, 0.5, 0.5, 0]
    truth = "The red cup is left of the blue dog"
    assert score(truth, truth, "the blue cup is left of the red dog", "the red cup is right of the blue dog") == [
        pytest.approx(value) for value in (1, 1 / 3, 2 / 3)
    ]


CUP = (Item("cup", 1, "red"),)
FOX = (Item("fox"),)
CAT_AND_DOG = (Item("cat"), Item("dog", relation=("left of", 0)))


@pytest.mark.parametrize(
    "text",
    [
        *("blue or red cup", "a blue or green or red cup", "The cup is red, maybe blue", "The cup is not red"),
        *("The cup isn't red", "no cup is red", "never red"),
    ],
)
def test_hedging_and_denying_pay_nothing(text: str) -> None:
    assert score("red", text, objects=CUP) == [0]


@pytest.mark.parametrize(
    "text",
    ["three or two cups", "two or three cups", "There aren't two cups", "more than two cups", "at least two cups"],
)
def test_numbers_left_open_pay_nothing(text: str) -> None:
    assert score("two cups", text, objects=(Item("cup", 2),)) == [0]


@pytest.mark.parametrize("text", ["a red fox", "one fox", "The fox is to the left of the tree", "I see a big fox"])
def test_saying_more_than_was_asked_for_costs_nothing(text: str) -> None:
    assert score("fox", text, objects=FOX) == [1]
    assert score("fox", "no fox", "a dog", objects=FOX) == [0, 0]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("the dog is sitting to the left of the cat", 1),
        ("the dog is slightly to the left of the cat", 1),
        ("the big dog is left of the black cat", 1),
        ("to the left of the cat is the dog", 1),
        ("to the right of the dog is the cat", 1),
        ("to the left of the dog is the cat", 0),
        ("there is no dog to the left of the cat", 0),
        ("the cat is left of the dog", 0),
    ],
)
def test_places_in_other_words(text: str, right: float) -> None:
    assert score("The dog is left of the cat", text, objects=CAT_AND_DOG) == [right]


def test_what_describes_a_thing_is_not_the_thing() -> None:
    assert score("red", "They are red", "I think it is red", "the big cup is red", objects=CUP) == [1, 1, 1]
    assert score("The cup is red and the dog is blue", "a red shiny cup and a blue dog", objects=CUP_AND_DOG) == [1]


@pytest.mark.parametrize("category", GenEval.categories)
def test_right_answers_are_right(category: str) -> None:
    reward, prompts = Attribute(), GenEval({category: 1.0})
    examples = [prompts.sample(0, i) for i in range(100)] + list(all_examples(category))[:200]
    ids = torch.zeros(len(examples), 1, dtype=torch.long)
    assert reward.score(examples, Images(ids), Answers(ids, ids.bool(), [e.answer for e in examples])).min() == 1
    others = [e.answer for e in examples[1:] + examples[:1]]
    mixed = reward.score(examples, Images(ids), Answers(ids, ids.bool(), others))
    assert mixed.mean() < 0.6


@given(st.lists(WORDS, max_size=12))
def test_any_answer_has_a_score(words: list[str]) -> None:
    for objects in ((), CUP_AND_DOG, GLASS_AND_PHONE):
        (value,) = score("The wine glass is left of the cell phone", " ".join(words), objects=objects)
        assert 0 <= value <= 1


def test_a_truth_that_states_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"answer 'Is it\?' of the prompt 'a photo' states nothing"):
        score("Is it?", "a cup")
