"""Text as people read it: one form for all spellings in Unicode that look alike, by which texts are compared."""

import re
import unicodedata
from functools import cache, lru_cache

_APOSTROPHES = "‘’‚‛ʹʻʼʽˈ´`′＇｀\u1ffd\u1fef"
_QUOTES = "“”„‟«»″"
_HYPHENS = "‐‑‒−⁃˗"
_BEFORE = str.maketrans({**dict.fromkeys(_APOSTROPHES, "'"), **dict.fromkeys(_QUOTES, '"'), "ـ": ""})
"""What NFKC would take apart, such as an acute accent that stands for an apostrophe; and the Arabic lengthening."""
_AFTER = str.maketrans({**dict.fromkeys(_APOSTROPHES, "'"), **dict.fromkeys(_HYPHENS, "-"), "ı": "i"})
_DASHES = str.maketrans(dict.fromkeys("–—―〜〰", "-"))
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u20e3\u2800")
"""Characters without a shape that are neither of the category Cf nor variation selectors, and the frame of a keycap."""
_DOTTED_I = re.compile("i\u0307")
_DIGIT = re.compile(r"[^\D0-9]")


@lru_cache(10_000)
def fold(text: str) -> str:
    r"""Text in the one form of all spellings that people read as the same.

    This is NFKC with full case folding, the usual form for comparisons: accents composed or not, wide letters,
    ligatures and all kinds of spaces make no difference. Characters without a shape are left out (zero-width spaces,
    marks of direction, soft hyphens, variation selectors). Digits of all scripts are those of ASCII. Kinds of
    apostrophes, quotation marks and hyphens are one each, and so are the i with and without dot.

    Args:
        text: Any text. Lines and the number of spaces stay.

    Source: Unicode Standard Annex 15 (NFKC) and the Unicode Standard, 3.13 (caseless matching).

    Example:
        >>> fold("ＣＡＦE\u0301") == fold("café")
        True
        >>> fold("Straße ٣ de\u00adsk\u200b’s"), fold("KIZIL") == fold("kızıl") == fold("Kızıl")
        ("strasse 3 desk's", True)
    """
    if text.isascii():
        return text.lower().replace("`", "'")
    for _ in range(2):  # folding may give what composes, and what is left out may have kept two marks apart
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text.translate(_BEFORE)).casefold())
        text = "".join(character for character in text if not _is_invisible(character)).translate(_AFTER)
        text = _DOTTED_I.sub("i", text)
    text = unicodedata.normalize("NFKC", text)
    return _DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text)


def normalize_text(text: str) -> str:
    r"""Text in the form in which whole texts are compared: folded, with single spaces and one kind of dash.

    Args:
        text: Any text.

    Example:
        >>> normalize_text(" A\u00a0photo  of\u3000a CAT ") == normalize_text("a photo of a cat")
        True
        >>> normalize_text("red — blue") == normalize_text("red - blue")
        True
    """
    return " ".join(fold(text).translate(_DASHES).split())


@cache
def marks() -> str:
    """All characters that belong to the one before them, such as the vowel signs of Hindi and Thai."""
    return "".join(c for c in map(chr, range(0x300, 0x1EA00)) if unicodedata.category(c).startswith("M"))


def _is_invisible(character: str) -> bool:
    return (
        unicodedata.category(character) == "Cf"
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
        or character in _FILLERS
    )
