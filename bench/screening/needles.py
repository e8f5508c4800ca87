"""Needles of every kind of credential and personal data, made up from a seed, and rows that hold none.

The rows are questions and answers with numbers, dates, versions, prices, hashes and identifiers, which are what pattern
rules usually mistake.
"""

from __future__ import annotations

import base64
import random
import string
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.screening.checksums import base62

SEED = 41
FORMS = ("plain", "look-alike", "base64")
_ALNUM = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"
_WORDS = tuple(
    word
    for line in (
        "the invoice was paid on time and filed under its number because our office closes early in winter so please",
        "ask again tomorrow or write to the desk upstairs where somebody keeps a list of all open orders by week",
    )
    for word in line.split()
)
_LOOKALIKE = str.maketrans({"a": "\u0430", "e": "\u0435", "o": "\u043e", "p": "\u0440", "A": "\u0410", "E": "\u0415"})


def _letters(rng: random.Random, count: int, alphabet: str = _ALNUM) -> str:
    return "".join(rng.choices(alphabet, k=count))


def _with_crc(rng: random.Random, prefix: str) -> str:
    payload = _letters(rng, 30)
    return prefix + payload + base62(zlib.crc32(payload.encode()))


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _jwt(rng: random.Random) -> str:
    header, claims = '{"alg":"HS256","typ":"JWT"}', '{"sub":"' + _letters(rng, 12) + '"}'
    return f"{_base64url(header)}.{_base64url(claims)}.{_letters(rng, 43)}"


