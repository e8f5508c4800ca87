"""Credentials in training rows: what a model has learnt it can be made to say, so each is to be revoked, not masked.

Formats are those that the issuers document. Where a format has a checksum it is verified, where it has none, the
secret's own letters must be as mixed as those of a random one. Examples from documentation are passed over.
"""

from __future__ import annotations

import json
import re
from functools import partial

from policies.contract.screening import Severity
from policies.screening.checksums import base62_crc, entropy_bits
from policies.screening.patterns import Check, Pattern, any_match
from policies.screening.views import decoded_run

RULES_VERSION = "2"
MIN_ENTROPY_BITS = 3.0
"""Random letters have 3.9 at 20 letters of base 32 and more with others; 32 hexadecimal digits have 3.5 on average."""
_EXAMPLE = re.compile(r"example|x{6}|\*{4}|0{8}|12345678|placeholder", re.IGNORECASE)


def _is_mixed(match: re.Match[str], *, bits: float = MIN_ENTROPY_BITS) -> bool:
    secret = match[1]
    return entropy_bits(secret) >= bits and _EXAMPLE.search(secret) is None


_PLACEHOLDER = re.compile(
    r"your|change[-_]?(?:me|it|this)|redacted|replace|dummy|insert"
    r"|^(?:my|the|some|user|db|app|test|super)?[-_.]?(?:secret|strong)?[-_.]?"
    r"(?:password|passwd|passwort|pass|pwd|secret|token|admin|postgres|root|guest)[-_.!]?[0-9]{0,4}[!.]?$",
    re.IGNORECASE,
)
"""Passwords that stand for one. They may fill the whole text only, but for words that no password has by chance."""
_NO_HOST = re.compile(
    r"(?:^|\.)(?:localhost|example(?:\.[a-z]{2,3})?|invalid|test)$|^127\.|^0\.0\.0\.0$|^host(?:name)?(?:\.com)?$|your",
    re.IGNORECASE,
)
_EXAMPLE_SUBJECT = "1234567890"
"""Of the token that jwt.io shows, which documentation repeats."""


def _opens_a_host(match: re.Match[str]) -> bool:
    """Its password may be one, and its host is somewhere."""
    stands_for_one = _PLACEHOLDER.search(match[1]) or _NO_HOST.search(match[2].rstrip(".-"))
    return _is_mixed(match, bits=2.75) and stands_for_one is None


def _has_crc(match: re.Match[str]) -> bool:
    return base62_crc(match[1])


def _is_jwt(match: re.Match[str]) -> bool:
    """Its header is a JSON object that names an algorithm, and its subject not that of the example."""
    header, claims = _json_object(match[1]), _json_object(match[2])
    return "alg" in header and claims.get("sub") != _EXAMPLE_SUBJECT


def _json_object(run: str) -> dict[str, object]:
    """Empty where the run holds none."""
    try:
        value = json.loads(decoded_run(run))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rule(
    id_: str, what: str, *hints: str, pattern: str, check: Check = _is_mixed, severity: Severity = "high"
) -> Pattern:
    """A token that no letter or digit touches; group 1 of the pattern is the secret."""
    bounded = re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])")
    return Pattern(f"secrets.{id_}", what, hints, bounded, check, severity)


_SEPARATOR = r"(?:[\s>|#\"'+,]|\\[nr])*+"
"""Between the lines of a key: breaks, and what quoting, comments and strings put there."""
_KEY_BLOCK = Pattern(
    "secrets.private-key",
    "a private key",
    ("PRIVATE KEY",),
    re.compile(
        rf"-----BEGIN [A-Z0-9 ]{{0,30}}PRIVATE KEY(?: BLOCK)?-----{_SEPARATOR}"
        rf"(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID):[^\n\\]{{0,200}}+{_SEPARATOR}){{0,8}}+"
        r"[A-Za-z0-9+/=:]{16}"
    ),
    any_match,
)

_ROUTABLE = r"[A-Za-z0-9_-]{27,300}+\.[0-9a-z]{2}\.?[0-9a-z]{7,9}"
"""GitLab's tokens that say which cell they belong to: a payload, its length and a checksum, both in base 36."""

