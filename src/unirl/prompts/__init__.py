"""The `prompts` plugin kind: its contract, the sources that are shipped, and English words for writing prompts."""

from unirl.prompts.base import Prompts
from unirl.prompts.geneval import GenEval
from unirl.prompts.jsonl import JsonLines, read_examples
from unirl.prompts.words import NUMBERS, article, keywords, normalize_word, plural
from unirl.unicode import normalize_text

__all__ = [
    "NUMBERS",
    "GenEval",
    "JsonLines",
    "Prompts",
    "article",
    "keywords",
    "normalize_text",
    "normalize_word",
    "plural",
    "read_examples",
]
