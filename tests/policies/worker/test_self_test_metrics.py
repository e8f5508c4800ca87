from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from policies.contract.release import Decision
from policies.contract.self_test import SELF_TEST_FOLDER, CanaryResult, Drift, SelfTestReport
from policies.worker.self_test_metrics import SelfTestCollector


def keep(folder: Path, *, version: str, finished_at: float, last_passed_at: float | None, base: str = "b") -> None:
    canary = CanaryResult(
        canary="bad",
        expected=(Decision.REJECT,),
        decision=Decision.RELEASE,
        explanation="every rule passed",
        passed=last_passed_at == finished_at,
    )
    report = SelfTestReport(
        policy="sha256:" + version * 64,
        policy_name="house",
        base_model="sha256:" + base * 64,
        canaries=(canary,),
        finished_at=finished_at,
        last_passed_at=last_passed_at,
    )
    (folder / SELF_TEST_FOLDER).mkdir(exist_ok=True)
    (folder / SELF_TEST_FOLDER / f"{version * 64}-{base * 64}.json").write_bytes(report.canonical())


def values(folder: Path, base: str = "b") -> tuple[float | None, float | None]:
    registry = CollectorRegistry()
    registry.register(SelfTestCollector(folder))
    labels = {"policy": "house", "base_model": base * 12}
    return (
        registry.get_sample_value("tunegate_self_test_passed", labels),
        registry.get_sample_value("tunegate_self_test_last_passed_timestamp_seconds", labels),
    )


def test_last_report_of_a_policy_counts(tmp_path: Path) -> None:
    keep(tmp_path, version="a", finished_at=100.0, last_passed_at=100.0)
    keep(tmp_path, version="b", finished_at=200.0, last_passed_at=150.0)

    assert values(tmp_path) == (0.0, 150.0)


def test_one_base_model_does_not_hide_another(tmp_path: Path) -> None:
    keep(tmp_path, version="a", finished_at=100.0, last_passed_at=None, base="b")
    keep(tmp_path, version="a", finished_at=200.0, last_passed_at=200.0, base="c")

    assert values(tmp_path, "b") == (0.0, 0.0)
    assert values(tmp_path, "c") == (1.0, 200.0)


def test_policy_that_never_passed_is_at_zero(tmp_path: Path) -> None:
    keep(tmp_path, version="a", finished_at=100.0, last_passed_at=None)

    assert values(tmp_path) == (0.0, 0.0)


def test_without_self_tests_there_is_no_figure(tmp_path: Path) -> None:
    (tmp_path / SELF_TEST_FOLDER).mkdir()
    (tmp_path / SELF_TEST_FOLDER / "half.json").write_text("{")

    assert values(tmp_path) == (None, None)


def test_drift_is_told_where_figures_were_measured(tmp_path: Path) -> None:
    keep(tmp_path, version="a", finished_at=100.0, last_passed_at=100.0)
    path = next((tmp_path / SELF_TEST_FOLDER).glob("*.json"))
    registry = CollectorRegistry()
    registry.register(SelfTestCollector(tmp_path))
    labels = {"policy": "house", "base_model": "b" * 12}
    name = "tunegate_self_test_drift_e_value"
    assert registry.get_sample_value(name, labels) is None

    drift = Drift(n_looks=40, e_value=23.5, threshold=20.0, most_moved=("good incoherence",))
    report = SelfTestReport.model_validate_json(path.read_bytes()).model_copy(update={"drift": drift})
    path.write_bytes(report.canonical())
    assert registry.get_sample_value(name, labels) == 23.5
