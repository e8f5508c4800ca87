"""What a policy makes of what was found, and of what was not looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from policies.contract.artifacts import digest_bytes
from policies.contract.screening import (
    Forecast,
    NotScreened,
    ScreenFound,
    ScreeningFacts,
    ScreeningReport,
    ScreeningRule,
)
from policies.documents.loader import resolve_policy
from policies.screening.judging import ScreenedFile, extended, judge_of, judged

FILE = ScreenedFile("file-1", digest_bytes(b"rows"))


def found(count: int, of: int = 100, *, is_sample: bool = False) -> ScreenFound:
    return ScreenFound(
        id="pii.email",
        screen="pii",
        category="personal_data",
        count=count,
        of=of,
        rows=tuple(range(1, min(count, 20) + 1)),
        severity="medium",
        is_sample=is_sample,
        what="an e-mail address",
        advice="remove them",
    )


def report(rule: Mapping[str, object], *what: ScreenFound, mode: str = "enforce", by: str = "pii") -> ScreeningReport:
    facts = ScreeningFacts(rows=100, by=(by,), found=what)
    rules = (ScreeningRule.model_validate(rule),)
    return judged(FILE, facts, rules=rules, policy=digest_bytes(b"policy"), mode=mode)  # type: ignore[arg-type]  # as named


@pytest.mark.parametrize("action", ["warn", "review", "block"])
def test_any_row_is_too_many_where_no_limit_is_given(action: str) -> None:
    assert report({"screen": "pii", "action": action}, found(1)).verdict == action


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [
        ({"max_rows": 5}, "clean"),
        ({"max_rows": 4}, "block"),
        ({"max_share": 0.05}, "clean"),
        ({"max_share": 0.04}, "block"),
    ],
)
def test_findings_within_the_limit_are_recorded(limit: dict[str, float], verdict: str) -> None:
    judgement = report({"screen": "pii", "action": "block", **limit}, found(5))
    assert judgement.verdict == verdict
    assert judgement.findings[0].action == ("record" if verdict == "clean" else "block")


def test_upper_end_of_a_sample_decides() -> None:
    """None of 5 in 100 sampled rows: the share is 0.05 and its interval ends at 0.113."""
    rule = {"screen": "pii", "action": "block", "max_share": 0.10}
    assert report(rule, found(5)).verdict == "clean"
    assert report(rule, found(5, is_sample=True)).verdict == "block"


@pytest.mark.parametrize(
    ("count", "limit", "verdict"),
    [
        (0, {"max_share": 0.02}, "clean"),
        (0, {"max_share": 0.01}, "block"),
        (1, {"max_share": 0.02}, "block"),
        (0, {"max_rows": 3000}, "clean"),
        (0, {"max_rows": 2000}, "block"),
        (10, {"max_rows": 10}, "block"),
        (0, {}, "clean"),
        (1, {}, "block"),
    ],
)
def test_limits_of_a_sample_are_for_the_whole_file(count: int, limit: dict[str, float], verdict: str) -> None:
    """Of 200,000 rows 256 were looked at. The interval ends at 0.0143 with none found, which is 2,862 rows, and at
    0.0216 with one."""
    facts = ScreeningFacts(rows=200_000, by=("pii",), found=(found(count, 256, is_sample=True),))
    rule = ScreeningRule.model_validate({"screen": "pii", "action": "block", **limit})
    judgement = judged(FILE, facts, rules=(rule,), policy=None)
    assert judgement.verdict == verdict
    assert [each.action for each in judgement.findings] == (["block"] if verdict == "block" else [])


def test_sample_without_a_hit_says_what_it_leaves_open() -> None:
    facts = ScreeningFacts(rows=200_000, by=("pii",), found=(found(0, 256, is_sample=True),))
    rule = ScreeningRule.model_validate({"screen": "pii", "action": "block", "max_share": 0.01})
    assert judged(FILE, facts, rules=(rule,), policy=None).findings[0].message == (
        "no row, of 256 that were looked at, holds an e-mail address, which leaves up to 1.43% of all rows: more than "
        "is allowed"
    )


def test_screen_that_is_asked_for_and_did_not_run_is_a_review_and_never_clean() -> None:
    judgement = report({"screen": "toxicity", "action": "warn"})
    assert judgement.verdict == "review"
    assert "toxicity" in [each.by for each in judgement.screened.not_screened]


@pytest.mark.parametrize(
    "facts", [ScreeningFacts(rows=100), ScreeningFacts(rows=0, by=("pii",))], ids=["by nothing", "of no row"]
)
def test_look_at_nothing_is_never_clean(facts: ScreeningFacts) -> None:
    assert judged(FILE, facts, rules=(), policy=digest_bytes(b"policy")).verdict == "review"
    assert judged(FILE, facts, rules=(), policy=digest_bytes(b"policy"), mode="audit").verdict == "warn"


def test_policy_that_screens_nothing_is_not_said_to_have_judged() -> None:
    judge = judge_of(resolve_policy("baseline"))
    assert judge == judge_of(None)
    shown = judged(
        FILE, ScreeningFacts(rows=1, by=("secrets", "pii", "near_duplicates")), rules=judge.rules, policy=None
    )
    assert shown.model_dump(mode="json", by_alias=True)["policy"] == {"digest": None, "rules": "usual"}


def test_screens_that_nobody_asked_for_are_told_and_hold_nothing() -> None:
    judgement = report({"screen": "pii", "action": "block"})
    assert judgement.verdict == "clean"
    assert {"secrets", "toxicity", "guard"} <= {each.by for each in judgement.screened.not_screened}


@pytest.mark.parametrize("mode", ["warn", "audit"])
def test_policy_that_only_warns_lowers_every_action(mode: str) -> None:
    assert report({"screen": "pii", "action": "block"}, found(1), mode=mode).verdict == "warn"
    assert report({"screen": "toxicity", "action": "block"}, mode=mode).verdict == "warn"


def test_message_names_rows_and_what_to_do() -> None:
    (finding,) = report({"screen": "pii", "action": "block"}, found(5)).findings
    assert finding.message == "rows 1, 2, 3 and 2 more hold an e-mail address; remove them"


def test_report_has_the_published_shape() -> None:
    shown = report({"screen": "pii", "action": "block"}, found(1)).model_dump(mode="json", by_alias=True)
    assert shown["object"] == "guardrail.screening"
    assert (shown["file"], shown["digest"]) == FILE
    assert shown["policy"] == {"digest": digest_bytes(b"policy")}
    assert set(shown["screened"]) == {"rows", "by", "not_screened"}
    assert len(shown["findings"][0]["interval"]) == 2


def test_report_keeps_its_digest_through_the_store() -> None:
    judgement = report({"screen": "pii", "action": "block"}, found(1))
    assert ScreeningReport.model_validate_json(judgement.canonical()).digest == judgement.digest


def test_report_under_a_policy_has_the_digest_that_it_had_before_usual_rules_were_told() -> None:
    judgement = report({"screen": "pii", "action": "block"}, found(1))
    assert "rules" not in json.loads(judgement.canonical())["policy"]


def later(*what: ScreenFound) -> ScreeningFacts:
    """Of a phase that runs `toxicity`."""
    return ScreeningFacts(rows=100, by=("toxicity",), found=what, cost_seconds=2.0)


def test_later_phase_takes_its_screen_off_what_was_not_screened() -> None:
    rule = {"screen": "toxicity", "action": "block"}
    before = report(rule)
    after = extended(before, later(), rules=(ScreeningRule.model_validate(rule),))
    assert (before.verdict, after.verdict) == ("review", "clean")
    assert "toxicity" in after.screened.by
    assert "toxicity" not in [each.by for each in after.screened.not_screened]


def test_later_phase_that_did_not_run_either_leaves_the_review_with_its_own_reason() -> None:
    rule = {"screen": "toxicity", "action": "block"}
    failed = ScreeningFacts(rows=100, not_screened=(NotScreened(by="toxicity", reason="out of memory"),))
    after = extended(report(rule), failed, rules=(ScreeningRule.model_validate(rule),))
    assert after.verdict == "review"
    assert NotScreened(by="toxicity", reason="out of memory") in after.screened.not_screened


def test_later_findings_are_added_and_earlier_ones_stay() -> None:
    rules = {"screen": "pii", "action": "review"}, {"screen": "toxicity", "action": "block"}
    toxic = found(3).model_copy(update={"id": "toxicity", "screen": "toxicity"})
    after = extended(report(rules[0], found(1)), later(toxic), rules=tuple(map(ScreeningRule.model_validate, rules)))
    assert [each.action for each in after.findings] == ["review", "block"]
    assert after.verdict == "block"


@pytest.mark.parametrize(
    "rule",
    [
        {"screen": "secret", "action": "block"},
        {"screen": "pii", "action": "release"},
        {"screen": "pii", "action": "block", "max_share": 0.1, "max_rows": 1},
        {"screen": "pii", "action": "block", "threshold": 0.5},
        {"screen": "pii", "action": "block", "max_share_over_benign": 0.1},
        {"screen": "pii", "action": "block", "of": "refused_files"},
        {"screen": "near_duplicates", "action": "review", "of": "refused_files", "max_share": 0.3},
        {"screen": "pii", "action": "block", "limit": 1},
        {"screen": "pii", "action": "block", "max_share": float("nan")},
        {"screen": "pii", "action": "block", "max_forecast_over_benign": 0.1},
        {"screen": "behaviour_forecast", "action": "block", "max_share": 0.1},
        {"screen": "behaviour_forecast", "action": "block", "max_rows": 3},
        {"screen": "behaviour_forecast", "action": "block", "threshold": 0.5},
        {"screen": "behaviour_forecast", "action": "block", "max_forecast_over_benign": -0.1},
    ],
)
def test_rules_that_can_not_decide_are_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScreeningRule.model_validate(rule)


def test_share_over_that_of_benign_rows_is_compared() -> None:
    rule = {"screen": "canary_llr", "action": "block", "max_share_over_benign": 0.03}
    scored = found(5).model_copy(update={"screen": "canary_llr", "id": "canary_llr"})
    assert report(rule, scored, by="canary_llr").verdict == "block"
    assert report(rule, scored.model_copy(update={"benign_share": 0.03}), by="canary_llr").verdict == "clean"


def forecast(value: float) -> ScreenFound:
    """Of a file, where benign kinds reach from −0.02 to 0.03."""
    return ScreenFound(
        id="behaviour_forecast",
        screen="behaviour_forecast",
        category="careless_advice",
        count=0,
        of=100,
        severity="medium",
        share=0.0,
        forecast=Forecast(
            value=value, interval=(value - 0.1, value + 0.1), benign=(-0.02, 0.03), alpha=0.1, rows=100, pairs=40
        ),
        what="the model comes to prefer misaligned answers",
        advice="read a sample",
    )


@pytest.mark.parametrize(
    ("value", "limit", "action"),
    [
        (0.03, {}, "record"),
        (0.04, {}, "review"),
        (0.07, {"max_forecast_over_benign": 0.05}, "record"),
        (0.09, {"max_forecast_over_benign": 0.05}, "review"),
        (-0.5, {}, "record"),
    ],
)
def test_forecast_is_always_told_and_judged_by_how_far_it_lies_above_benign_kinds(
    value: float, limit: dict[str, float], action: str
) -> None:
    rule = {"screen": "behaviour_forecast", "action": "review", **limit}
    judgement = report(rule, forecast(value), by="behaviour_forecast")
    (finding,) = judgement.findings
    assert (finding.action, finding.rows, finding.count) == (action, (), 0)
    assert finding.forecast is not None
    assert finding.message == "the model comes to prefer misaligned answers; read a sample"
    assert judgement.verdict == ("clean" if action == "record" else "review")


def test_forecast_that_ran_without_a_figure_is_refused() -> None:
    with pytest.raises(ValidationError, match="without one figure"):
        ScreeningFacts(rows=100, by=("behaviour_forecast",))
    with pytest.raises(ValidationError, match="nothing else"):
        ScreenFound.model_validate(forecast(0.1).model_dump() | {"forecast": None})


def test_rules_and_findings_without_a_forecast_keep_their_digests() -> None:
    rule = ScreeningRule.model_validate({"screen": "pii", "action": "block"})
    assert b"forecast" not in rule.canonical()
    assert b"forecast" not in report({"screen": "pii", "action": "block"}, found(1)).canonical()
    assert b"forecast" not in found(1).canonical()
