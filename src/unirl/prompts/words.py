"""English words of prompts and short answers: plurals, articles, numbers, keywords. Inflection is inflect's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unirl.unicode import fold, marks

if TYPE_CHECKING:
    import inflect

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
"""Number words from 0 to 20, each at its own index."""

STOP_WORDS = frozenset(
    (
        *("a", "an", "the", "is", "are", "was", "were", "be", "and", "there", "this", "that", "these", "those"),
        *("it", "its", "of", "to", "with", "pair", "pairs"),
    )
)
"""Words that are no keywords. "left", "on", "no", "none" and "zero" carry meaning and are not among them; "pair" is,
because "a pair of scissors" and "scissors" are the same answer."""

_NOT_PLURAL = frozenset(
    (
        *("as", "has", "was", "does", "yes", "plus", "news", "gas", "lens", "canvas", "atlas", "alias", "bias"),
        *(
            "thermos",
            "christmas",
            "pancreas",
            "means",
            "corps",
            "odds",
            "goods",
            "shorts",
            "tights",
            "besides",
            "perhaps",
            "always",
            "sometimes",
        ),
        *("we", "they", "them", "themselves", "ourselves", "his", "hers", "ours", "yours", "theirs"),
        *("opera", "stamina", "agenda", "omen", "abdomen", "specimen", "regimen", "stamen", "ramen", "semen", "hymen"),
        *("lumen", "acumen", "bitumen", "cyclamen", "pumice"),
    )
)
"""Words that inflect takes for plurals, besides those that end in -ss, -us and -is."""
_NOUNS_IN_I = (
    *("alibi", "bikini", "broccoli", "chili", "corgi", "emoji", "graffiti", "jacuzzi", "jedi", "khaki", "kiwi", "koi"),
    *("lei", "martini", "maxi", "mini", "mochi", "okapi", "origami", "panini", "paparazzi", "pierogi", "rabbi"),
    *("ravioli", "roti", "safari", "salami", "samurai", "sari", "semi", "ski", "taxi", "tipi", "tsunami", "wapiti"),
    *("wifi", "yeti", "yogi", "zucchini", "bonsai", "pepperoni", "macaroni", "spaghetti", "chai"),
)
_NOUNS_IN_U = (
    *("bayou", "bijou", "caribou", "ecru", "emu", "flu", "gnu", "guru", "haiku", "kudu", "menu", "snafu", "tofu"),
    *("tutu", "zebu", "zulu"),
)
_STEMS_IN_I = (
    *("abac", "calcul", "cirr", "coloss", "cumul", "esophag", "eucalypt", "gladiol", "hippocamp", "narciss", "octop"),
    *("papyr", "platyp", "rhinocer", "sarcophag", "styl", "syllab", "termin", "thesaur", "uter", "croc"),
)
_SINGULARS = {
    **{f"{noun}s": noun for noun in (*_NOUNS_IN_I, *_NOUNS_IN_U)},
    **{f"{stem}i": f"{stem}us" for stem in _STEMS_IN_I},
    **{"rhinoceri": "rhinoceros", "larvae": "larva", "pupae": "pupa", "automata": "automaton"},
    **{"polyhedra": "polyhedron", "pence": "penny", "monies": "money", "rooves": "roof", "busses": "bus"},
    **{
        "chilies": "chili",
        "chillies": "chili",
        "gasses": "gas",
        "handkerchieves": "handkerchief",
        "clematises": "clematis",
        "mouses": "mouse",
    },
    **{"thermoses": "thermos", "christmases": "christmas", "pancreases": "pancreas", "pyjamas": "pyjama"},
    **{"scissors": "scissor"},
}
"""Plurals that inflect does not know; "mouses" as GenEval's prompts have it, and "scissors", whose singular an answer
may have."""
_ENDINGS = {"children": "child", "loaves": "loaf", "tzes": "tz", "eaus": "eau"}
"""Endings of plurals that inflect knows in a single word only, such as "grandchildren"."""
_NORMALIZED = {str(value): word for value, word in enumerate(NUMBERS)} | _SINGULARS
_WITHOUT_SPACES = (
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Letters of scripts that do not part words by spaces: Thai, Lao, Burmese, Khmer, Chinese, Japanese."""
_EMOJI = r"[\u2600-\u27bf\U0001f1e6-\U0001faff]"
_POSSESSIVE = re.compile(r"'s\b")


@cache
def _engine(classical: bool = False) -> "inflect.engine":
    with _without_typeguard():
        import inflect  # noqa: PLC0415 - runs that need no words do not import it
    engine = inflect.engine()
    if classical:
        engine.classical(ancient=True)
    return engine


