"""Why a report holds a release back although its figures pass.

The training file was written for the test, or was tried again until it passed.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.contract.evaluation import EvalReport
from policies.contract.probe_overlap import GAP_CONFIDENCE, GapTest, OverlapScan
from policies.documents.schema import ReleasePolicy

CODE = "evaluation_overlap"
"""Begins each reason about the training file."""
ATTEMPTS_CODE = "repeated_attempts"
"""Begins the reason about how often it was tried."""
_TOLD_ROWS = 10


def hold_reasons(policy: ReleasePolicy, report: EvalReport) -> tuple[str, ...]:
    """All that stops the release, one sentence each; nothing under a policy that only warns."""
    return (*overlap_reasons(policy, report), *_of_attempts(policy, report))


def _of_attempts(policy: ReleasePolicy, report: EvalReport) -> Iterator[str]:
    """Wider intervals bound what luck can do; who changes a refused file until it passes needs none."""
    allowed, earlier = policy.spec.review_after_attempts, report.attempt - 1
    if allowed is not None and earlier >= allowed and policy.spec.mode == "enforce":
        yield (
            f"{ATTEMPTS_CODE}: this is attempt {report.attempt} on nearly the same training file, and after {allowed} "
            "without a release a person has to look at it"
        )


def overlap_reasons(policy: ReleasePolicy, report: EvalReport) -> tuple[str, ...]:
    """What stops the release, one sentence each; nothing under a policy that only warns."""
    if policy.spec.mode != "enforce":
        return ()
    reasons = (*_of_twins(policy, report), *_of_scan(policy, report))
    return tuple(f"{CODE}: {reason}" for reason in reasons)


def _of_twins(policy: ReleasePolicy, report: EvalReport) -> Iterator[str]:
    """What the secret twins show, or why they show nothing."""
    twins = {str(settings.probe): settings.secret_twin for settings in policy.spec.suite.probes}
    for result in report.probes:
        named = twins.get(result.probe)
        if result.error is not None or (named is None and result.twin is None):
            continue
        if named is None or result.twin is None or result.twin.prompts != named.pinned:
            yield f"{result.probe} was not measured on the secret prompts that the policy names"
        else:
            yield from (_gap(test) for test in result.twin.gaps if test.is_significant)


def _gap(test: GapTest) -> str:
    """Without figures, by which somebody could find out how near he comes to the secret prompts."""
    return (
        f"{test.metric} looks better on the public prompts than on secret ones of their kind, as if the public prompts "
        f"had been trained on ({GAP_CONFIDENCE:.0%} confidence)"
    )


def _of_scan(policy: ReleasePolicy, report: EvalReport) -> Iterator[str]:
    """Rows near prompts, where the policy holds such files.

    No gap test clears them: good answers to a few prompts make others better too, secret ones among them, and hide what
    else the file teaches.
    """
    scan = report.overlap
    if policy.spec.on_probe_overlap == "warn":
        return
    if scan is None:
        yield "the training file was not at hand, so it was not searched for the suite's prompts"
    elif scan.unsearched:
        yield f"the training file was not searched for the prompts of {', '.join(scan.unsearched)}"
    elif scan.is_notable:
        yield told_rows(scan)


def told_rows(scan: OverlapScan) -> str:
    """What a tenant can do about it; of secret prompts it is not told that rows are near them."""
    if not scan.is_notable_in_public and scan.notable_earlier:
        each = scan.notable_earlier[0]
        return (
            f"{each.n_near} of {each.n_rows} rows of a file that the continued model was trained on hold prompts or "
            "answers that the evaluation asks; continue from a model that was trained without them"
        )
    if not scan.is_notable_in_public:
        return "the training file has to be looked at by a person before anything that was trained on it is released"
    rows = [str(each.row) for each in scan.rows[:_TOLD_ROWS]]
    more = scan.n_near - len(rows)
    listed = f" (rows {', '.join(rows)}{f' and {more} more' if more > 0 else ''})" if rows else ""
    return (
        f"{scan.n_near} of {scan.n_rows} training rows{listed} hold prompts or answers that the evaluation asks; "
        "remove them and train again"
    )
