import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unirl.errors import UserError
from unirl.prompts.geneval import GenEval
from unirl.rewards.keyword import Keyword, hits
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


def test_the_papers_own_example() -> None:
    reward = Keyword(normalize=False)
    assert score(reward, "four bowls", "two chairs", "three bowls", "four bowls") == [0, 1, 2]


def test_normalized_scores_are_shares() -> None:
    assert score(Keyword(), "four bowls", "two chairs", "three bowls", "4 Bowls.") == [0, 0.5, 1]


def test_whole_words_only() -> None:
    assert score(Keyword(), "car", "carpet", "scar", "a car!") == [0, 0, 1]


def test_each_keyword_is_found_at_most_once() -> None:
    reward = Keyword(normalize=False)
    assert score(reward, "The cup is red and the dog is red", "red", "red red red", "red cup, red dog") == [1, 2, 4]
    assert score(reward, "red cup", "red red red cup cup") == [2]


def test_names_of_several_words_count_word_by_word() -> None:
    assert score(Keyword(normalize=False), "two traffic lights", "two lights", "two traffic light") == [2, 3]


def test_order_counts_only_when_asked_for() -> None:
    swapped = "The cup is blue and the dog is red"
    assert score(Keyword(), "The cup is red and the dog is blue", swapped) == [1]
    assert score(Keyword(ordered=True), "The cup is red and the dog is blue", swapped) == [0.5]
    assert score(Keyword(ordered=True), "red and blue", "blue and red", "blue, red, blue") == [0.5, 1]


def test_a_pair_is_no_keyword_but_none_and_relations_are() -> None:
    assert score(Keyword(), "two pairs of scissors", "two scissors") == [1]
    assert score(Keyword(), "none", "one", "None.") == [0, 1]
    assert score(Keyword(normalize=False), "The cup is left of the dog", "The cup is right of the dog") == [2]


@pytest.mark.parametrize("truth", ["", "...", "There is a"])
def test_a_truth_without_keywords_names_the_example(truth: str) -> None:
    with pytest.raises(UserError, match="a photo"):
        score(Keyword(), truth, "anything")


def test_a_wrong_number_of_answers_is_not_broadcast() -> None:
    ids = torch.zeros(2, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="argument"):
        Keyword().score([Example("p", "q", "cup", "c")], Images(ids), Answers(ids, ids.bool(), ["cup", "cup"]))


def test_name_and_weight() -> None:
    assert Keyword().name == "keyword"
    assert Keyword(weight=0.5).weight == 0.5


def test_every_drawn_answer_gives_itself_full_marks() -> None:
    for index in range(200):
        answer = GenEval().sample(0, index).answer
        assert score(Keyword(), answer, answer) == score(Keyword(ordered=True), answer, answer.upper()) == [1]


@given(WORDS, WORDS)
def test_ordered_hits_are_the_longest_common_subsequence(wanted: list[str], got: list[str]) -> None:
    def subsequences(words: list[str]) -> set[tuple[str, ...]]:
        return {chosen for size in range(len(words) + 1) for chosen in itertools.combinations(words, size)}

    longest = max(map(len, subsequences(wanted) & subsequences(got)))
    assert hits(wanted, got, ordered=True) == longest <= hits(wanted, got) <= len(wanted)
    assert hits(wanted, got) == hits(wanted, got[::-1])
