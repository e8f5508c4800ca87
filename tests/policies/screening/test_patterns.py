"""Which texts hold a credential or personal data, and which only look like it."""

from __future__ import annotations

import pytest

from policies.screening.credentials import CREDENTIALS
from policies.screening.patterns import Pattern, found_in
from policies.screening.personal_data import PERSONAL_DATA
from tests.growth import LINEAR, growth

MIXED = "q7Rz2LmX9vKc4TbN8yWfG3hJ6pDs5ZuE1aQoVtYnHk"
"""Letters as mixed as those of a secret."""
HEX = "9f3c1a7e5b2d8046" * 4
KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"
"""How every RSA key begins."""
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
        ("card 4539.5787.6362.1486", "pii.card-number"),
        ("card 4539_5787_6362_1486", "pii.card-number"),
        ("pay to de89370400440532013000", "pii.iban"),
        ("pay to DE89-3704-0044-0532-0130-00", "pii.iban"),
        ("call 0049 151 23456789", "pii.phone-number"),
        ("call +4915123456789", "pii.phone-number"),
        ("call +1 (212) 555-2368", "pii.phone-number"),
        ("see http://81.2.69.142/x", "pii.ipv4-address"),
        (f"glpat-{MIXED[:27]}.01.0w1abcdef", "secrets.gitlab-token"),
        (f"xapp-1-A06DRTKLWXC-6527391846203-{HEX}", "secrets.slack-token"),
        (f"aws_secret_access_key     =  {MIXED[:40]}", "secrets.aws-secret-key"),
        (f'"SecretAccessKey" => "{MIXED[:40]}"', "secrets.aws-secret-key"),
        (f"redis://:{MIXED[:16]}@cache:6379", "secrets.url-password"),
        (f"postgres://app:{MIXED[:16]}@db/app", "secrets.url-password"),
        (f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.{MIXED[:43]}", "secrets.jwt"),
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
        "postgres://user:password@host/app",
        "postgres://user:changeme123@db.corp.org/app",
        "https://user:YOUR_PASSWORD@db.corp.org/",
        f"postgres://app:{MIXED[:16]}@localhost:5432/app",
        f"postgres://app:{MIXED[:16]}@127.0.0.1/app",
        f"https://app:{MIXED[:16]}@api.example.com/",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{MIXED[:43]}",  # as jwt.io shows it
        "git clone git@github.com:corp/app.git",
        "a@media.screen and logo@2x.png",
        "Chrome/120.0.0.0 Safari",
        "section 4.2.1.3, v 81.2.69.142, version 81.2.69.142",
        "@@ -1,7 +12345678,9 @@",
        "scores +1 2 3 4 5 6 7 8 and +1 000 000 000 EUR",
        "DE88 3704 0044 0532 0130 00 or 0012345678",
        "de89370400440532013000a7 is a hash",
        "SSN 123-45-6789",
        "2026-11-30T12:00:00 order 2026113012 at 12:30:45, 1,234,567.89",
    ],
)
def test_what_only_looks_like_it_is_passed_over(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    "key",
    [
        f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,9F3C\n\n{KEY}",
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\nComment: mine\n\n{KEY}",
        f"> -----BEGIN PRIVATE KEY-----\n> {KEY}",
        f"'-----BEGIN PRIVATE KEY-----\\n' +\n    '{KEY}'",
    ],
)
def test_private_keys_are_found_encrypted_quoted_and_put_together_in_code(key: str) -> None:
    assert kinds(key) == ["secrets.private-key"]


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
    "glpat-", "xapp-1-", "secret_access_key ", "de12-", "de89 ", "ab12-cdef", "+1 2", "00491 ", "4539.", "v 1.2.3.4 ",
    "-----BEGIN PRIVATE KEY-----\nComment:", "Comment: ", "-----BEGIN PRIVATE KEY-----\nComment:" + " " * 300,
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