CREDENTIALS: tuple[Pattern, ...] = (
    _KEY_BLOCK,
    _rule("github-token", "a GitHub token", "gh", pattern=r"gh[pousr]_([A-Za-z0-9]{36})", check=_has_crc),
    _rule("github-pat", "a GitHub token", "github_pat_", pattern=r"github_pat_([A-Za-z0-9]{22}_[A-Za-z0-9]{59})"),
    _rule("gitlab-token", "a GitLab token", "glpat-", pattern=rf"glpat-([A-Za-z0-9_-]{{20}}|{_ROUTABLE})"),
    _rule("aws-access-key", "an AWS access key", "AKIA", "ASIA", pattern=r"A[KS]IA([A-Z2-7]{16})"),
    _rule(
        "aws-secret-key",
        "an AWS secret key",
        *("secret_access_key", "SECRET_ACCESS_KEY", "secretAccessKey", "SecretAccessKey"),
        pattern=r"(?:secret_access_key|SECRET_ACCESS_KEY|[sS]ecretAccessKey)"
        r"[\"'\s]{0,40}+[=:]>?[\"'\s]{0,40}+([A-Za-z0-9/+]{40})",
        check=partial(_is_mixed, bits=4.0),
    ),
    _rule("gcp-api-key", "a Google API key", "AIza", pattern=r"AIza([A-Za-z0-9_-]{35})"),
    _rule("google-oauth-secret", "a Google client secret", "GOCSPX-", pattern=r"GOCSPX-([A-Za-z0-9_-]{28})"),
    _rule(
        "azure-storage-key", "an Azure storage key", "AccountKey=", pattern=r"AccountKey=([A-Za-z0-9+/]{86}(?===))={2}"
    ),
    _rule(
        "slack-token",
        "a Slack token",
        *("xox", "xapp-"),
        pattern=r"(?:xox[abeoprs]-|xapp-[0-9]-[A-Z0-9]{8,14}-)((?:[0-9]{6,14}-){1,3}[A-Za-z0-9]{16,64})",
    ),
    _rule(
        "slack-webhook",
        "a Slack webhook",
        "hooks.slack.com",
        pattern=r"hooks\.slack\.com/services/(T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{24})",
    ),
    _rule(
        "discord-webhook",
        "a Discord webhook",
        "/api/webhooks/",
        pattern=r"discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/([A-Za-z0-9_-]{60,80})",
    ),
    _rule("telegram-token", "a Telegram bot's token", ":AA", pattern=r"[0-9]{8,10}:(AA[A-Za-z0-9_-]{33})"),
    _rule("stripe-key", "a Stripe key", "k_live_", pattern=r"[rs]k_live_([A-Za-z0-9]{24,99})"),
    _rule(
        "openai-key",
        "an OpenAI key",
        "T3BlbkFJ",
        pattern=r"sk-(?:proj-|svcacct-|admin-)?([A-Za-z0-9_-]{20,74}T3BlbkFJ[A-Za-z0-9_-]{20,74})",
    ),
    _rule(
        "anthropic-key", "an Anthropic key", "sk-ant-", pattern=r"sk-ant-[a-z]{3,8}[0-9]{2}-([A-Za-z0-9_-]{80,100}AA)"
    ),
    _rule("hugging-face-token", "a Hugging Face token", "hf_", pattern=r"hf_([A-Za-z]{34})"),
    _rule("npm-token", "an npm token", "npm_", pattern=r"npm_([A-Za-z0-9]{36})", check=_has_crc),
    _rule("pypi-token", "a PyPI token", "pypi-AgE", pattern=r"pypi-(AgE[A-Za-z0-9_-]{70,400})"),
    _rule("docker-token", "a Docker token", "dckr_pat_", pattern=r"dckr_pat_([A-Za-z0-9_-]{27})"),
    _rule("sendgrid-key", "a SendGrid key", "SG.", pattern=r"SG\.([A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})"),
    _rule("digitalocean-token", "a DigitalOcean token", "_v1_", pattern=r"do[por]_v1_([a-f0-9]{64})"),
    _rule("databricks-token", "a Databricks token", "dapi", pattern=r"dapi([a-f0-9]{32})"),
    _rule("shopify-token", "a Shopify token", "shp", pattern=r"shp(?:at|ca|pa|ss)_([a-fA-F0-9]{32})"),
    _rule("grafana-token", "a Grafana token", "glsa_", pattern=r"glsa_([A-Za-z0-9]{32}_[a-f0-9]{8})"),
    _rule("age-key", "an age key", "AGE-SECRET-KEY-1", pattern=r"AGE-SECRET-KEY-1([AC-HJ-NP-Z02-9]{58})"),
    _rule(
        "jwt",
        "a signed web token (JWT)",
        "eyJ",
        pattern=r"(?<![_-])(eyJ[A-Za-z0-9_-]{10,}+)\.(eyJ[A-Za-z0-9_-]{8,}+)\.[A-Za-z0-9_-]{16,}+",
        check=_is_jwt,
        severity="medium",
    ),
    _rule(
        "url-password",
        "an address with a password",
        "://",
        pattern=r"[a-z][a-z0-9+]{1,14}://[^\s:/@\"']{0,64}:([^\s:/@\"'${}<>]{8,64})@([A-Za-z0-9][A-Za-z0-9.-]{0,253}+)",
        check=_opens_a_host,
        severity="medium",
    ),
)