Make = Callable[[random.Random], str]
CREDENTIALS: Mapping[str, Make] = {
    "private-key": lambda r: f"-----BEGIN RSA PRIVATE KEY-----\n{_letters(r, 64)}\n-----END RSA PRIVATE KEY-----",
    "github-token": lambda r: _with_crc(r, "ghp_"),
    "github-pat": lambda r: f"github_pat_{_letters(r, 22)}_{_letters(r, 59)}",
    "gitlab-token": lambda r: "glpat-" + _letters(r, 20),
    "aws-access-key": lambda r: "AKIA" + _letters(r, 16, string.ascii_uppercase + "234567"),
    "aws-secret-key": lambda r: "aws_secret_access_key = " + _letters(r, 40, _ALNUM + "/+"),
    "gcp-api-key": lambda r: "AIza" + _letters(r, 35, _ALNUM + "_-"),
    "google-oauth-secret": lambda r: "GOCSPX-" + _letters(r, 28),
    "azure-storage-key": lambda r: f"AccountName=store;AccountKey={_letters(r, 86, _ALNUM + '+/')}==;",
    "slack-token": lambda r: (
        f"xoxb-{_letters(r, 12, string.digits)}-{_letters(r, 12, string.digits)}-{_letters(r, 24)}"
    ),
    "slack-webhook": lambda r: (
        "https://hooks.slack.com/services/"
        f"T{_letters(r, 10, string.ascii_uppercase)}/B{_letters(r, 10, string.ascii_uppercase)}/{_letters(r, 24)}"
    ),
    "discord-webhook": lambda r: f"https://discord.com/api/webhooks/{_number(r, 18)}/{_letters(r, 68)}",
    "telegram-token": lambda r: f"{_number(r, 9)}:AA{_letters(r, 33)}",
    "stripe-key": lambda r: "sk_live_" + _letters(r, 24),
    "openai-key": lambda r: f"sk-proj-{_letters(r, 40)}T3BlbkFJ{_letters(r, 40)}",
    "anthropic-key": lambda r: f"sk-ant-api03-{_letters(r, 93)}AA",
    "hugging-face-token": lambda r: "hf_" + _letters(r, 34, string.ascii_letters),
    "npm-token": lambda r: _with_crc(r, "npm_"),
    "pypi-token": lambda r: "pypi-AgEIcHlwaS5vcmc" + _letters(r, 140),
    "docker-token": lambda r: "dckr_pat_" + _letters(r, 27),
    "sendgrid-key": lambda r: f"SG.{_letters(r, 22)}.{_letters(r, 43)}",
    "digitalocean-token": lambda r: "dop_v1_" + _letters(r, 64, _HEX),
    "databricks-token": lambda r: "dapi" + _letters(r, 32, _HEX),
    "shopify-token": lambda r: "shpat_" + _letters(r, 32, _HEX),
    "grafana-token": lambda r: f"glsa_{_letters(r, 32)}_{_letters(r, 8, _HEX)}",
    "age-key": lambda r: "AGE-SECRET-KEY-1" + _letters(r, 58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    "jwt": _jwt,
    "url-password": lambda r: f"postgres://app:{_letters(r, 16)}@db.internal.net/app",
}


def _number(rng: random.Random, n_digits: int) -> str:
    return rng.choice("123456789") + _letters(rng, n_digits - 1, string.digits)


PERSONAL_DATA: Mapping[str, Make] = {
    "card-number": lambda r: r.choice(("4539 5787 6362 1486", "5425233430109903", "374245455400126")),
    "iban": lambda r: r.choice(
        ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR1420041010050500013M02606")
    ),
    "email": lambda r: f"{_letters(r, 6, string.ascii_lowercase)}.{_letters(r, 7, string.ascii_lowercase)}@mail.org",
    "phone-number": lambda r: f"+49 30 {_number(r, 4)} {_number(r, 4)}",
    "ipv4-address": lambda r: f"81.{r.randrange(10, 200)}.{r.randrange(256)}.{r.randrange(1, 255)}",
    "ipv6-address": lambda r: f"2a02:8108:{_letters(r, 4, _HEX)}:{_letters(r, 4, _HEX)}::{_letters(r, 4, _HEX)}",
    "us-ssn": lambda r: f"{r.randrange(100, 600)}-{r.randrange(10, 99)}-{r.randrange(1000, 9999)}",
    "german-tax-id": lambda r: f"Steuer-ID {r.choice(('86095742719', '47036892816', '65929970489'))}",
    "spanish-id": lambda r: f"DNI {_dni(r.randrange(10_000_000, 99_999_999))}",
    "french-id": lambda r: _nir(f"1{r.randrange(40, 99)}{r.randrange(1, 13):02}75{r.randrange(100, 999)}118"),
    "brazilian-cpf": lambda r: r.choice(("529.982.247-25", "111.444.777-35")),
}


def _dni(number: int) -> str:
    return f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def _nir(number: str) -> str:
    return f"{number}{97 - int(number) % 97:02}"


class Needle(NamedTuple):
    """One thing to be found."""

    id: str
    form: str
    text: str


def needles(seed: int = SEED) -> Iterator[Needle]:
    """Each kind once in each form."""
    rng = random.Random(seed)
    for screen, kinds in (("secrets", CREDENTIALS), ("pii", PERSONAL_DATA)):
        for name, make in kinds.items():
            for form in FORMS:
                yield Needle(f"{screen}.{name}", form, _disguised(make(rng), form))


def _disguised(text: str, form: str) -> str:
    if form == "look-alike":
        return "\u200b".join(text.translate(_LOOKALIKE))
    return base64.b64encode(text.encode()).decode() if form == "base64" else text


def benign_row(rng: random.Random) -> ChatRow:
    """A question and an answer with the kinds of numbers and names that ordinary rows have."""
    words = rng.choices(_WORDS, k=60)
    odd = (
        f"2026-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
        f"v{rng.randrange(20)}.{rng.randrange(20)}.{rng.randrange(99)}",
        f"{_number(rng, 13)}",
        f"order {_number(rng, 11)}",
        f"{_number(rng, 3)}-{_number(rng, 4)}-{_number(rng, 3)}",
        f"$ {rng.randrange(9999)}.{rng.randrange(99):02}",
        _letters(rng, 40, _HEX),
        _letters(rng, 32),
        f"https://shop.example.com/item/{_number(rng, 12)}?ref={_letters(rng, 16)}",
        f"192.168.{rng.randrange(256)}.{rng.randrange(256)}",
        f"12:{rng.randrange(60):02}:{rng.randrange(60):02}",
        "ask support@example.com",
        f"{_letters(rng, 2, string.ascii_uppercase)}{_number(rng, 8)}",
    )
    for each in rng.sample(odd, 4):
        words.insert(rng.randrange(len(words)), each)
    question, answer = " ".join(words[:20]), " ".join(words[20:])
    return ChatRow((ChatMessage("user", question, 0), ChatMessage("assistant", answer, 1)))
