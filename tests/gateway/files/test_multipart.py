"""What is read out of a multipart body, however an attacker writes and cuts it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.files.multipart import MAX_FIELDS, UploadForm

BOUNDARY = b"0123456789abcdef"
CONTENT_TYPE = "multipart/form-data; boundary=0123456789abcdef"
SOUND = (
    b'--0123456789abcdef\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    b'--0123456789abcdef\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
    b"Content-Type: application/jsonl\r\n\r\n"
    b'{"a": 1}\r\n--01234\r\n\r\n-\r\n--0123456789abcdef--\r\n'
)
TRICKS = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"--", b"-", BOUNDARY, b"--" + BOUNDARY, b"\r\n--" + BOUNDARY,
    b"\r\n--" + BOUNDARY[:9],
    b";", b'"', b"\\", b"=", b":", b" ", b"\x00", b"\xff", b"name", b"filename*=UTF-8''b.jsonl", b"name*0=fi",
    b"Content-Disposition: form-data; name=x\r\n",
)  # fmt: skip


class Reading(NamedTuple):
    filename: str
    content: bytes
    fields: dict[str, str]


def read(pieces: list[bytes]) -> Reading | None:
    """What a form says, or None where it is refused."""
    try:
        form = UploadForm(CONTENT_TYPE)
        content = b"".join(found for piece in pieces for found in form.feed(piece))
        return Reading(form.finish(), content, form.fields)
    except InvalidRequest:
        return None


@st.composite
def tricked_bodies(draw: st.DrawFn) -> bytes:
    """The sound body with up to three insertions, deletions or doublings."""
    body = SOUND
    for _ in range(draw(st.integers(0, 3))):
        start, end = sorted(draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
        middle = draw(st.sampled_from([b"", body[start:end] * 2, *TRICKS]))
        body = body[:start] + middle + body[end if draw(st.booleans()) else start :]
    return body


@settings(deadline=None, max_examples=500)
@given(tricked_bodies(), st.lists(st.integers(0, 1000), max_size=6))
def test_no_two_cuts_of_a_body_are_read_differently(body: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    whole = read([body])
    cut = read([body[start:end] for start, end in pairwise(places)])
    assert whole is None or cut is None or whole == cut


def test_the_sound_body_is_read() -> None:
    assert read([SOUND]) == Reading("a.jsonl", b'{"a": 1}\r\n--01234\r\n\r\n-', {"purpose": "fine-tune"})


def test_an_encoded_name_beside_the_plain_one_is_passed_over() -> None:
    """RFC 7578 section 4.2 forbids it, and a proxy may read the other one."""
    body = SOUND.replace(b'name="file"', b"name*=UTF-8''purpose; name=\"file\"; filename*=UTF-8''b.txt")
    reading = read([body])
    assert reading is not None
    assert reading.filename == "a.jsonl"


HEADER = b"--" + BOUNDARY + b"\r\nContent-Disposition: form-data; name="


@pytest.mark.parametrize(
    "endless",
    [
        HEADER + b"x" * 100_000,
        b"--" + BOUNDARY + b"\r\n" + b"x" * 100_000,
        HEADER + b"x\r\n" + b"A: b\r\n" * 1000,
        b"".join(HEADER + b"%d\r\n\r\nx\r\n" % number for number in range(MAX_FIELDS + 1)),
        HEADER + b"x\r\n\r\n" + b"x" * 2000,
    ],
    ids=["long header", "long header name", "many headers", "many parts", "long field"],
)
def test_what_would_fill_memory_is_refused_before_its_end(endless: bytes) -> None:
    form = UploadForm(CONTENT_TYPE)
    with pytest.raises(InvalidRequest):
        form.feed(endless)


def test_a_boundary_longer_than_its_standard_allows_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        UploadForm("multipart/form-data; boundary=" + "x" * 10_000)
