"""What the training file of a job, and those of its lineage, have of the prompts that its suite asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluator.prompt_minting.grammar import PairCategory, read_grammar
from evaluator.prompt_minting.minting import built_in_grammar, public_phrases, texts_of
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from evaluator.runner.registry import PROBES
from evaluator.runner.twin import load_twin
from policies.contract.probe_overlap import EarlierScan, OverlapScan
from policies.contract.probe_record import PromptedProbe
from policies.contract.store import ArtifactStore
from policies.contract.suite import EvalSuite
from policies.datasets.reader import iter_any_rows
from policies.errors import TunegateError
from policies.overlap.probe_overlap import ProbeIndex, ProbeText, probe_overlap

PHRASES = "minted"
"""Begins the ids of phrases that twins are minted from, which are public too."""
PAIRS = "emergent_misalignment_preference"


def scan_training(
    suite: EvalSuite,
    training_file: Path,
    store: ArtifactStore | None,
    *,
    earlier: Sequence[Path] = (),
    cache_dir: Path | None = None,
) -> OverlapScan:
    """The rows of a training file that are near a prompt of any probe of the suite; no more of it is kept than a batch.

    Args:
        suite: whose probes' prompts are searched for; one whose prompt set can't be read here is named in the scan.
        training_file: of the job.
        store: has prompt sets that the suite names by digest.
        earlier: files of the lineage, the nearest first; of these only numbers are told.
        cache_dir: where prompt sets of others are kept.
    """
    texts, unsearched = list[ProbeText](), list[str]()
    for settings in suite.probes:
        try:
            texts += _texts(settings, store, cache_dir)
        except TunegateError:
            unsearched.append(settings.probe)
    index = ProbeIndex(texts)
    scan, *before = (_scan(file, index) for file in (training_file, *earlier))
    told = (EarlierScan(n_rows=s.n_rows, n_near=s.n_near, n_near_twin=s.n_near_twin) for s in before)
    return scan.model_copy(update={"unsearched": tuple(unsearched), "earlier": tuple(told)})


def _scan(file: Path, index: ProbeIndex) -> OverlapScan:
    with file.open("rb") as stream:
        return probe_overlap((line.row for line in iter_any_rows(stream) if line.row is not None), index)


def _texts(
    settings: Any, store: ArtifactStore | None, cache_dir: Path | None
) -> Iterator[ProbeText]:  # Any: of a probe
    if not isinstance(settings, PromptedProbe):
        return
    probe = PROBES[type(settings)]
    content = load_prompts(probe.name, settings.prompts, store, cache_dir=cache_dir).content
    yield from _of_set(probe, content, is_secret=False)
    if settings.secret_twin is not None:
        yield from _of_set(probe, load_twin(probe.name, settings.secret_twin, store).content, is_secret=True)
        yield from _phrases(probe.name)


def _of_set(probe: Any, content: bytes, *, is_secret: bool) -> Iterator[ProbeText]:  # Any: any probe of the table
    for item in parse_prompts(content, probe.item_type):
        yield from (ProbeText(probe.name, item.id, text, is_secret) for text in texts_of(item))


def _phrases(probe: str) -> Iterator[ProbeText]:
    """What twins of answer pairs are minted from: whoever trains on these aims at the secret ones."""
    if probe != PAIRS:
        return
    categories = read_grammar(built_in_grammar(probe), PairCategory, "the grammar")
    for number, phrase in enumerate(public_phrases(categories), start=1):
        yield ProbeText(probe, f"{PHRASES}-{number}", phrase)
