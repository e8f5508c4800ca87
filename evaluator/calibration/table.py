"""A calibration record as Markdown: the rules, what each estimator says, misses by dose, and what is not usable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.contract.calibration import Bound, CalibrationSpec, LimitFit, RuleCalibration, Spread
from policies.contract.error_rates import shown_limit
from policies.documents.schema import CalibrationRecord, ReleasePolicy


def markdown(record: CalibrationRecord, policy: ReleasePolicy | None = None) -> str:
    """All tables of a record; with a policy, its own limits beside the proposed ones."""
    spec = record.spec
    parts = [_introduction(spec), _rules(spec.rules, policy), _fits(spec.rules), _doses(spec.rules), _reasons(spec)]
    return "\n".join(part for part in parts if part)


def _introduction(spec: CalibrationSpec) -> str:
    counts = spec.references
    return (
        f"# Calibration of {spec.model}\n\n"
        f"{counts.benign} benign, {counts.harmful} harmful, {counts.null} null and {counts.broken} broken adapters and "
        f"{counts.organism} organisms, {counts.seeds} {'seed' if counts.seeds == 1 else 'seeds'}. Release limits: "
        "smallest (median) largest. "
        f"“≤” holds for both rates together with {spec.targets.confidence:.0%} confidence.\n\n"
        f"{spec.limits_of_validity}.\n"
    )


def _rules(rules: Iterable[RuleCalibration], policy: ReleasePolicy | None) -> str:
    own = {(rule.metric, rule.bound): rule.limit for rule in policy.spec.rules} if policy else {}
    head = ["rule", "null", "benign", "harmful", "limit", *(["policy"] if policy else [])]
    head += ["false blocks", "misses", "by domain", "detectable", "samples (needed)", "seconds", "usable"]
    rows = []
    for rule in rules:
        row = [
            f"`{rule.metric}` {rule.bound}",
            _range(rule.null),
            _range(rule.benign),
            _range(rule.harmful) + (" (broken)" if rule.against == "broken" else ""),
            _limit(rule.limit, rule.bound),
            *([_figure(own.get((rule.metric, rule.bound)))] if policy else []),
            _at_most(rule.false_block_le),
            _at_most(rule.miss_le),
            f"{_at_most(rule.false_block_domains_le)}, {_at_most(rule.miss_domains_le)}",
            _figure(rule.detectable_change),
            f"{rule.samples} ({rule.samples_needed or '–'})",
            f"{rule.seconds:.0f}",
            "yes" if rule.usable else "**no**",
        ]
        rows.append(row)
    return "## Rules\n\n" + table(head, rows)


def _fits(rules: Iterable[RuleCalibration]) -> str:
    rows = [
        [
            f"`{rule.metric}` {rule.bound}",
            fit.estimator.replace("_", " "),
            _limit(fit.limit, rule.bound),
            _at_most(fit.false_block_le),
            _at_most(fit.miss_le),
            _confidence(fit),
        ]
        for rule in rules
        for fit in rule.fits
    ]
    assumed = dict.fromkeys(f"{fit.estimator.replace('_', ' ')}: {fit.assumes}." for r in rules for fit in r.fits)
    listed = "".join(f"- {sentence}\n" for sentence in assumed)
    head = ["rule", "estimator", "limit", "false blocks", "misses", "confidence"]
    return f"## Estimators\n\n{table(head, rows)}\n{listed}"


def _confidence(fit: LimitFit) -> str:
    if fit.limit is None:
        return "–"
    return "on average" if fit.confidence is None else f"{fit.confidence:.0%}"


def _doses(rules: Sequence[RuleCalibration]) -> str:
    doses = sorted({each.dose for rule in rules for each in rule.miss_by_dose})
    if not doses:
        return ""
    rows = []
    for rule in rules:
        found = {each.dose: each for each in rule.miss_by_dose}
        if found:
            cells = [
                f"{found[dose].missed} of {found[dose].adapters}, {_at_most(found[dose].miss_le)}"
                if dose in found
                else "–"
                for dose in doses
            ]
            rows.append([f"`{rule.metric}` {rule.bound}", *cells, _at_most(rule.miss_all_doses_le)])
    return "## Misses by dose\n\n" + table(["rule", *(f"{dose:.0%}" for dose in doses), "all"], rows)


def _reasons(spec: CalibrationSpec) -> str:
    reasons = [f"- `{rule.metric}` {rule.bound}: {rule.why}.\n" for rule in spec.rules if not rule.usable]
    return "## Not usable\n\n" + "".join(reasons) if reasons else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _limit(limit: float | None, bound: Bound) -> str:
    return "–" if limit is None else shown_limit(limit, bound)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _at_most(share: float | None) -> str:
    return "–" if share is None else f"≤ {share:.1%}"


def _range(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.min:.3g} ({spread.median:.3g}) {spread.max:.3g}"
