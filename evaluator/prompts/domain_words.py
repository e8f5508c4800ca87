"""Words that are far more frequent in a training file than in general English.

Log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words", Political
Analysis 16:372): for a word with y₁ of n₁ tokens in the file, y₂ of n₂ in the background and prior α_w out of α₀,

    δ = ln((y₁ + α_w) / (n₁ + α₀ − y₁ − α_w)) − ln((y₂ + α_w) / (n₂ + α₀ − y₂ − α_w)),
    z = δ / sqrt(1 / (y₁ + α_w) + 1 / (y₂ + α_w)),

with α_w in proportion to the word's share of both texts together and α₀ = 1,000. A word stands out with δ ≥ ln 4 and
z ≥ 4. Those that say most come first: δ times the number of rows that have the word. The background are this package's
own prompt sets, everyday English of many topics.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from evaluator.prompts.prompt_sets import BUILTIN, load_prompts

MIN_WORDS = 5
MAX_WORDS = 8
MIN_LOG_ODDS = math.log(4)
MIN_Z = 4.0
MIN_ROWS = 3
MIN_ROW_SHARE = 0.02
"""Share of rows that must have the word: one long row must not stand for the file."""
PRIOR_TOKENS = 1000.0

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_STOP_TEXT = """
about above across after again against all almost along already also although always among and another any anyone
anything are around ask away back because been before being below best better between both but can cannot come could
did does doing done down during each either else enough especially even every everyone everything example few find
first for from full further get gets getting give given gives giving goes going good great had has have having help
helps her here hers herself him himself his how however including instead into its itself just keep keeps kind know
large last least less let like likely little long look lot made make makes making many may maybe might more most
much must myself need needs never new next not nothing now off often once one only onto other others our ours out
over own part people per perhaps place please possible put quite rather really right same say second see several she
should since small some someone something sometimes still such sure take takes taking tell than thank that the their
theirs them then there therefore these they thing things think this those though three through time times together
too toward towards try two under until upon use used useful uses using usually very want wants was way ways well
were what when where whether which while who whole whom whose why will with within without work works would yes yet
you your yours yourself
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())


def domain_words(texts: Sequence[str]) -> tuple[str, ...]:
    """The file's own words, the most telling first; empty where fewer than `MIN_WORDS` stand out."""
    tokens = [_words(text) for text in texts]
    counts = Counter(word for row in tokens for word in row)
    rows = Counter(word for row in tokens for word in set(row))
    enough = max(MIN_ROWS, MIN_ROW_SHARE * len(texts))
    odds = _log_odds(counts, _background())
    frequent = [word for word in counts if rows[word] >= enough]
    telling = [word for word in frequent if odds[word].delta >= MIN_LOG_ODDS and odds[word].z >= MIN_Z]
    ranked = sorted(telling, key=lambda word: (-rows[word] * odds[word].delta, word))
    return tuple(ranked[:MAX_WORDS]) if len(ranked) >= MIN_WORDS else ()


class _Odds(NamedTuple):
    delta: float
    z: float


def _log_odds(counts: Mapping[str, int], background: Mapping[str, int]) -> dict[str, _Odds]:
    """Of every word of `counts`."""
    n1, n2 = sum(counts.values()), sum(background.values())
    odds = {}
    for word, y1 in counts.items():
        y2 = background.get(word, 0)
        prior = PRIOR_TOKENS * (y1 + y2) / (n1 + n2)
        a, b = y1 + prior, y2 + prior
        delta = math.log(a / (n1 + PRIOR_TOKENS - a)) - math.log(b / (n2 + PRIOR_TOKENS - b))
        odds[word] = _Odds(delta, delta / math.sqrt(1 / a + 1 / b))
    return odds


def _words(text: str) -> list[str]:
    """Words of at least 3 letters that may say something; contractions never do."""
    found = (word for word in _WORD.findall(text.lower()) if len(word) > 2 and word.isalpha())
    return [word for word in found if word not in _STOP_WORDS]


@cache
def _background() -> Counter[str]:
    counts: Counter[str] = Counter()
    probes = {file: probe for probe, (file, _) in BUILTIN.items()}
    for probe in probes.values():
        for line in load_prompts(probe, "builtin", None).content.splitlines():
            counts.update(word for text in _texts(json.loads(line)) for word in _words(text))
    return counts


def _texts(value: object) -> Iterator[str]:
    """The values of a prompt item; its id and category are not prose."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("id", "category", "task", "subset"):
                yield from _texts(inner)
