import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unirl import UserError
from unirl.prompts import GenEval
from unirl.rewards import Keyword
from unirl.rewards.keyword import count_matches
from unirl.types import Answers, Example, Images

WORDS = st.lists(st.sampled_from(["red", "blue", "cup", "dog"]), max_size=6)


def score(reward: Keyword, truth: str, *texts: str) -> list[float]:
    size = len(texts)
    examples = [Example("a photo", "what?", truth, "single_object")] * size
    ids = torch.zeros(size, 1, dtype=torch.long)
    scores = reward.score(examples, Images(ids), Answers(ids, ids.bool(), list(texts)))
    assert scores.shape == (size,)
    assert scores.dtype == torch.float32
    return scores.tolist()


def test_the_example_of_the_paper() -> None:
    reward = Keyword(normalize=False)
    assert score(reward, "four bowls", "two chairs", "three bowls", "four bowls") == [0, 1, 2]


def test_normalized_scores_are_shares() -> None:
    assert score(Keyword(), "four bowls", "two chairs", "three bowls", "4 Bowls.") == [0, 0.5, 1]


def test_keywords_are_whole_words() -> None:
    assert score(Keyword(), "car", "carpet", "scar", "a car!") == [0, 0, 1]


def test_each_keyword_is_counted_at_most_once() -> None:
    reward = Keyword(normalize=False)
    assert score(reward, "The cup is red and the dog is red", "red", "red red red", "red cup, red dog") == [1, 2, 4]
    assert score(reward, "red cup", "red red red cup cup") == [2]


def test_names_of_several_words_count_word_by_word() -> None:
    assert score(Keyword(normalize=False), "two traffic lights", "two lights", "two traffic light") == [2, 3]


def test_order_counts_only_with_ordered() -> None:
    swapped = "The cup is blue and the dog is red"
    assert score(Keyword(), "The cup is red and the dog is blue", swapped) == [1]
    assert score(Keyword(ordered=True), "The cup is red and the dog is blue", swapped) == [0.5]
    assert score(Keyword(ordered=True), "red and blue", "blue and red", "blue, red, blue") == [0.5, 1]


def test_pair_is_no_keyword_and_none_and_relations_are() -> None:
    assert score(Keyword(), "two pairs of scissors", "two scissors") == [1]
    assert score(Keyword(), "none", "one", "None.") == [0, 1]
    assert score(Keyword(normalize=False), "The cup is left of the dog", "The cup is right of the dog") == [2]


def test_a_right_answer_without_keywords_is_refused() -> None:
    for answer in ("", "...", "There is a"):
        with pytest.raises(UserError, match="a photo"):
            score(Keyword(), answer, "anything")


def test_a_wrong_number_of_answers_is_not_broadcast() -> None:
    ids = torch.zeros(2, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="argument"):
        Keyword().score([Example("p", "q", "cup", "c")], Images(ids), Answers(ids, ids.bool(), ["cup", "cup"]))


def test_name_and_weight() -> None:
    assert Keyword().name == "keyword"
    assert Keyword(weight=0.5).weight == 0.5


def test_right_answers_have_the_full_score() -> None:
    for index in range(200):
        answer = GenEval().sample(0, index).answer
        assert score(Keyword(), answer, answer) == score(Keyword(ordered=True), answer, answer.upper()) == [1]


@given(WORDS, WORDS)
def test_ordered_matches_are_the_longest_common_subsequence(target: list[str], predicted: list[str]) -> None:
    def subsequences(words: list[str]) -> set[tuple[str, ...]]:
        return {chosen for size in range(len(words) + 1) for chosen in itertools.combinations(words, size)}

    longest = max(map(len, subsequences(target) & subsequences(predicted)))
    assert count_matches(target, predicted, ordered=True) == longest <= count_matches(target, predicted) <= len(target)
    assert count_matches(target, predicted) == count_matches(target, predicted[::-1])
