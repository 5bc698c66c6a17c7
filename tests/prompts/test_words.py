import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirl.prompts.vocabulary import OBJECTS, many
from unirl.prompts.words import NUMBERS, STOP_WORDS, article, keywords, normalize, plural

TEXT = st.text(alphabet="abcdefghilnorstuvxyz0123 '.,-", max_size=40)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("knife", "knives"),
        ("person", "people"),
        ("sheep", "sheep"),
        ("bus", "buses"),
        ("wine glass", "wine glasses"),
        ("toothbrush", "toothbrushes"),
        ("sandwich", "sandwiches"),
        ("fox", "foxes"),
        ("strawberry", "strawberries"),
        ("monkey", "monkeys"),
        ("cookie", "cookies"),
        ("tie", "ties"),
        ("horse", "horses"),
        ("vase", "vases"),
        ("computer mouse", "computer mice"),
        ("tomato", "tomatoes"),
        ("tv", "tvs"),
        ("scarf", "scarves"),
    ],
)
def test_plural_and_back(one: str, many: str) -> None:
    assert plural(one) == many
    assert keywords(many) == keywords(one)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_and_its_plural_are_the_same_keywords(name: str) -> None:
    assert keywords(many(name)) == keywords(name) != []


@pytest.mark.parametrize(
    ("misspelt", "right"), [("benchs", "bench"), ("knifes", "knife"), ("persons", "person"), ("sheeps", "sheep")]
)
def test_genevals_misspelt_plurals_are_understood(misspelt: str, right: str) -> None:
    assert normalize(misspelt) == normalize(right)


def test_different_objects_stay_different() -> None:
    assert len({tuple(keywords(name)) for name in OBJECTS}) == len(OBJECTS)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("apple", "an apple"),
        ("unicycle", "a unicycle"),
        ("ukulele", "a ukulele"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("horse", "a horse"),
        ("orange cup", "an orange cup"),
    ],
)
def test_article_follows_the_sound(phrase: str, expected: str) -> None:
    assert article(phrase) == expected


@pytest.mark.parametrize("value", range(21))
def test_digits_and_number_words_are_one_up_to_twenty(value: int) -> None:
    assert normalize(str(value)) == NUMBERS[value] == normalize(NUMBERS[value])


def test_larger_numbers_stay_digits() -> None:
    assert normalize("21") == "21"


def test_keywords_keep_what_says_something() -> None:
    assert keywords("The cup is left of the lamp") == ["cup", "left", "lamp"]
    assert keywords("none") == ["none"]
    assert keywords("zero cups on it") == ["zero", "cup", "on"]
    assert keywords("a pair of scissors") == keywords("Scissors")
    assert keywords("the dog's traffic-light") == ["dog", "traffic", "light"]
    assert keywords("") == keywords("There is a the.") == []


@given(TEXT)
def test_keywords_of_keywords_are_the_same(text: str) -> None:
    found = keywords(text)
    assert keywords(" ".join(found)) == found
    assert not set(found) & STOP_WORDS


@given(TEXT)
def test_case_and_surrounding_punctuation_do_not_matter(text: str) -> None:
    assert keywords(f"  ({text.upper()}!) ") == keywords(text)
