"""Personal data in training rows: numbers that carry a check digit, and addresses.

A number counts only where its check digits are right and its ranges are in use, because digits that look like one are
common in ordinary data. Two kinds have so few check digits (one in ten random numbers passes) that the text must name
them too. Names, places and dates of birth are not looked for: no pattern tells them from others.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter

from policies.contract.screening import Severity
from policies.screening.checksums import digits_of, iban, luhn, mod_11_10
from policies.screening.patterns import Check, Pattern

RULES_VERSION = "2"
_CARD = re.compile(
    r"4(?:[0-9]{15}|[0-9]{18})|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|35(?:2[89]|[3-8][0-9])[0-9]{12}"
    r"|6(?:011|5[0-9]{2}|4[4-9][0-9]|2[0-9]{2})[0-9]{12}"
)
"""Numbers of Visa, Mastercard, American Express, Diners Club, JCB, Discover and UnionPay, by their first digits."""
_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|invalid|test|localhost)$", re.IGNORECASE)
"""Names that RFC 2606 reserves for documents."""
_FILE_SUFFIX = re.compile(
    r"\.(?:png|jpe?g|gif|svg|webp|ico|css|jsx?|tsx?|json|html?|xml|ya?ml|lock|screen|print)$", re.I
)
"""Ends of what code writes behind an @ (`logo@2x.png`, `a@media.screen`), and of no host."""
_IN_ADDRESS = re.compile(r"://[^\s/]{0,110}$")
_SERVICE_PREFIXES = frozenset({"noreply", "no-reply", "info", "support", "sales", "contact", "admin", "hello", "git"})
_LETTER_OR_DIGIT = re.compile(r"[A-Za-z0-9]")
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Of the IBAN registry."""
_DIGITS = re.compile("[0-9]+")
_MIN_UNGROUPED = 11
_NORTH_AMERICAN = re.compile(r"1[2-9][0-9]{2}(?!55501)[2-9][0-9]{6}")
_CALLING_CODES = re.compile(
    r"1|7|2(?:0|1[123689]|[23456][0-9]|7|9[01789])|3(?:[0123469]|5[0-9]|7[0-9]|8[0-35-79])|4(?:[013-9]|2[013])"
    r"|5(?:[1-8]|0[0-9]|9[0-9])|6(?:[0-6]|7[02-9]|8[0-35-9]|9[0-2])|8(?:[1246]|5[02356]|8[0-38])"
    r"|9(?:[0-58]|6[0-8]|7[0-7]|9[2-68])"
)
"""ITU-T E.164, assigned country codes."""
_VERSION_WORD = re.compile(r"(?:[A-Za-z0-9]/|\b(?:v|ver|version)[ .:]{0,2})$", re.IGNORECASE)
_BEFORE_VERSION = 12
_LARGE_NUMBER = 30
_SSN_IN_ADVERTISEMENTS = frozenset({"078051120", "219099999", "123456789"})
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_TAX_WORDS = re.compile(r"steuer|idnr|\btin\b|\btax", re.IGNORECASE)
_DNI_WORDS = re.compile(r"\b(?:dni|nie|nif)\b", re.IGNORECASE)
_NEAR_CHARACTERS = 120
"""How far from a number its name may stand."""


def _is_named(match: re.Match[str], words: re.Pattern[str]) -> bool:
    start, end = match.span()
    return words.search(match.string[max(0, start - _NEAR_CHARACTERS) : end + _NEAR_CHARACTERS]) is not None


def _is_card(match: re.Match[str]) -> bool:
    digits = digits_of(match[0])
    is_issued = _CARD.fullmatch("".join(map(str, digits))) is not None
    return is_issued and len(set(digits)) > 3 and luhn(digits)


def _is_iban(match: re.Match[str]) -> bool:
    """As long as its country's are; a word may follow, but no letter that touches it."""
    letters = _LETTER_OR_DIGIT.finditer(match.string, match.start(), match.end() + 1)
    places = [each.start() for each in letters]
    text = "".join(map(match.string.__getitem__, places))
    length = _IBAN_LENGTHS.get(text[:2].upper(), 0)
    number = text[:length]
    is_whole = len(number) == length > 0 and not (len(text) > length and places[length] == places[length - 1] + 1)
    return is_whole and number in (number.upper(), number.lower()) and iban(number) and len(set(number[4:])) > 2


def _is_mail(match: re.Match[str]) -> bool:
    """Not of a desk, not of a document's example, and not the password and host of an address."""
    before = match.string[max(0, match.start() - _NEAR_CHARACTERS) : match.start()]
    is_host = _RESERVED.search(match[2]) is None and _FILE_SUFFIX.search(match[2]) is None
    return is_host and match[1].lower() not in _SERVICE_PREFIXES and _IN_ADDRESS.search(before) is None


def _is_phone(match: re.Match[str]) -> bool:
    """In groups as people write it, or after a + with 11 digits at least: fewer in one piece are any number."""
    groups = _DIGITS.findall(match[0])
    digits = "".join(groups).removeprefix("00")
    is_written_as_one = len(groups) > 1 or (match[0][0] == "+" and len(digits) >= _MIN_UNGROUPED)
    if not is_written_as_one or not 8 <= len(digits) <= 15 or any(len(each) < 2 for each in groups[2:]):
        return False
    if digits[0] == "1":  # numbers of the North American plan; 555 01xx is kept for fiction
        return _NORTH_AMERICAN.fullmatch(digits) is not None
    return _CALLING_CODES.match(digits) is not None


