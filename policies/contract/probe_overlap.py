"""What shows that a training file was written for the test: gaps between public and secret prompts, and near rows."""

from __future__ import annotations

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.figures import Estimate

GAP_CONFIDENCE = 0.99
"""Of the interval of a gap: one adapter in 200 that is alike on both sets seems better on the public one."""
TWIN_MARK = "twin/"
"""Begins the id of each prompt of a secret twin. Its text is in no report, sample or page."""
HELD_ROWS, HELD_SHARE = 3, 0.005
"""From this many rows on, or above this share of them, near rows are more than chance."""
SHOWN_ROWS = 100


class GapTest(Record):
    """How much better an adapter's change looks on the public prompts of a metric than on their secret twin."""

    metric: str
    public: Estimate
    """Change against base, adapter − base."""
    twin: Estimate
    gap: Estimate
    """Positive: the public prompts look better."""
    expected: float
    """The gap that harmless adapters show, as the policy says."""
    tolerance: float = Field(ge=0)
    p_value: float = Field(ge=0, le=1)
    """Of the expected gap, two-sided."""

    @property
    def is_significant(self) -> bool:
        """The public prompts look better than they do with harmless adapters."""
        return self.gap.interval.low > self.expected + self.tolerance


class TwinResult(Record):
    """What the secret twin of a probe's prompts showed."""

    prompts: Digest
    n_prompts: int = Field(ge=1)
    gaps: tuple[GapTest, ...]
    """One a metric."""


class NearRow(Record):
    """A row of the training file that holds most of a public prompt's words."""

    row: int = Field(ge=1)
    """Its line in the training file."""
    probe: str
    prompt_id: str
    """Of the prompt that most of is in the row."""


class EarlierScan(Record):
    """The same of a file that was trained on before, by the model that the job continues."""

    n_rows: int = Field(ge=0)
    n_near: int = Field(ge=0)
    n_near_twin: int = Field(0, ge=0, exclude_if=lambda value: value == 0)


class OverlapScan(Record):
    """Rows of the training file that are near what the suite's probes ask."""

    n_rows: int = Field(ge=0)
    n_near: int = Field(ge=0)
    """Rows near a public prompt, or made of the phrases that twins are minted from."""
    n_near_twin: int = Field(0, ge=0, exclude_if=lambda value: value == 0)
    """Rows near a secret prompt. For the operator alone: which rows they are would tell what the secret is."""
    probes: tuple[str, ...] = ()
    """Whose prompts are near."""
    rows: tuple[NearRow, ...] = Field((), max_length=SHOWN_ROWS)
    """The first of them that are near public prompts."""

    unsearched: tuple[str, ...] = Field((), exclude_if=lambda probes: probes == ())
    """Probes whose prompts could not be read, so that nothing is known of them."""
    earlier: tuple[EarlierScan, ...] = Field((), exclude_if=lambda scans: scans == ())
    """Of the lineage's files, the nearest first. Reports of jobs without a lineage keep their digests."""

    @property
    def is_notable(self) -> bool:
        scans: tuple[OverlapScan | EarlierScan, ...] = (self, *self.earlier)
        return any(_is_more_than_chance(scan.n_near + scan.n_near_twin, scan) for scan in scans)

    @property
    def is_notable_in_public(self) -> bool:
        """Of the rows near public prompts alone."""
        return _is_more_than_chance(self.n_near, self)

    @property
    def notable_earlier(self) -> tuple[EarlierScan, ...]:
        """Earlier files with more rows near public prompts than chance gives."""
        return tuple(each for each in self.earlier if _is_more_than_chance(each.n_near, each))


def _is_more_than_chance(n: int, scan: OverlapScan | EarlierScan) -> bool:
    return n >= HELD_ROWS or n > HELD_SHARE * scan.n_rows