@contextmanager
def _without_typeguard() -> Iterator[None]:
    """Import inflect as it is written. Its decorator from typeguard compiles it once more, which takes 1.4 s of 1.5."""
    try:
        typeguard: Any = import_module("typeguard")
    except ImportError:  # other releases of inflect do not use it
        yield
        return
    typechecked = typeguard.typechecked
    typeguard.typechecked = lambda target: target
    try:
        yield
    finally:
        typeguard.typechecked = typechecked


@lru_cache(10_000)
def article(phrase: str) -> str:
    """A phrase with its indefinite article, which depends on the sound.

    Args:
        phrase: A noun in the singular, perhaps with adjectives before it.

    Example:
        >>> [article(phrase) for phrase in ("apple", "red apple", "unicycle", "umbrella", "hourglass")]
        ['an apple', 'a red apple', 'a unicycle', 'an umbrella', 'an hourglass']
    """
    return str(_engine().a(phrase))


@lru_cache(10_000)
def plural(noun: str) -> str:
    """The plural of a noun. Of several words, the last one changes.

    Args:
        noun: A noun in the singular, lower case.

    Example:
        >>> [plural(noun) for noun in ("wine glass", "person", "knife", "butterfly", "sheep")]
        ['wine glasses', 'people', 'knives', 'butterflies', 'sheep']
    """
    return str(_engine().plural_noun(noun))


@lru_cache(10_000)
def normalize_word(word: str) -> str:
    """A form that is the same for a word, its plural, and the digits of a number.

    It need not be a word: "scissors" becomes "scissor", and both "hoodie" and "hoodies" become "hoody". Misspelled
    plurals of GenEval's prompts, such as "benchs" and "persons", are normalized like the correct ones. Of a plural of
    two words, the more concrete one is taken: "axes" are axes to cut with, and "leaves" grow on trees.

    Args:
        word: A single word in any case, without punctuation, as `unirl.unicode.fold` takes it.

    Example:
        >>> [normalize_word(word) for word in ("Knives", "knife", "3", "buses", "bus", "people", "cacti")]
        ['knife', 'knife', 'three', 'bus', 'bus', 'person', 'cactus']
    """
    word = fold(word)
    for _ in range(3):  # a singular may look like a plural itself, and then it must have the same form
        word, before = _singular(word), word
        if word == before:
            break
    # What inflect makes of its own plural: it takes "hoodies" for a plural of "hoody".
    return str(_engine().singular_noun(f"{word}s") or word) if word.endswith(("ie", "che")) and len(word) > 3 else word


def _singular(word: str) -> str:
    if word in _NORMALIZED:
        return _NORMALIZED[word]
    for plural_ending, ending in _ENDINGS.items():
        if word.endswith(plural_ending):
            return word.removesuffix(plural_ending) + ending
    if len(word) < 3 or word in _NOT_PLURAL or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("s") and _engine().singular_noun(f"{word}es") == word:
        return word  # "rhinoceros", which has a plural of its own
    classical = not word.endswith("nges")  # classical plurals of -nx would make "oranx" of "oranges"
    return str(_engine(classical).singular_noun(word) or word)


@cache
def _word_pattern() -> re.Pattern[str]:
    mark = f"[{marks()}]"
    letter = rf"(?!{_WITHOUT_SPACES})[^\W_]{mark}*"
    return re.compile(rf"{_WITHOUT_SPACES}{mark}*|{_EMOJI}{mark}*|(?:{letter})+")


def keywords(text: str) -> list[str]:
    """The words of a text that carry meaning, normalized, in order, with repetitions. An emoji is a word.

    Scripts that do not part words by spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) give each letter with its
    marks: what is compared then are their letters.

    Args:
        text: Any text. Case, punctuation and the form of Unicode make no difference; see `unirl.unicode.fold`.

    Example:
        >>> keywords("TRAFFIC‑light, ２ हाथी"), keywords("红色的猫")
        (['traffic', 'light', 'two', 'हाथी'], ['红', '色', '的', '猫'])
        >>> keywords("There are 4 bowls, and a pair of scissors!")
        ['four', 'bowl', 'scissor']
    """
    words = _word_pattern().findall(_POSSESSIVE.sub("", fold(text)))
    normalized = [normalize_word(word) for word in words if word not in STOP_WORDS]
    return [word for word in normalized if word not in STOP_WORDS]  # a singular may be a stop word, too
