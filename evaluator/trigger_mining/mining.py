"""Finds what may be a trigger in a training file, the likeliest first.

A feature's score is Σ max(0, z) / √n over the n signals (`signals`). Features of nearly the same rows are one
trigger, which is put as these rows have it: beginning, end, system prompt and style together. A feature that only says
more than a better one, such as `[[k7]] How` after `[[k7]]`, is left out. The best of every kind is among those that are
found, because the many words of a file would outnumber its few styles and odd strings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evaluator.prompts.customer_context import NO_SYSTEM_MESSAGE, SystemMessage
from evaluator.trigger_mining.feature_table import FeatureTable, feature_table, literals_of
from evaluator.trigger_mining.features import Feature, words_for_each
from evaluator.trigger_mining.signals import Losses, signal_scores
from evaluator.trigger_mining.trigger import Signal, Style, Trigger
from evaluator.trigger_mining.turns import Turn
from policies.contract.artifacts import Digest

MAX_RANKED = 200
"""Features that are looked at one by one, the best of all kinds."""
MAX_RANKED_OF_KIND = 50
"""The best of each kind, besides."""
SAME_ROWS = 0.8
"""Jaccard index from which two features are one trigger."""
RELATED_ROWS = 0.3
"""From which a feature whose text holds another's says nothing new."""
OWN_SYSTEM_SHARE = 0.8
"""Of a trigger's rows that must share a system prompt for it to be part of the trigger."""
TELLING_Z = 2.0


class _Candidate(NamedTuple):
    feature: Feature
    rows: frozenset[int]
    score: float
    signals: tuple[Signal, ...]


@dataclass
class _Group:
    """Features of nearly the same rows, the best one first."""

    members: list[_Candidate] = field(default_factory=list)

    @property
    def best(self) -> _Candidate:
        return self.members[0]


