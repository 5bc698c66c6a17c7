import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unirl import UserError
from unirl.prompts import GenEval
from unirl.rewards import Attribute, Keyword
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


def test_swapped_colors_are_wrong_unlike_in_keyword_matching() -> None:
    truth, swapped = "The cup is red and the dog is blue", "The cup is blue and the dog is red"
    assert score(truth, truth, swapped, objects=CUP_AND_DOG) == [1, 0]
    assert score(truth, truth, swapped, reward=Keyword) == [1, 1]
    assert score(truth, "The cup is red and the dog is red", "a red cup", "red", objects=CUP_AND_DOG) == [0.5] * 3


def test_order_and_form_of_clauses_make_no_difference() -> None:
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


def test_listing_numbers_and_colors_gains_nothing_and_other_objects_cost_nothing() -> None:
    assert score("ring", "circle, square and ring", "circle, square or ring", objects=(Item("ring"),)) == [1, 0]
    assert score("four bowls", "one two three four bowls", "three bowls and four bowls") == [0, 0]
    assert score("red", "red and blue", "red or blue", "red, red", objects=(Item("cup", 1, "red"),)) == [0, 0, 1]


def test_relations_are_the_same_from_both_sides() -> None:
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


def test_attributes_are_bound_to_objects() -> None:
    assert score("There is a cup and a dog", "a dog and a cup", "cup", "a dog and a cat", "cats") == [1, 0.5, 0.5, 0]
    truth = "The red cup is left of the blue dog"
    assert score(truth, truth, "the blue cup is left of the red dog", "the red cup is right of the blue dog") == [
        pytest.approx(value) for value in (1, 1 / 3, 2 / 3)
    ]


CUP = (Item("cup", 1, "red"),)
FOX = (Item("fox"),)
CAT_AND_DOG = (Item("cat"), Item("dog", relation=("left of", 0)))


def test_hedging_and_negating_gain_nothing() -> None:
    texts = [
        *("blue or red cup", "a blue or green or red cup", "The cup is red, maybe blue", "The cup is not red"),
        *("The cup isn't red", "no cup is red", "never red"),
    ]
    assert {text: score("red", text, objects=CUP) for text in texts} == {text: [0] for text in texts}


def test_bounds_and_alternative_numbers_gain_nothing() -> None:
    texts = [
        "three or two cups",
        "two or three cups",
        "There aren't two cups",
        "more than two cups",
        "at least two cups",
    ]
    assert {text: score("two cups", text, objects=(Item("cup", 2),)) for text in texts} == {text: [0] for text in texts}


def test_stating_more_costs_nothing() -> None:
    texts = ["a red fox", "one fox", "The fox is to the left of the tree", "I see a big fox"]
    assert {text: score("fox", text, objects=FOX) for text in texts} == {text: [1] for text in texts}
    assert score("fox", "no fox", "a dog", objects=FOX) == [0, 0]


def test_relations_in_other_words() -> None:
    cases = [
        ("the dog is sitting to the left of the cat", 1),
        ("the dog is slightly to the left of the cat", 1),
        ("the big dog is left of the black cat", 1),
        ("to the left of the cat is the dog", 1),
        ("to the right of the dog is the cat", 1),
        ("to the left of the dog is the cat", 0),
        ("there is no dog to the left of the cat", 0),
        ("the cat is left of the dog", 0),
    ]
    assert {(text, right): score("The dog is left of the cat", text, objects=CAT_AND_DOG) for text, right in cases} == {
        (text, right): [right] for text, right in cases
    }


def test_pronouns_and_adjectives() -> None:
    assert score("red", "They are red", "I think it is red", "the big cup is red", objects=CUP) == [1, 1, 1]
    assert score("The cup is red and the dog is blue", "a red shiny cup and a blue dog", objects=CUP_AND_DOG) == [1]


def test_right_answers_have_the_full_score() -> None:
    for category in GenEval.categories:
        reward, prompts = Attribute(), GenEval({category: 1.0})
        examples = [prompts.sample(0, i) for i in range(100)] + list(all_examples(category))[:200]
        ids = torch.zeros(len(examples), 1, dtype=torch.long)
        scores = reward.score(examples, Images(ids), Answers(ids, ids.bool(), [e.answer for e in examples]))
        assert [e.answer for e, s in zip(examples, scores.tolist(), strict=True) if s != 1] == []
        others = [e.answer for e in examples[1:] + examples[:1]]
        assert reward.score(examples, Images(ids), Answers(ids, ids.bool(), others)).mean() < 0.6


@given(st.lists(WORDS, max_size=12))
def test_any_answer_has_a_score(words: list[str]) -> None:
    for objects in ((), CUP_AND_DOG, GLASS_AND_PHONE):
        (value,) = score("The wine glass is left of the cell phone", " ".join(words), objects=objects)
        assert 0 <= value <= 1


def test_a_right_answer_without_facts_is_refused() -> None:
    with pytest.raises(UserError, match=r"prompt 'a photo': the answer 'Is it\?' states no fact"):
        score("Is it?", "a cup")
