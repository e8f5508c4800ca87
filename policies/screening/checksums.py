"""Checks that formats carry in themselves: they tell a number that was issued from one that looks like it."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CHECKSUM_LETTERS = 6


def digits_of(text: str) -> list[int]:
    """The ASCII digits of a text, without what stands between them."""
    return [ord(letter) - 48 for letter in text if "0" <= letter <= "9"]


def luhn(digits: Sequence[int]) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, its digits summed; the sum ends in 0."""
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def mod_97(text: str) -> int:
    """ISO/IEC 7064, MOD 97-10, of letters and digits; A is 10 and Z is 35."""
    return int("".join(str(int(letter, 36)) for letter in text)) % 97


def iban(text: str) -> bool:
    """ISO 13616: the first four characters moved to the end leave 1."""
    return mod_97(text[4:] + text[:4]) == 1


def mod_11_10(digits: Sequence[int]) -> bool:
    """ISO/IEC 7064, MOD 11,10, whose last digit is the check."""
    product = 10
    for digit in digits[:-1]:
        product = 2 * ((product + digit) % 10 or 10) % 11
    return (11 - product) % 10 == digits[-1]


def base62_crc(secret: str) -> bool:
    """GitHub's and npm's: the last six letters are the CRC-32 of those before them, in base 62."""
    payload, checksum = secret[:-CHECKSUM_LETTERS], secret[-CHECKSUM_LETTERS:]
    return base62(zlib.crc32(payload.encode())) == checksum


def base62(value: int) -> str:
    """Six letters, the most significant first."""
    letters = ""
    for _ in range(CHECKSUM_LETTERS):
        value, digit = divmod(value, 62)
        letters = _BASE62[digit] + letters
    return letters


def entropy_bits(text: str) -> float:
    """Shannon's, a character: −Σ p log₂ p of the text's own letters. Placeholders (`xxxx…`) have nearly none."""
    n = len(text)
    return -sum(count / n * math.log2(count / n) for count in Counter(text).values())
