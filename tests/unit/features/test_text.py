"""One spelling of a text, and its words in every script."""

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features.text import normalise, says_something, words

TEXTS = st.text(max_size=30) | st.text("aAİißÅå\u0301\u0345\u0300ﬁ½9 \u00ad\u200b\u200d\u3000´’-–手กิ가\u1100\u1161ー\ufe0fΣς", max_size=12)


@given(TEXTS)
@example("\u1100\u200b\u1161")
@example("\u0345\u0301")
@example("9½½")
def test_normalising_twice_changes_nothing_and_one_text_has_one_spelling(text):
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(unicodedata.normalize("NFD", text)) == once
    assert words(once) == words(text)


def test_every_character_that_changes_is_settled_and_can_be_encoded():
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xAC00 <= code <= 0xD7A3]  # not the Hangul syllables
    for changed in (c for c in characters if unicodedata.category(c)[0] in "CZ" or unicodedata.normalize("NFKD", c) != c):
        if unicodedata.category(changed) not in ("Cn", "Co"):
            once = normalise(changed)
            assert normalise(once) == once
            assert isinstance(once.encode(), bytes)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_ascii_text_is_lower_case_with_single_spaces(text):
    assert normalise(text) == " ".join(text.lower().split())


@pytest.mark.fault(
    "A title or query in NFD, in full width, with ligatures, soft hyphens, zero-width spaces or no-break spaces",
    "It is equal to its plain spelling and has the same words",
)
@pytest.mark.parametrize(
    ("spellings", "plain"),
    [
        (["cafe\u0301", "CAFÉ", "ca\u00adf\u200bé", "\ufeffcafé", "ca\u200df\u2060é"], "café"),
        (["ｎｉｋｅ　ａｉｒ", "Nike\u00a0Air", "NIKE\u2003\tAIR", "\u202eNike Air\u202c", "Nike™ Air®", "ni\x00ke air"], "nike air"),
        (["ﬁne", "ﬁ\u200cne", "𝐟𝐢𝐧𝐞"], "fine"),
        (["Men’s T‑Shirt", "Men´s T–Shirt", "Menʼs T\u00ad-Shirt"], "men's t-shirt"),
        (["9½", "9 ½", "９½"], "9 1/2"),
        (["İstanbul", "I\u0307stanbul"], "istanbul"),
        (["ｶﾞﾗｽ", "カ\u3099ラス"], "ガラス"),
        (["\u1112\u1161\u11ab"], "한"),
    ],
)
def test_spellings_of_one_text_are_one_text(spellings, plain):
    assert {normalise(text) for text in spellings} == {plain}
    assert {tuple(words(text)) for text in spellings} == {tuple(words(plain))}


@pytest.mark.fault("ß in a title and SS in a query, or the reverse", "They match as one word")
def test_german_sharp_s_is_ss():
    assert {normalise(text) for text in ("Straße", "STRASSE", "STRAẞE", "strasse")} == {"strasse"}


@pytest.mark.fault("Hindi words that differ only in their vowel signs", "They remain different words")
def test_words_of_hindi_and_its_neighbours_keep_their_vowel_signs():
    for text in ("जूते जाति जीत जोत जाते", "লাল জুতা", "சிவப்பு காலணி", "ఎరుపు బూట్లు", "ਲਾਲ ਜੁੱਤੇ"):
        assert words(text) == text.split()


@pytest.mark.fault("Arabic or Hebrew with vowel points in the title but not in the query", "The words match")
def test_vowel_points_of_arabic_and_hebrew_make_no_other_word():
    assert words("كِتَابٌ") == words("كتـــاب") == words("كتاب") == ["كتاب"]
    assert words("שָׁלוֹם") == words("שלום") == ["שלום"]
    assert words("می\u200cروم") == ["میروم"]


@pytest.mark.fault("Thai, Lao, Khmer or Burmese words in a title without spaces", "The title shares character n-grams with each word")
@pytest.mark.parametrize(
    ("title", "word", "other"),
    [("รองเท้าวิ่งสีแดง", "รองเท้า", "เสื้อ"), ("ເກີບແລ່ນ", "ເກີບ", "ໝວກ"), ("ស្បែកជើងរត់", "ស្បែកជើង", "មួក"), ("ပြေးဖိနပ်", "ဖိနပ်", "ဦးထုပ်")],
)
def test_words_without_spaces_between_them_share_character_n_grams(title, word, other):
    assert set(words(word)) <= set(words(title))
    assert not set(words(other)) & set(words(title))
    assert set(words("เสือ")) != set(words("เสื้อ"))  # a tone mark makes another word


@pytest.mark.fault("A Chinese, Japanese or Korean word of two characters in a title without spaces", "The title matches the whole word")
@pytest.mark.parametrize(
    ("title", "word", "other"),
    [
        ("新款手机壳 iPhone15", "手机", "电脑"),
        ("赤いスニーカーメンズ", "赤い", "帽子"),
        ("여성운동화", "운동", "모자"),
        ("iPhone15手机", "iphone15", "华为"),
    ],
)
def test_a_short_word_matches_a_title_that_contains_it(title, word, other):
    assert set(words(word)) <= set(words(title))
    assert not set(words(other)) & set(words(title))


def test_what_says_something_has_a_letter_a_digit_or_an_emoji():
    assert all(says_something(text) for text in ("a", "7", "é", "手", "ก", "👟", "🇩🇪", "²", "ﬁ", "c++"))
    assert not any(says_something(text) for text in ("", " ", "?!", "___", "\u200b", "\u00ad\u200d", "\u3000", "™", "…", "\u0301", "ـ"))
    assert words("👍🏻 👩\u200d👧") == ["👍", "👩", "👧"]
