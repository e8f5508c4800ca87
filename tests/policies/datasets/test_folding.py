"""Ways to write the same letters are one, at a price that the length says."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.datasets.folding import fold, letters
from tests.growth import LINEAR, growth


def folded(text: str) -> bytes:
    (only,) = fold([text])
    return only


@pytest.mark.parametrize(
    "written",
    [
        "pay hate",
        "PAY, HATE!",
        "p-a-y h a t e",
        "ｐａｙ ｈａｔｅ",
        "𝓹𝓪𝔂 𝖍𝖆𝖙𝖊",
        "рау hаtе",  # Cyrillic
        "ραγ hατε",  # Greek
        "pa\u00ady ha\u200bt\u2060e",
        "páÿ hȧṯè",
        "p\u0336a\u0336y\u0336 h\u0336ate",
        "pay\ufe0f hat\U000e0101e",
        "pay\U000e0068 hate",
        "🅿🅰🆈 🇭🇦🇹🇪",
        "ᴘᴀʏ ʜᴀᴛᴇ",
    ],
)
def test_ways_to_write_the_same_letters_are_one(written: str) -> None:
    assert folded(written) == b"payhate"


def test_letters_that_look_alike_are_one() -> None:
    assert folded("Illl1 O0") == folded("lIl1i 0o")


def test_ligatures_and_fractions_are_their_letters() -> None:
    assert folded("ﬁx ½ Straße ㎏") == folded("fix 1 2 strasse kg")


def test_syllables_of_hangul_are_one_with_their_letters() -> None:
    assert folded("한국어") == folded(unicodedata.normalize("NFD", "한국어"))
    assert len(folded("한국어")) == 3


def test_letters_of_other_scripts_stay_apart() -> None:
    assert len(set(folded("日本語テキスト"))) == 7
    assert folded("привет") != folded("пакеты")


@given(texts=st.lists(st.text(alphabet=st.characters(exclude_characters="\0")), min_size=1))
def test_texts_are_folded_each_by_itself(texts: list[str]) -> None:
    """Folding many at once, by tables and arrays, is folding each character by its definition."""
    jamo = {character for text in texts for character in text if "\u1100" <= character <= "\u11ff"}
    if not jamo:
        assert fold(texts) == [b"".join(letters(character) for character in text) for text in texts]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "a" + "\u0301\u0323" * n,
        lambda n: "\u0f71\u0f72\u0f74" * n,
        lambda n: "\u1112\u1161\u11ab" * n,
        lambda n: "\ufdfa" * n,
        lambda n: "ﬁ" * n,
        lambda n: "한" * n,
    ],
)
def test_folding_is_linear(make: Callable[[int], str]) -> None:
    """Runs of combining marks took quadratic time in `unicodedata.normalize`."""
    assert growth(make, folded, 60_000) < LINEAR


def test_the_attack_is_quadratic_where_the_library_normalises() -> None:
    """What `growth` can tell apart: the same runs by the function that was used before."""
    assert growth(lambda n: "a" + "\u0301\u0323" * n, lambda text: unicodedata.normalize("NFKC", text), 3000) > LINEAR
