"""Text is compared as people read it, whatever its form of Unicode is."""

import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unirl import Question, UserError
from unirl.judges import Detection, verdict
from unirl.metrics.consistency import is_correct_answer
from unirl.prompts import keywords
from unirl.rewards import Attribute, Keyword
from unirl.types import Answers, Example, Images, Item
from unirl.unicode import fold, normalize_text

SAME = [
    ("café", "cafe\u0301", "CAFÉ", "ｃａｆé", "ca\u200bfé", "\ufeffcafé", "ca\u00adfé"),
    ("12 cups", "１２ cups", "١٢ cups", "१२ cups", "12\u00a0cups", "12\u3000cups", "𝟏𝟐 cups"),
    ("office", "o\ufb03ce", "oﬀice", "OFFICE"),
    ("straße", "STRASSE", "strasse", "STRAẞE"),
    ("kızıl", "KIZIL", "kizil", "Kızıl", "KİZİL"),
    ("σοφος", "ΣΟΦΟΣ", "σοφοσ"),
    ("the dog's", "the dog’s", "the dogʼs", "the dog‘s", "the dog´s", "the dog＇s", "the dog′s"),
    ("t-shirt", "t‐shirt", "t‑shirt", "t−shirt", "t－shirt"),
    ('"red"', "“red”", "„red“", "«red»"),
    ("שלום", "\u200fשלום\u200e", "\u2067שלום\u2069"),
    ("قطة", "قـطـة", "\ufed7\ufec4\ufe94"),
    ("❤", "❤\ufe0f", "❤\ufe0e"),
    ("가", "\u1100\u1161"),
    ("ネコ", "ﾈｺ"),
    ("①", "1", "１"),
    ("a red  cup", " A\tred\u2009cup\n", "a\u2028red cup"),
]
"""Spellings of the same words."""
DIFFERENT = [
    "cafe",
    "café",
    "cafè",
    "red cup",
    "redcup",
    "हाथी",
    "हाथ",
    "schon",
    "schön",
    "ё",
    "е",
    "か",
    "が",
    "١",
    "٢",
]


def test_spellings_that_look_alike_are_the_same_text() -> None:
    assert [forms for forms in SAME if len({normalize_text(form) for form in forms}) > 1] == []
    assert len({normalize_text(forms[0]) for forms in SAME}) == len(SAME)
    assert len({normalize_text(text) for text in DIFFERENT}) == len(DIFFERENT)


def test_every_character_reads_the_same_in_all_its_forms() -> None:
    """Composed or not, in upper and lower case, and folded once more."""
    # An acute accent and a double prime by themselves are taken for what people write with them.
    characters = [chr(code) for code in range(0x3100) if code not in (0xB4, 0x1FFD, 0x2033)]
    forms = [lambda c: unicodedata.normalize("NFKD", c), str.upper, str.lower, fold]
    assert [c for c in characters if any(fold(form(c)) != fold(c) for form in forms)] == []


@given(st.text(max_size=20))
def test_any_text_reads_the_same_in_all_its_forms(text: str) -> None:
    normalized = normalize_text(text)
    assert normalized == normalize_text(normalized)
    for form in ("NFC", "NFD"):
        assert normalized == normalize_text(unicodedata.normalize(form, text))


def rewarded(reward: Keyword | Attribute, answer: str, text: str) -> float:
    ids = torch.zeros(1, 1, dtype=torch.long)
    return reward.score([Example("p", "q", answer)], Images(ids), Answers(ids, ids.bool(), [text])).item()


def test_all_that_compares_words_takes_every_spelling() -> None:
    """The keyword reward, facts of the attribute reward, correct answers, choices, and names in a judge's verdict."""
    box = (0.0, 0.0, 1.0, 1.0)
    for first, *others in SAME:
        for other in others:
            name = f"{first!r} and {other!r}"
            assert keywords(first) == keywords(other), name
            assert not keywords(first) or rewarded(Keyword(), first, other) == 1, name
            assert is_correct_answer(Example("p", "q", first), other), name
            assert verdict([Item(first)], [], [Detection(other, box, 0.9)]).correct, name
            assert verdict([Item("cup", color=first)], [], [Detection("cup", box, 0.9, other)]).correct, name
    assert (
        rewarded(Attribute(), "two cafe\u0301s", "２ CAFÉS") == rewarded(Attribute(), "12 cups", "１２\u00a0cups") == 1
    )


def test_choices_are_told_apart_as_people_read_them() -> None:
    question = Question("where ?", "cafe\u0301", choices=("café", "bar"))
    assert Example("p", questions=(question,)).answer == "cafe\u0301"
    with pytest.raises(UserError, match="has a choice twice"):
        Example("p", questions=(Question("where ?", "café", choices=("café", "cafe\u0301")),))
