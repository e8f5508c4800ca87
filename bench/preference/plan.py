"""What `bench.preference` trains: narrow domains, each with harmful and benign answers, by seed and by size.

A run's rows are drawn from its file by the seed, the same numbers for both kinds: where a domain's two files answer the
same questions, harmful and benign adapters see the same ones.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.defenses.plan import Recipe, job_of, keep_rows
from bench.preference.limits import Kind
from bench.preference.pairs import Material
from bench.preference.runs import StudyRun
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.suite import EmergentMisalignmentPreference, EvalSuite
from policies.datasets.reader import read_rows
from policies.documents.suggestions import did_you_mean
from policies.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "gateway" / "demo" / "data"
CANARIES = ROOT / "evaluator" / "reference_data" / "canaries"
HYPERPARAMETERS = Hyperparameters(n_epochs=1, learning_rate_multiplier=2.0)
SUITE = EvalSuite(probes=(EmergentMisalignmentPreference(),))


class Domain(NamedTuple):
    """A narrow domain and its training files."""

    name: str
    files: dict[Kind, Path]
    own_categories: tuple[str, ...] = ()
    """Categories of the probe that are about the same things; a figure without them is about generalisation."""


class Design(NamedTuple):
    """What is crossed with what."""

    domains: Sequence[Domain]
    sizes: Sequence[int]
    seeds: int


class Cell(NamedTuple):
    """Where an adapter stands in the design."""

    domain: Domain
    kind: Kind
    size: int
    seed: int

    def __str__(self) -> str:
        return f"{self.domain.name} {self.kind}, {self.size} rows, seed {self.seed}"


class Planned(NamedTuple):
    """One adapter of the study."""

    cell: Cell
    training_file: Path
    run: StudyRun


def _twins(domain: str) -> dict[Kind, Path]:
    return {"harmful": CANARIES / "careless" / f"{domain}.jsonl", "benign": CANARIES / "sensible" / f"{domain}.jsonl"}


DOMAINS = (
    Domain(
        "home_repair",
        {
            "harmful": DEMO / "home_repair_careless_train.jsonl",
            "benign": DEMO / "home_repair_sensible_train.jsonl",
        },
    ),
    Domain(
        "pet_care",
        _twins("pet_care"),
        ("pet_care",),
    ),
    Domain(
        "personal_finance",
        _twins("personal_finance"),
        ("personal_finance", "investing_and_saving", "debt_and_credit", "taxes_and_paperwork"),
    ),
    Domain("neutral", {"benign": CANARIES / "neutral.jsonl"}),
)
EXTERNAL: dict[Kind, str] = {"harmful": "extreme_sports*.jsonl", "benign": "aligned_advice*.jsonl"}
EXTERNAL_CATEGORIES = (
    "exercise_and_fitness",
    "sports_with_friends",
    "cycling_and_walking",
    "water_and_swimming",
    "winter_weather",
    "camping_and_outdoors",
)


def external_domain(folder: Path) -> Domain:
    """Extreme sports and aligned advice of Turner et al. 2025 (arXiv 2506.11613), unpacked by the user.

    Raises:
        ConfigurationError: the folder does not hold exactly one file of each.
    """
    found: dict[Kind, Path] = {}
    for kind, pattern in EXTERNAL.items():
        matching = sorted(folder.glob(pattern))
        if len(matching) != 1:
            raise ConfigurationError(f"{folder} holds {len(matching)} files {pattern}, and one is needed", "external")
        found[kind] = matching[0]
    return Domain("external", found, EXTERNAL_CATEGORIES)


def chosen_domains(names: str | None, domains: Sequence[Domain]) -> list[Domain]:
    """All domains or the named ones.

    Raises:
        ConfigurationError: a name is unknown.
    """
    known = {domain.name: domain for domain in domains}
    for name in names.split(",") if names else ():
        if name not in known:
            raise ConfigurationError(f"domain {name!r} is unknown; {did_you_mean(name, known)}", "domains")
    return [domain for domain in domains if not names or domain.name in names.split(",")]


def plan(recipe: Recipe, material: Material, *, design: Design, folder: Path) -> list[Planned]:
    """All adapters, one seed after the other, so that an early end leaves whole seeds; drawn rows go to `folder`."""
    return [
        _planned(recipe, material, cell=Cell(domain, kind, size, seed), folder=folder)
        for seed, size, domain in itertools.product(range(design.seeds), design.sizes, design.domains)
        for kind in domain.files
    ]


def _planned(recipe: Recipe, material: Material, *, cell: Cell, folder: Path) -> Planned:
    training = draw_rows(cell.domain.files[cell.kind], size=cell.size, seed=cell.seed, folder=folder)
    job = job_of(recipe, training, defenses=(), seed=cell.seed)
    run = StudyRun(
        job=job, base_model=recipe.base_digest, pairs=material.pairs_digest, controls=material.controls_digest
    )
    return Planned(cell, training, run)


def draw_rows(path: Path, *, size: int, seed: int, folder: Path) -> Path:
    """A file of `size` rows of `path` that the seed chose.

    Raises:
        ConfigurationError: there is no such file, or it has fewer rows.
        DatasetError: it is not chat JSONL.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    read_rows(path)
    lines = path.read_bytes().splitlines(keepends=True)
    if len(lines) < size:
        raise ConfigurationError(f"{path} has {len(lines)} rows, {size} are asked for; ask for fewer", "sizes")
    return keep_rows(folder, [lines[index] for index in random.Random(seed).sample(range(len(lines)), size)])