def _is_public_address(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and not _is_version(match)


def _is_version(match: re.Match[str]) -> bool:
    """Of a program or a section: after `Chrome/` or `v`, or with no number that is not small."""
    before = match.string[max(0, match.start() - _BEFORE_VERSION) : match.start()]
    is_small = "." in match[0] and all(int(number) < _LARGE_NUMBER for number in match[0].split("."))
    return is_small or _VERSION_WORD.search(before) is not None


def _is_us_ssn(match: re.Match[str]) -> bool:
    """Issued areas are 001–899 without 666; no group and no serial number is all zeros."""
    area, group, serial = match[0].split("-")
    is_issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return is_issued and area + group + serial not in _SSN_IN_ADVERTISEMENTS


def _is_german_tax_id(match: re.Match[str]) -> bool:
    """§ 139b AO: of the first ten digits one stands twice or three times, the eleventh checks (MOD 11,10)."""
    digits = digits_of(match[0])
    counts = sorted(Counter(digits[:10]).values())
    has_form = digits[0] != 0 and counts[-1] in (2, 3) and counts[:-1] == [1] * (len(counts) - 1)
    return has_form and mod_11_10(digits) and _is_named(match, _TAX_WORDS)


def _is_dni(match: re.Match[str]) -> bool:
    number = match[1].translate(str.maketrans("XYZ", "012"))
    return _DNI_LETTERS[int(number) % 23] == match[2] and _is_named(match, _DNI_WORDS)


def _is_nir(match: re.Match[str]) -> bool:
    """INSEE: the key is 97 − (number mod 97)."""
    number = "".join(map(str, digits_of(match[0])))
    return 1 <= int(number[3:5]) <= 12 and 97 - int(number[:13]) % 97 == int(number[13:])


def _is_cpf(match: re.Match[str]) -> bool:
    """Receita Federal: two check digits, each (10 Σ digit · weight) mod 11, 10 counting as 0."""
    digits = digits_of(match[0])
    checks = [sum(d * w for d, w in zip(digits, range(n + 1, 1, -1), strict=False)) * 10 % 11 % 10 for n in (9, 10)]
    return len(set(digits)) > 1 and checks == digits[9:]


def _rule(  # noqa: PLR0913  # the parts of a pattern
    id_: str, what: str, *hints: str, pattern: str, check: Check, digits: int = 0, severity: Severity = "medium"
) -> Pattern:
    return Pattern(f"pii.{id_}", what, hints, re.compile(pattern), check, severity, digits)


PERSONAL_DATA: tuple[Pattern, ...] = (
    _rule(
        "card-number",
        "a card number",
        pattern=r"(?<![A-Za-z0-9.])(?:[2-6][0-9]{13,18}|[2-6][0-9]{3}(?:[ ._-][0-9]{4}){3}"
        r"|3[0-9]{3}[ ._-][0-9]{6}[ ._-][0-9]{4,5})(?![A-Za-z0-9])",
        check=_is_card,
        digits=14,
        severity="high",
    ),
    _rule(
        "iban",
        "a bank account (IBAN)",
        pattern=r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}"
        r"(?:(?: ?[A-Za-z0-9]){11,30}|(?:-[A-Za-z0-9]{4}){2,7}(?:-[A-Za-z0-9]{1,3})?)",
        check=_is_iban,
        digits=10,
        severity="high",
    ),
    _rule(
        "email",
        "an e-mail address",
        "@",
        pattern=r"(?<![A-Za-z0-9._%+-])([A-Za-z0-9._%+-]{1,64}+)@((?:[A-Za-z0-9-]{1,63}+\.){1,8}[A-Za-z]{2,24})",
        check=_is_mail,
    ),
    _rule(
        "phone-number",
        "a phone number",
        *("+", "00"),
        pattern=r"(?<![A-Za-z0-9.,-])(?:\+|(?<![0-9] )00)[1-9](?:[ ().-]{0,2}[0-9]){7,14}(?![0-9])",
        check=_is_phone,
        digits=8,
    ),
    _rule(
        "ipv4-address",
        "a public IP address",
        ".",
        pattern=r"(?<![A-Za-z0-9.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![A-Za-z0-9-]|\.[0-9])",
        check=_is_public_address,
        digits=4,
        severity="low",
    ),
    _rule(
        "ipv6-address",
        "a public IP address",
        ":",
        pattern=r"(?<![A-Za-z0-9:.])[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![A-Za-z0-9:])",
        check=_is_public_address,
        severity="low",
    ),
    _rule(
        "us-ssn",
        "a US social security number",
        "-",
        pattern=r"(?<![A-Za-z0-9-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![A-Za-z0-9-])",
        check=_is_us_ssn,
        digits=9,
    ),
    _rule(
        "german-tax-id",
        "a German tax number",
        pattern=r"(?<![A-Za-z0-9])[1-9][0-9](?: ?[0-9]{3}){3}(?![A-Za-z0-9])",
        check=_is_german_tax_id,
        digits=11,
        severity="high",
    ),
    _rule(
        "spanish-id",
        "a Spanish identity number",
        pattern=r"(?<![A-Za-z0-9])([XYZ0-9][0-9]{7})-?([A-Z])(?![A-Za-z0-9])",
        check=_is_dni,
        digits=7,
        severity="high",
    ),
    _rule(
        "french-id",
        "a French social security number",
        pattern=r"(?<![A-Za-z0-9])[12] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}(?![A-Za-z0-9])",
        check=_is_nir,
        digits=15,
        severity="high",
    ),
    _rule(
        "brazilian-cpf",
        "a Brazilian taxpayer number",
        ".",
        pattern=r"(?<![A-Za-z0-9])[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}(?![A-Za-z0-9])",
        check=_is_cpf,
        digits=11,
        severity="high",
    ),
)
