from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from evaluator.cli.judge import app
from evaluator.judges.judge import Answer, Score
from policies.cli import exit_codes
from policies.cli.main import run
from policies.contract.judges import JudgeReport, Rubric

if TYPE_CHECKING:
    from tests.evaluator.judges.conftest import Endpoint, Reply

Scoring = Callable[[Rubric, Answer], Score]
ServeJudge = Callable[[Scoring], "Endpoint"]
Calibrate = Callable[..., int]
POLICY = """
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {{name: test, version: "1"}}
spec:
  suite:
    panel:
      judges:
        - {{judge: openai_compatible, base_url: "{base_url}", model: m, top_logprobs: 0}}
      calibration: {{min_auroc: 0.95}}
    probes:
      - {{probe: coherence, judged: true}}
  rules:
    - {{id: coherence, metric: coherence.incoherent_rate, max: 0.1}}
"""


@pytest.fixture
def calibrate(tmp_path: Path) -> Calibrate:
    """Runs `tunegate judge calibrate` in this process and gives its exit code."""
    root = typer.Typer()
    root.callback()(lambda: None)
    root.add_typer(app)
    return lambda *options: run(["judge", "calibrate", "--cache-dir", str(tmp_path / "cache"), *options], root)


def test_a_good_judge_may_count(
    calibrate: Calibrate, serve_judge: ServeJudge, deserved: Scoring, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = serve_judge(deserved)
    code = calibrate("--base-url", endpoint.base_url, "--model", "m", "--top-logprobs", "0", "-o", "json")
    (report,) = [JudgeReport.model_validate(row) for row in json.loads(capsys.readouterr().out)]

    assert code == exit_codes.OK
    assert report.calibrated
    assert "logprobs" not in endpoint.calls[0]


def test_a_judge_that_thinks_and_replies_in_json_may_be_tried(
    calibrate: Calibrate, serve: Callable[..., Endpoint], say: Callable[..., Reply], capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = serve(lambda _, __: say('<think>Hm.</think>{"score": 80}'))
    options = ("--thinking-tokens", "100", "--replies", "json_schema", "-o", "json")
    code = calibrate("--base-url", endpoint.base_url, "--model", "m", *options)
    (report,) = [JudgeReport.model_validate(row) for row in json.loads(capsys.readouterr().out)]

    assert (code, report.auroc, report.unscored) == (exit_codes.INCONCLUSIVE, 0.5, 0.0)
    assert endpoint.calls[0]["max_tokens"] == 132


def test_a_bad_judge_may_not(calibrate: Calibrate, serve_judge: ServeJudge, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = serve_judge(lambda rubric, answer: Score(80.0))
    code = calibrate("--base-url", endpoint.base_url, "--model", "m")

    assert code == exit_codes.INCONCLUSIVE
    assert "judge_uncalibrated: AUROC of aligned 0.50 is below 0.9" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("probe", "code"),
    [
        ("{probe: coherence, judged: true}", exit_codes.OK),
        ("{probe: coherence, judged: true}\n      - {probe: harmful_compliance}", exit_codes.OK),
        ("{probe: coherence}\n      - {probe: harmful_compliance, judged: true}", exit_codes.INCONCLUSIVE),
    ],
)
def test_a_judge_of_a_policy_must_know_what_complies_only_where_a_probe_asks(
    calibrate: Calibrate, serve_judge: ServeJudge, deserved: Scoring, tmp_path: Path, probe: str, code: int
) -> None:
    endpoint = serve_judge(lambda rubric, answer: Score(0.0) if rubric == "compliant" else deserved(rubric, answer))
    policy = tmp_path / "policy.yaml"
    text = POLICY.format(base_url=endpoint.base_url).replace("{probe: coherence, judged: true}", probe)
    policy.write_text(text)

    assert calibrate("--policy", str(policy)) == code


def test_a_judge_without_a_policy_must_know_what_complies(
    calibrate: Calibrate, serve_judge: ServeJudge, deserved: Scoring, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = serve_judge(lambda rubric, answer: Score(0.0) if rubric == "compliant" else deserved(rubric, answer))
    code = calibrate("--base-url", endpoint.base_url, "--model", "m")

    assert code == exit_codes.INCONCLUSIVE
    assert "`compliant` scores don't count: compliance detection 0.00" in " ".join(capsys.readouterr().out.split())


def test_a_second_run_asks_nothing_unless_told_to(
    calibrate: Calibrate, serve_judge: ServeJudge, deserved: Scoring
) -> None:
    endpoint = serve_judge(deserved)
    options = ("--base-url", endpoint.base_url, "--model", "m")
    calibrate(*options)
    n_calls = len(endpoint.calls)
    calibrate(*options)
    assert len(endpoint.calls) == n_calls

    calibrate(*options, "--fresh")
    assert len(endpoint.calls) == 2 * n_calls


def test_the_panel_of_a_policy_is_calibrated_by_its_limits(
    calibrate: Calibrate,
    serve_judge: ServeJudge,
    deserved: Scoring,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(base_url=serve_judge(deserved).base_url))

    assert calibrate("--policy", str(policy)) == exit_codes.OK
    assert "≥ 0.95" in capsys.readouterr().out


def test_a_local_model_is_calibrated(calibrate: Calibrate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate("--uri", str(tmp_path / "nowhere")) == exit_codes.RUNTIME
    assert "is not a model folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--base-url", "http://127.0.0.1:1/v1"),
        ("--base-url", "nonsense", "--model", "m"),
        ("--uri", "x", "--policy", "y"),
        ("--policy", "baseline"),
    ],
    ids=["nothing", "no model", "no address", "two judges", "a policy without panel"],
)
def test_what_names_no_judge_is_a_usage_error(calibrate: Calibrate, options: tuple[str, ...]) -> None:
    assert calibrate(*options) == exit_codes.USAGE


def test_a_missing_key_names_its_variable(
    calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    options = ("--base-url", "http://127.0.0.1:1/v1", "--model", "m", "--api-key-variable", "NO_SUCH_KEY")

    assert calibrate(*options) == exit_codes.RUNTIME
    assert "environment variable NO_SUCH_KEY" in capsys.readouterr().err
