"""Which texts hold a credential or personal data, and which only look like it."""

from __future__ import annotations

import pytest

from policies.screening.credentials import CREDENTIALS
from policies.screening.patterns import Pattern, found_in
from policies.screening.personal_data import PERSONAL_DATA
from tests.growth import LINEAR, growth

ALL = (*CREDENTIALS, *PERSONAL_DATA)


def kinds(text: str) -> list[str]:
    return [pattern.id for pattern in found_in(ALL, text)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("card 4539 5787 6362 1486 expires", "pii.card-number"),
        ("pay to DE89 3704 0044 0532 0130 00 please", "pii.iban"),
        ("write to jane.doe@corp.org", "pii.email"),
        ("call +44 20 7946 0958", "pii.phone-number"),
        ("from 81.2.69.142", "pii.ipv4-address"),
        ("from 2a02:8108::1f2e", "pii.ipv6-address"),
        ("SSN 219-45-6789", "pii.us-ssn"),
        ("Steuer-ID 86 095 742 719", "pii.german-tax-id"),
        ("DNI 12345678Z", "pii.spanish-id"),
        ("CPF 529.982.247-25", "pii.brazilian-cpf"),
        ("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", "secrets.github-token"),
    ],
)
def test_valid_numbers_are_found(text: str, kind: str) -> None:
    """The GitHub token is the one whose checksum GitHub published as an example; it opens nothing."""
    assert kinds(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "card 4539 5787 6362 1487",  # the last digit is wrong
        "pay to DE88 3704 0044 0532 0130 00",
        "write to somebody@example.com or support@corp.org",
        "call +1 202 555 0143",  # reserved for fiction
        "+999 1234 5678",  # no such country
        "from 192.168.1.20, 127.0.0.1, 10.0.0.1 and version 1.2.3.4.5",
        "SSN 666-45-6789 or 078-05-1120",
        "number 86095742719",  # nobody says that it is a tax number
        "part 12345678Z",
        "ghp_zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq18",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "postgres://user:${PASSWORD}@db/app",
        "eyJhbGciOi.eyJub3BlIn0.signature-of-nothing",
        "2026-11-30T12:00:00 order 2026113012 at 12:30:45, 1,234,567.89",
    ],
)
def test_what_only_looks_like_it_is_passed_over(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    "decoys",
    [" ".join(f"info@a{n}.de" for n in range(1001)), "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx " * 1001],
)
def test_many_decoys_hide_nothing_behind_them(decoys: str) -> None:
    found = kinds(f"{decoys} 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 jane.doe@corp.org")
    assert found == ["secrets.github-token", "pii.email"]


HOSTILE = (
    "a" * 64, "1 ", "1", "+1-", "a@a.", "://a:", "eyJa.", "AKIA", "sk-", "-----BEGIN PRIVATE KEY-----\n", "DE12",
    "2001:", "ghp_", "A1", "xoxb-123456-", "Steuer 86095742719 ", "86095742719 ", "-eyJ", "_eyJa",
    "info@a.de ", "1.1.1.1 ", "eyJhbGciOi.eyJub3BlIn0.signature-of-nothing ", "ab://cd:password@localhost ",
)  # fmt: skip
"""Each the beginning of a pattern, or much of one, that then does not match."""


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_cost_linear_time(piece: str) -> None:
    assert growth(lambda size: piece * (size // len(piece)), lambda text: found_in(ALL, text), 20_000) < LINEAR


def test_there_are_at_least_25_kinds_of_credentials_each_under_a_name_of_its_own() -> None:
    ids = [pattern.id for pattern in ALL]
    assert len(CREDENTIALS) >= 25
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("pattern", ALL, ids=lambda pattern: pattern.id)
def test_no_kind_is_in_an_empty_text(pattern: Pattern) -> None:
    assert not pattern.is_in("", 0)
