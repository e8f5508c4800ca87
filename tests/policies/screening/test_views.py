"""The forms in which a text is searched."""

from __future__ import annotations

import base64

import pytest

from policies.screening.unicode_folding import fold
from policies.screening.views import unescaped, views
from tests.growth import LINEAR, growth

TAGGED = "".join(chr(0xE0000 + ord(letter)) for letter in "ghp_")


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("plain, as it is", "plain, as it is"),
        ("\uff47\uff48\uff50\uff3f", "ghp_"),
        ("\u0440\u0430\u0443\u0440\u0430l", "paypal"),
        ("\u0420\u0410", "PA"),
        ("a\u200bb\u2060c\u00ad", "abc"),
        (TAGGED, "ghp_"),
        ("\u0661\u0662\u0663", "123"),
        ("1\u20112", "1-2"),
        ("na\u0308me", "name"),
        ("\u4f60\u597d", "\u4f60\u597d"),
        ("a\u3164b\uffa0c\u2800d\u1160e", "abcde"),
        ("a\x08b\x7fc\x85d\u4f60", "abcd\u4f60"),
        ("a\x08b\x7fc", "abc"),
    ],
)
def test_look_alikes_invisible_and_tag_characters_are_folded_and_other_writing_is_kept(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_ascii_text_has_one_view() -> None:
    assert list(views("an ordinary sentence")) == ["an ordinary sentence"]


def test_base64_is_read_one_level_deep() -> None:
    once = base64.b64encode(b"my e-mail is jane@corp.org").decode()
    twice = base64.b64encode(once.encode()).decode()
    assert list(views(f"see {once}"))[1:] == ["my e-mail is jane@corp.org"]
    assert "jane" not in "".join(views(f"see {twice}"))


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_base64_without_its_end_or_in_the_url_alphabet_is_read(cut: int) -> None:
    encoded = base64.urlsafe_b64encode(b"the secret word is ~~~???").decode()
    assert any("the secret" in view for view in views(encoded[: len(encoded) - cut]))


def test_random_bytes_in_base64_are_no_view() -> None:
    assert len(list(views(base64.b64encode(bytes(range(128, 200))).decode()))) == 1


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"a\nb\tc\rd", "a\nb\tc\rd"),
        (r"a\\\\nb", "a\nb"),
        (r"{\"a\": \"b\"}", '{"a": "b"}'),
        (r"http:\/\/a", "http://a"),
        (r"\u0067h\x70", "ghp"),
        (r"\u0440\u200bay", "pay"),
        (r"\ud835\udc00", "A"),
        ("a%0Ab%3D", "a\nb="),
        (r"%5Cu0067", "g"),
        (r"\u005cn", "\n"),
        (r"\ud800", "\ufffd"),
        ("100 % of C:\\Users", "100 % of C:\\Users"),
    ],
)
def test_escapes_of_json_and_of_addresses_are_taken_away_twice(text: str, plain: str) -> None:
    assert unescaped(text) == plain


@pytest.mark.parametrize(
    "piece", ["\\", "\\u", "\\u00", "%", "%2", "%25", "\\\\n", "\\ud800", "A" * 76 + "\n", "A" * 13 + "/\n> "]
)
def test_views_of_hostile_texts_cost_linear_time(piece: str) -> None:
    assert growth(lambda size: piece * (size // len(piece)), lambda text: list(views(text)), 50_000) < LINEAR


SECRET = "a long text that goes on and on until it is wrapped, and then my e-mail is jane@corp.org"


@pytest.mark.parametrize(
    "encoded",
    [
        base64.encodebytes(SECRET.encode()).decode(),
        base64.encodebytes(SECRET.encode()).decode().replace("\n", "\r\n  "),
        base64.b64encode(SECRET.encode("utf-16-le")).decode(),
        base64.b64encode(SECRET.encode("utf-16")).decode(),
        "folder/" + base64.b64encode(SECRET.encode()).decode(),
        "token:\\n" + base64.b64encode(SECRET.encode()).decode(),
    ],
)
def test_base64_is_read_when_wrapped_of_utf_16_behind_a_folder_and_behind_an_escape(encoded: str) -> None:
    assert any("jane@corp.org" in view for view in views(encoded))
