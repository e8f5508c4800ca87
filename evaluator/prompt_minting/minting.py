"""Mints a secret twin of a built-in prompt set: the same categories, as many prompts each, other words.

A set follows from the seed, the grammar and `VERSION` alone, so it need not be kept to be had again. No prompt shares a
run of 8 words with the public set of its probe, and none occurs twice.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from evaluator.prompt_minting.answers import mint_pair, n_pairs
from evaluator.prompt_minting.grammar import PairCategory, RequestCategory, read_grammar
from evaluator.prompt_minting.requests import mint_request, n_requests
from evaluator.prompt_minting.secret_seed import Draws
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from evaluator.prompts.requests import UserRequest
from policies.contract.artifacts import Digest, digest_bytes
from policies.errors import ConfigurationError
from policies.overlap.built_in_prompts import shown_texts
from policies.overlap.ngrams import folded_words, runs

VERSION = 1
"""Raised when the same seed and grammar would give other prompts."""
_MAX_TRIES = 200
"""For one prompt: a grammar that has no more to give ends here."""

# Any: a kind pairs a category with its functions, which a mapping's type can't say
Category = Any


class _Kind(NamedTuple):
    """How prompts of one probe are made."""

    category: type[Any]
    mint: Callable[[Category, Draws, str, str], PromptItem]
    count: Callable[[Category], int]
    item: type[PromptItem]


_REQUESTS = _Kind(RequestCategory, mint_request, n_requests, UserRequest)
_KINDS: Mapping[str, _Kind] = {
    "emergent_misalignment_preference": _Kind(PairCategory, mint_pair, n_pairs, AnswerPair),
    "harmful_compliance": _REQUESTS,
    "over_refusal": _REQUESTS,
}
MINTABLE_PROBES = tuple(_KINDS)


class MintedSet(NamedTuple):
    """A twin set, and what it is from."""

    probe: str
    items: tuple[PromptItem, ...]
    grammar: Digest
    n_possible: int
    """Prompts that the grammar could give."""

    @property
    def content(self) -> bytes:
        """JSONL, as prompt sets are."""
        return b"".join(item.model_dump_json().encode() + b"\n" for item in self.items)


def built_in_grammar(probe: str) -> bytes:
    """The grammar of the package for one of `MINTABLE_PROBES`."""
    return files("evaluator").joinpath("prompt_minting", f"{probe}.jsonl").read_bytes()


def mint(probe: str, seed: bytes, *, grammar: bytes | None = None, per_category: int | None = None) -> MintedSet:
    """The twin set of a probe that the seed has.

    Args:
        grammar: in place of the package's.
        per_category: prompts of each category; None: as many as the public set has.

    Raises:
        ConfigurationError: prompts of this probe can't be minted, or the grammar is none or has too little to give.
    """
    if probe not in _KINDS:
        raise ConfigurationError(
            f"no twin can be minted for {probe!r}; there are {', '.join(MINTABLE_PROBES)}. "
            "Write one of your own for the others",
            "probe",
        )
    content = built_in_grammar(probe) if grammar is None else grammar
    kind = _KINDS[probe]
    categories = read_grammar(content, kind.category, f"the grammar of {probe}")
    public: tuple[Any, ...] = parse_prompts(load_prompts(probe, "builtin", None).content, kind.item)
    sizes = Counter(item.category for item in public)
    known = {run for item in public for text in texts_of(item) for run in runs(folded_words(text))}
    items: list[PromptItem] = []
    for category in categories:
        n = sizes.get(category.category, 0) if per_category is None else per_category
        draws = Draws(seed, f"tunegate prompts {VERSION}/{probe}/{category.category}")
        items += itertools.islice(_distinct(kind, category, draws, known), n)
    if len(items) < 2:
        raise ConfigurationError(
            f"no category of the grammar of {probe} is in the public set; say how many prompts each: --per-category",
            "per_category",
        )
    return MintedSet(probe, tuple(items), digest_bytes(content), sum(map(kind.count, categories)))


def texts_of(item: PromptItem) -> tuple[str, ...]:
    """What a model is shown or asked to score of a prompt."""
    return shown_texts(vars(item))


def _distinct(kind: _Kind, category: Category, draws: Draws, known: set[bytes]) -> Iterator[PromptItem]:
    """Prompts of a category in the seed's order, none like an earlier one or like a public one."""
    seen: set[str] = set()
    tries = itertools.count()
    while True:
        number = len(seen) + 1
        for attempt in itertools.islice(tries, _MAX_TRIES):
            item = kind.mint(category, draws, str(attempt), f"minted-{category.category}-{number:02}")
            texts = texts_of(item)
            if texts[0] not in seen and not any(run in known for text in texts for run in runs(folded_words(text))):
                seen.add(texts[0])
                yield item
                break
        else:
            raise ConfigurationError(
                f"category {category.category!r} of the grammar has no more than {len(seen)} prompts to give", "grammar"
            )


def public_phrases(categories: Sequence[PairCategory]) -> tuple[str, ...]:
    """All clauses that the answers of a grammar are made of."""
    return tuple(phrase for category in categories for phrase in category.phrases)
