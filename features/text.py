"""Normalises titles and queries, and splits them into the words by which they are matched.

Titles, queries, judgements and the word index (BM25) all go through `normalise` and `words`, so two spellings of the same
text (NFC and NFD, full width, ß and ss, a soft hyphen inside a word) are one text everywhere. ASCII text gives the same
result as `str.lower`, `str.split` and the pattern `\\w+`.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import regex

_NO_SPACES = r"[[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}]&&[\p{L}\p{N}]]"  # Chinese and Japanese
_SOUTH_EAST = r"[\p{Line_Break=SA}&&\p{L}]"  # Thai, Lao, Khmer, Myanmar and their neighbours
_HANGUL = r"[\p{scx=Hangul}&&\p{L}]"
_EMOJI = r"\p{Extended_Pictographic}|\p{Regional_Indicator}+"
_OTHER = rf"[\p{{L}}\p{{N}}_]--{_NO_SPACES}--{_SOUTH_EAST}--{_HANGUL}"
_PART = regex.compile(
    rf"(?V1)(?P<ideographs>(?:{_NO_SPACES}\p{{M}}*)+)|(?P<south_east>(?:{_SOUTH_EAST}\p{{M}}*)+)|(?P<hangul>(?:{_HANGUL}\p{{M}}*)+)"
    rf"|(?P<emoji>{_EMOJI})|(?P<word>(?:[{_OTHER}]\p{{M}}*)+)"
)
_SIZES = {"ideographs": (1, 2), "south_east": (2, 3), "hangul": (2,)}  # lengths of the character n-grams of a run
_CHARACTER = regex.compile(r"(?V1)\P{M}\p{M}*")
_ASCII_WORD = re.compile(r"\w+", re.ASCII)

_REMOVED = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cc}\p{Cs}]")
_DASH = regex.compile(r"\p{Dash}")
_BEFORE_FRACTION = re.compile(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215f\u2189])")
_SIGNS = str.maketrans(dict.fromkeys("™℠®©", " ") | dict.fromkeys("´\u1ffd‘’ʼ", "'") | {"⁄": "/"})
_DOTTED_I = "i\u0307"  # the result of case folding the Turkish capital İ
_POINTS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]"
)  # vowel points and cantillation marks of Hebrew and Arabic, which most people do not type, and the Arabic filler (tatweel)


class Words(NamedTuple):
    """The units by which a text is matched: words between spaces or punctuation, and character n-grams of scripts without spaces."""

    spelt: list[str]
    characters: list[str]


def normalise(text: str) -> str:
    """The normal form of a text: NFKC, case folded, white space collapsed, without invisible and control characters.

    Apostrophes and dashes become ASCII ones; trademark signs become spaces. Idempotent.
    """
    return " ".join(text.lower().split()) if text.isascii() and text.isprintable() else _settled(text)


def says_something(text: str) -> bool:
    """Whether a text contains a letter, a digit or an emoji. Other texts are not searches."""
    return any(word.strip("_") for word in words(text))


def words(text: str) -> list[str]:
    """The words of a text, normalised, then its character n-grams (see `split`).

    >>> words("Men’s T-Shirt")
    ['men', 's', 't', 'shirt']
    >>> words("手机壳")
    ['手', '机', '壳', '手机', '机壳']
    """
    found = split(text)
    return found.spelt + found.characters


def split(text: str) -> Words:
    """The words of a text by Unicode's classes of letters, digits and the combining marks that belong to them, normalised.

    Chinese and Japanese give each character and each pair of neighbours; Thai, Lao, Khmer and Myanmar, whose characters are
    letters, pairs and triples; Korean its words and pairs. An emoji is a character n-gram of its own. Vowel points of Arabic
    and Hebrew are left out.
    """
    text = normalise(text)
    if text.isascii():
        return Words(_ASCII_WORD.findall(text), [])
    spelt: list[str] = []
    characters: list[str] = []
    for part in _PART.finditer(text):
        kind, run = part.lastgroup, part[0]
        if kind == "word":
            spelt += [word for word in [_POINTS.sub("", run)] if word]
        elif kind == "emoji":
            characters.append(run)
        else:
            characters += _n_grams(_CHARACTER.findall(run), _SIZES[kind], whole=kind == "hangul")
    return Words(spelt, characters)


@lru_cache(maxsize=4096)
def _settled(text: str) -> str:
    while (folded := _fold(text)) != text:
        text = folded
    return text


def _fold(text: str) -> str:
    text = _BEFORE_FRACTION.sub(" ", " ".join(text.split())).translate(_SIGNS)
    text = unicodedata.normalize("NFKC", _REMOVED.sub("", _DASH.sub("-", text)))
    text = unicodedata.normalize("NFKC", text.casefold()).replace(_DOTTED_I, "i")
    return " ".join(text.split())


def _n_grams(characters: Sequence[str], sizes: Sequence[int], whole: bool) -> list[str]:
    """The n-grams of a run; also the run itself, if it is shorter than every size or `whole` is set."""
    found = ["".join(characters[at : at + size]) for size in sizes for at in range(len(characters) - size + 1)]
    return found if found and not (whole and len(characters) > max(sizes)) else ["".join(characters), *found]
