import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from unirl.prompts import NUMBERS, article, keywords, normalize_word, plural
from unirl.prompts.vocabulary import OBJECTS, many
from unirl.prompts.words import STOP_WORDS

TEXT = st.text(alphabet="abcdefghilnorstuvxyz0123 '.,-", max_size=40)
PLURALS = {
    **{"knife": "knives", "person": "people", "sheep": "sheep", "bus": "buses", "wine glass": "wine glasses"},
    **{"toothbrush": "toothbrushes", "sandwich": "sandwiches", "fox": "foxes", "strawberry": "strawberries"},
    **{"monkey": "monkeys", "cookie": "cookies", "tie": "ties", "horse": "horses", "vase": "vases"},
    **{"computer mouse": "computer mice", "tomato": "tomatoes", "tv": "tvs", "scarf": "scarves"},
    **{"calf": "calves", "die": "dice", "volcano": "volcanoes", "snowman": "snowmen"},
}


def test_plurals_and_their_keywords() -> None:
    assert {noun: plural(noun) for noun in PLURALS} == PLURALS
    assert [noun for noun in PLURALS if keywords(PLURALS[noun]) != keywords(noun)] == []


def test_every_object_and_its_plural_have_the_same_keywords() -> None:
    assert [name for name in OBJECTS if not keywords(many(name)) == keywords(name) != []] == []


def test_misspelled_plurals_of_geneval_are_normalized() -> None:
    misspelled = {"benchs": "bench", "knifes": "knife", "persons": "person", "sheeps": "sheep"}
    assert [word for word, noun in misspelled.items() if normalize_word(word) != normalize_word(noun)] == []


def test_words_that_only_look_like_plurals_stay() -> None:
    words = ["glass", "bus", "tennis", "is", "this", "us", "gas", "lens", "canvas", "yes", "we"]
    assert [normalize_word(word) for word in words] == words


def test_inflect_is_imported_only_when_a_word_is_inflected() -> None:
    code = "import sys, unirl.prompts, unirl.rewards; sys.exit('inflect' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_different_objects_have_different_keywords() -> None:
    assert len({tuple(keywords(name)) for name in OBJECTS}) == len(OBJECTS)


def test_the_article_follows_the_sound() -> None:
    expected = {
        **{"apple": "an apple", "unicycle": "a unicycle", "ukulele": "a ukulele", "umbrella": "an umbrella"},
        **{"hourglass": "an hourglass", "horse": "a horse", "orange cup": "an orange cup"},
    }
    assert {phrase: article(phrase) for phrase in expected} == expected


def test_digits_and_number_words_are_the_same_up_to_twenty() -> None:
    assert [normalize_word(str(value)) for value in range(21)] == list(NUMBERS)
    assert [normalize_word(word) for word in NUMBERS] == list(NUMBERS)
    assert normalize_word("21") == "21"


def test_keywords_carry_meaning() -> None:
    assert keywords("The cup is left of the lamp") == ["cup", "left", "lamp"]
    assert keywords("none") == ["none"]
    assert keywords("zero cups on it") == ["zero", "cup", "on"]
    assert keywords("a pair of scissors") == keywords("Scissors")
    assert keywords("the dog's traffic-light") == ["dog", "traffic", "light"]
    assert keywords("") == keywords("There is a the.") == []


@given(TEXT)
def test_keywords_of_keywords_are_the_same(text: str) -> None:
    words = keywords(text)
    assert keywords(" ".join(words)) == words
    assert not set(words) & STOP_WORDS


@given(TEXT)
def test_case_and_surrounding_punctuation_do_not_matter(text: str) -> None:
    assert keywords(f"  ({text.upper()}!) ") == keywords(text)
