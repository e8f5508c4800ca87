"""The page as text: what it must show, and what must never get through."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

import pytest

from policies.contract.evaluation import Estimate, EvalReport, Interval, SampleOutcome
from policies.documents.schema import ReleasePolicy
from policies.report.error_rates import rates_told
from policies.report.page import figure, render_report, signed

HOSTILE = "<script>alert('x')</script>"
DIGEST = "sha256:" + "f" * 64


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether what was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_nothing_is_loaded_and_nothing_runs(render: Any, sample: Any) -> None:
    page = Page(render(samples=[sample(1)]))

    assert page.open == []
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "form"} == set()
    assert not [attrs for _, attrs in page.tags if any(name.startswith(("on", "src", "href")) for name in attrs)]
    allowed = [attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs]
    assert allowed == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]


@pytest.mark.parametrize("field", ["prompt_id", "cluster", "prompt", "output"])
def test_hostile_text_of_a_sample_is_escaped(render: Any, sample: Any, field: str) -> None:
    words = f"{HOSTILE} b c d e {HOSTILE}"
    changes = {"adapter": SampleOutcome(output=words, score=1.0)} if field == "output" else {field: words}
    text = render(samples=[sample(1, **changes)])

    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_hostile_text_elsewhere_is_escaped(render: Any, report: EvalReport, rule_result: Any) -> None:
    attribute = '"><script>alert(1)</script>'
    judge = report.judges[0].model_copy(update={"identity": HOSTILE, "reason": HOSTILE})
    failed = report.probes[1].model_copy(update={"error": HOSTILE})
    measured = report.probes[0].measurements[0].model_copy(update={"by_group": {HOSTILE: 0.5}, "method": HOSTILE})
    probes = (report.probes[0].model_copy(update={"measurements": (measured,)}), failed)
    text = render(rule_result(reason=attribute), title=HOSTILE, judges=(judge,), probes=probes)

    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_the_middle_of_samples_is_masked_and_folded_away(render: Any, sample: Any) -> None:
    text = render(samples=[sample(1)])

    assert "secret middle" not in text
    assert "was the end" in text
    assert "masked: words 12, characters 48" in text
    assert all("open" not in attrs for tag, attrs in Page(text).tags if tag == "details")


def test_samples_are_named_by_their_line(render: Any, sample: Any) -> None:
    """Of a clean and a toxic sample the second is shown."""
    clean = sample(1, adapter=SampleOutcome(output="fine", score=0.0))
    text = render(samples=[clean, sample(2)])

    assert "toxicity.rate: 1 of 2 samples count against the adapter" in text
    assert "general · line 2" in text
    assert "general-1<" not in text


def test_a_page_without_samples_says_where_they_are(render: Any) -> None:
    assert f"they are artifact <code>sha256:{'d' * 64}</code>" in render()


def test_a_page_without_bad_samples_says_so(render: Any) -> None:
    assert "No sample of the adapter is bad" in render(samples=[])


@pytest.mark.parametrize(
    ("outcome", "symbol", "shape"),
    [
        ("pass", "✓", "<circle"),
        ("fail", "✕", "<path d="),
        ("inconclusive", "?", '<circle cx="'),
        ("error", "!", ""),
        ("skipped", "–", ""),
    ],
)
def test_outcomes_can_be_told_apart_without_colour(
    render: Any, rule_result: Any, outcome: str, symbol: str, shape: str
) -> None:
    text = render(rule_result(outcome=outcome), candidates=())

    assert f'<span class="tag {outcome}">{symbol} {outcome}</span>' in text
    assert shape in text
    assert ('stroke="var(--open)"' in text) is (outcome in ("inconclusive", "error", "skipped"))


def test_drawings_are_well_formed(render: Any, rule_result: Any) -> None:
    """One of a rule, one of the checkpoints and three bars of groups."""
    drawings = re.findall(r"<svg.*?</svg>", render(rule_result()), flags=re.DOTALL)

    assert len(drawings) == 5
    for drawing in drawings:
        assert "nan" not in drawing.casefold()
        ElementTree.fromstring(drawing)


def test_an_interval_beyond_the_axis_has_an_arrow(render: Any, rule_result: Any) -> None:
    judged = Estimate(value=700.0, interval=Interval(low=-1e300, high=1e300))
    text = render(rule_result(judged=judged), candidates=())

    assert text.count('<path class="cut"') == 2
    assert "+700.0000" in text
    assert "[-1.00e+300, +1.00e+300]" in text


def test_a_rule_without_a_figure_says_why(render: Any) -> None:
    text = render(candidates=())

    assert "not measured" in text
    assert text.count("emergent_misalignment.rate was not measured: no judge is calibrated") == 2
    assert "failed: no judge is calibrated" in text


def test_judges_are_shown_against_the_limits_of_their_calibration(render: Any) -> None:
    text = render()

    assert "✕ no: its scores don't count" in text
    assert '0.710 <span class="soft">≥ 0.9</span>' in text
    assert 'not measured <span class="soft">≤ 0.1</span>' in text


def test_judges_that_never_answered_are_missed(render: Any) -> None:
    assert "None answered the labelled answers" in render(judges=())


def test_looks_and_their_confidence_are_shown(render: Any) -> None:
    text = render()

    assert "2 of 5, 25% of the samples" in text
    assert "99.375 %" in text


def test_the_first_attempt_is_not_mentioned_and_later_ones_are(render: Any) -> None:
    assert "Attempt" not in render()
    assert "Attempt 3 on nearly the same training file" in render(attempt=3)


def test_checkpoints_are_left_out_where_there_is_one_adapter(render: Any) -> None:
    assert "<h2>Checkpoints</h2>" in render()
    assert "<h2>Checkpoints</h2>" not in render(candidates=())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (0.25, "0.2500"),
        (-3.5, "-3.5000"),
        (2e-7, "2.00e-07"),
        (1e6, "1.00e+06"),
        (9999.0, "9999.0000"),
    ],
)
def test_figures_are_short_and_never_rounded_to_nothing(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_changes_have_a_sign() -> None:
    assert (signed(0.5), signed(-0.5), signed(0.0)) == ("+0.5000", "-0.5000", "+0.0000")


def test_what_the_limits_are_worth_is_shown_with_the_calibration_and_its_warnings(
    render: Any, rule_result: Any, decision: Any, report: Any, policy: Any
) -> None:
    known = rule_result(false_block_le=0.1459, miss_le=0.17071, detectable_change=0.0213)
    page = Page(render(known)).words

    assert "blocks at most 14.6 % of benign adapters, misses at most 17.1 % of harmful ones" in page
    assert "mostly settles changes from 0.0213" in page
    assert "benign adapters" not in Page(render(rule_result())).words
    worded = render_report(
        "t",
        decision=decision.model_copy(update={"calibration": DIGEST, "warnings": (HOSTILE,)}),
        report=report,
        policy=policy,
    )
    assert "<script" not in worded
    assert f"Warning: {HOSTILE}" in Page(worded).words
    assert DIGEST in Page(worded).words


def test_rates_are_rounded_up_so_that_the_bound_holds(rule_result: Any) -> None:
    assert rates_told(rule_result(miss_le=0.17001)) == "misses at most 17.1 % of harmful ones"
    assert rates_told(rule_result(miss_le=1.0)) == "misses at most 100.0 % of harmful ones"
    assert rates_told(rule_result()) == ""


def test_weight_statistics_are_shown_where_the_policy_only_records(render: Any, policy: ReleasePolicy) -> None:
    figures = {"q_proj.top_singular_value": 2.5, "frobenius_spread": 0.0008}
    audit = policy.model_copy(update={"spec": policy.spec.model_copy(update={"mode": "audit"})})

    assert "q_proj.top_singular_value" in Page(render(weight_statistics=figures, policy=audit)).words
    assert "Weights" not in Page(render(weight_statistics=figures)).words
    assert "Weights" not in Page(render(policy=audit)).words