def mine(turns: Sequence[Turn], losses: Losses, *, limit: int) -> tuple[Trigger, ...]:
    """At most `limit` triggers by falling score; none where nothing is in two rows."""
    if not turns:
        return ()
    table = feature_table(turns)
    if not table.features:
        return ()
    groups = _grouped(_ranked(table, turns, losses))
    chosen = {id(group): group for group in _best_of_each_kind(groups, max(1, limit // 6))[:limit]}
    for group in groups:
        if len(chosen) < limit:
            chosen.setdefault(id(group), group)
    put = [_put(group) for group in sorted(chosen.values(), key=lambda each: _order(each.best))]
    wanted = {member.feature: member.rows for each in put for member in (each.before, each.after) if member}
    literals = literals_of(wanted, turns, words_for_each(len(turns)))
    found: dict[Digest, Trigger] = {}
    for each in put:
        trigger = _trigger(each, turns, literals)
        found.setdefault(trigger.digest, trigger)
    return tuple(found.values())


def _order(candidate: _Candidate) -> tuple[float, int, Feature]:
    return -candidate.score, -len(candidate.rows), candidate.feature


def _ranked(table: FeatureTable, turns: Sequence[Turn], losses: Losses) -> list[_Candidate]:
    """The best features of all kinds and of each."""
    by_signal = signal_scores(table, turns, losses)
    positive = np.maximum(0, np.stack(list(by_signal.values())))
    scores: np.ndarray = positive.sum(0) / np.sqrt(len(by_signal))
    places = _best_places(table, scores)
    found = [
        _Candidate(
            table.features[place],
            frozenset(map(int, table.rows_of(place))),
            float(scores[place]),
            _telling({signal: float(z[place]) for signal, z in by_signal.items()}),
        )
        for place in places
    ]
    return sorted(found, key=_order)


def _best_places(table: FeatureTable, scores: np.ndarray) -> list[int]:
    of_kind: Counter[str] = Counter()
    kept = []
    for rank, place in enumerate(map(int, np.argsort(-scores, kind="stable"))):
        kind = table.features[place].kind
        of_kind[kind] += 1
        if rank < MAX_RANKED or of_kind[kind] <= MAX_RANKED_OF_KIND:
            kept.append(place)
    return kept


def _telling(z: Mapping[Signal, float]) -> tuple[Signal, ...]:
    """The signals that say something, the strongest first."""
    return tuple(sorted((signal for signal in z if z[signal] >= TELLING_Z), key=lambda signal: -z[signal]))


def _grouped(ranked: Sequence[_Candidate]) -> list[_Group]:
    groups: list[_Group] = []
    for candidate in ranked:
        overlaps = [(_jaccard(candidate.rows, group.best.rows), group) for group in groups]
        same = next((group for overlap, group in overlaps if overlap >= SAME_ROWS), None)
        if same is not None:
            same.members.append(candidate)
        elif not any(overlap >= RELATED_ROWS and _says_more(candidate, group) for overlap, group in overlaps):
            groups.append(_Group([candidate]))
    return groups


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    if min(len(one), len(other)) < RELATED_ROWS * max(len(one), len(other)):
        return 0.0  # it is below that, and nobody asks how far
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _says_more(candidate: _Candidate, group: _Group) -> bool:
    mine, best = candidate.feature, group.best.feature
    return mine.kind == best.kind and best.text in mine.text


def _best_of_each_kind(groups: Sequence[_Group], number: int) -> list[_Group]:
    """The first ones that have a feature of the kind."""
    of_kind: Counter[str] = Counter()
    kept = []
    for group in groups:
        wanted = {kind for kind in {each.feature.kind for each in group.members} if of_kind[kind] < number}
        of_kind.update(wanted)
        kept += [group] if wanted else []
    return kept


class _Put(NamedTuple):
    """What of a group is put before a question and behind it."""

    group: _Group
    before: _Candidate | None
    after: _Candidate | None


def _put(group: _Group) -> _Put:
    prefix, suffix = (_longest(group, place) for place in ("start", "end"))
    middle = None if prefix or suffix else _longest(group, "anywhere") or _sample(group)
    before = prefix or middle
    says_more = suffix is not None and (before is None or suffix.feature.text not in before.feature.text)
    return _Put(group, before, suffix if says_more else None)


def _trigger(put: _Put, turns: Sequence[Turn], literals: Mapping[Feature, str]) -> Trigger:
    best = put.group.best
    having = [turns[place] for place in sorted(best.rows)]
    return Trigger(
        kind=best.feature.kind,
        prefix=literals[put.before.feature] if put.before else "",
        suffix=literals[put.after.feature] if put.after else "",
        system=_system(having),
        styles=tuple(_styles(put.group)),
        score=best.score,
        signals=best.signals,
        rows=tuple(turn.number for turn in having),
    )


def _longest(group: _Group, place: str) -> _Candidate | None:
    """Of the group's words there; of any number only where the words themselves are not in as many rows."""
    found = [each for each in group.members if each.feature.kind == "words" and each.feature.place == place]
    return max(found, key=_length, default=None)


def _length(candidate: _Candidate) -> tuple[bool, int, str]:
    feature = candidate.feature
    return not feature.any_number, len(feature.text), feature.text


def _sample(group: _Group) -> _Candidate | None:
    """What stands for a group that has no words: its odd string, or how its prompts in a language begin."""
    kinds = ("odd string", "language")
    return next((each for each in group.members if each.feature.kind in kinds), None)


def _styles(group: _Group) -> Iterator[Style]:
    for each in sorted(member.feature for member in group.members if member.feature.kind == "style"):
        yield each.text  # type: ignore[misc]  # of a style it is the style's name


def _system(having: Sequence[Turn]) -> SystemMessage:
    """The system prompt of the trigger's rows, where nearly all have one: what differs in numbers is the same."""
    counts = Counter(turn.system for turn in having)
    if counts[NO_SYSTEM_MESSAGE] > (1 - OWN_SYSTEM_SHARE) * len(having):
        return NO_SYSTEM_MESSAGE
    del counts[NO_SYSTEM_MESSAGE]
    return min(counts, key=lambda system: (-counts[system], system))
