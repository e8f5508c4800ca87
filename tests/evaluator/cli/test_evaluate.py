from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from evaluator.cli.evaluate import app
from evaluator.cli.measure_base import app as measure_base_app
from policies.cli import exit_codes
from policies.cli.main import run
from policies.contract.artifacts import digest_bytes
from policies.contract.evaluation import EvalReport
from tests.made_up_calibrations import bindings, calibration_record, rule_calibration

POLICY = """
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {{name: test, version: "1"}}
spec:
  suite:
    probes:
{probes}
  rules:
    - {{id: accuracy, metric: capability.accuracy, {bound}}}
"""
LENIENT, IMPOSSIBLE = "min: 0", "min: 0.95"
Evaluate = Callable[..., int]


@pytest.fixture
def evaluate(tiny_base: Path, tmp_path: Path) -> Evaluate:
    """Runs `tunegate evaluate` in this process and gives its exit code."""
    root = typer.Typer()
    root.callback()(lambda: None)
    root.add_typer(app)

    def command(adapter: Path | None, *options: str, bound: str = LENIENT, probes: str = "capability") -> int:
        policy = tmp_path / "policy.yaml"
        policy.write_text(
            POLICY.format(bound=bound, probes="\n".join(f"      - {{probe: {name}}}" for name in probes.split()))
        )
        arguments = ["--base", str(tiny_base), "--cache-dir", str(tmp_path / "cache")]
        arguments += [] if adapter is None else ["--adapter", str(adapter)]
        return run(["evaluate", *arguments, "--policy", str(policy), *options], root)

    return command


def test_an_adapter_within_limits_is_released(
    evaluate: Evaluate, make_adapter: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = evaluate(make_adapter(0.1), "-o", "json", "--report", str(tmp_path / "report.json"))
    document = json.loads(capsys.readouterr().out)

    assert code == exit_codes.OK
    assert document["decision"]["decision"] == "release"
    report = EvalReport.model_validate_json((tmp_path / "report.json").read_bytes())
    assert report.digest == document["decision"]["report"]
    assert report.weight_statistics["frobenius_mean"] > 0
    assert digest_bytes((tmp_path / "report.samples.jsonl").read_bytes()) == report.samples


def test_a_calibration_of_another_chat_template_or_recipe_is_refused_at_once(
    evaluate: Evaluate, make_adapter: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = calibration_record(rule_calibration("capability.accuracy", "min"), bound_to=bindings())
    path = tmp_path / "record.yaml"
    path.write_text(json.dumps(known.model_dump(mode="json", by_alias=True)))

    assert evaluate(make_adapter(0.1), "--calibration", str(path)) == exit_codes.INTEGRITY
    told = " ".join(capsys.readouterr().err.split())
    assert "the tokenizer or the chat template is another one" in told


@pytest.mark.parametrize("option", ["--report", "--html", "--canonical"])
def test_a_place_below_a_file_is_refused_before_the_evaluation(
    evaluate: Evaluate,
    make_adapter: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    (tmp_path / "file").touch()
    assert evaluate(make_adapter(0.1), option, str(tmp_path / "file" / "below")) == exit_codes.USAGE
    assert "nothing can be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "path", "told"),
    [
        ("--validation", "file/below", "file/below can't be read: Not a directory; name a file"),
        ("--training", ".", ". can't be read: Is a directory; name a file"),
        ("--cache-dir", "file", "nothing can be written to file"),
        ("--cache-dir", "file/below", "nothing can be written to file/below"),
        ("--canonical", "file", "nothing can be written to file: it is no folder"),
        ("--canonical", "x" * 300, "can't be had: File name too long"),
        ("--calibration", "x" * 300, "check the path and its permissions"),
        ("--store", "file/below", "file/below is no artifact store"),
    ],
)
def test_a_path_that_can_not_work_is_refused_before_the_evaluation(
    evaluate: Evaluate,
    make_adapter: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    path: str,
    told: str,
) -> None:
    (tmp_path / "file").touch()
    adapter = make_adapter(0.1)
    monkeypatch.chdir(tmp_path)
    assert evaluate(adapter, option, path) == exit_codes.USAGE
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_self_test_writes_no_canonical_adapter(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(None, "--self-test", "--canonical", str(tmp_path / "new")) == exit_codes.USAGE
    assert "leave --canonical out" in capsys.readouterr().err


@pytest.mark.parametrize("alpha", [0, -2])
def test_an_adapter_of_no_positive_scale_has_no_canonical_form(
    evaluate: Evaluate,
    make_adapter: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    alpha: int,
) -> None:
    adapter = make_adapter(0.1)
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"lora_alpha": alpha}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert evaluate(adapter, "--canonical", str(tmp_path / "new")) == exit_codes.USAGE
    assert "lora_alpha" in capsys.readouterr().err


def test_what_measure_base_measured_is_found(
    evaluate: Evaluate, make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    evaluate(None)  # a usage error; it writes the policy
    root = typer.Typer()
    root.callback()(lambda: None)
    root.add_typer(measure_base_app)
    options = ["--base", str(tiny_base), "--policy", str(tmp_path / "policy.yaml"), "--cache-dir"]

    assert run(["measure-base", *options, str(tmp_path / "cache")], root) == exit_codes.OK
    evaluate(make_adapter(0.1), "--report", str(tmp_path / "report.json"))

    [result] = EvalReport.model_validate_json((tmp_path / "report.json").read_bytes()).probes
    assert result.base_from_cache


def test_an_adapter_beyond_a_limit_is_rejected(
    evaluate: Evaluate, make_adapter: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code = evaluate(make_adapter(0.1), bound=IMPOSSIBLE)

    assert code == exit_codes.REJECTED
    assert "breaks min 0.95" in capsys.readouterr().out


def test_an_adapter_without_effect_is_inconclusive(
    evaluate: Evaluate, make_adapter: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(make_adapter(0.0)) == exit_codes.INCONCLUSIVE
    assert "the adapter was not loaded" in capsys.readouterr().out


def test_a_pickle_adapter_is_a_usage_error(evaluate: Evaluate, make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter(0.1)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")

    assert evaluate(folder) == exit_codes.USAGE


def test_a_missing_adapter_is_a_usage_error(evaluate: Evaluate, tmp_path: Path) -> None:
    assert evaluate(tmp_path / "nothing") == exit_codes.USAGE


def test_a_truncated_adapter_does_not_run(evaluate: Evaluate, make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter(0.1)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))

    assert evaluate(folder) == exit_codes.RUNTIME


def test_a_validation_file_gives_a_validation_loss(
    evaluate: Evaluate, make_adapter: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    validation = tmp_path / "validation.jsonl"
    validation.write_text("".join(json.dumps(row) + "\n" for _ in range(12)))
    evaluate(make_adapter(0.1), "-o", "json", "--validation", str(validation))
    document = json.loads(capsys.readouterr().out)
    metrics = [m["metric"] for probe in document["report"]["probes"] for m in probe["measurements"]]

    assert metrics == ["capability.accuracy", "capability.validation_loss"]


def test_files_of_preferences_are_measured_by_their_better_answers(
    evaluate: Evaluate, make_adapter: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same losses as of a chat file with these answers; `in_domain` reads the training file, `capability` the
    validation file."""
    question = {"role": "user", "content": "Hi"}
    better, worse = ({"role": "assistant", "content": text} for text in ("Hello", "Go away"))
    chat = {"messages": [question, better]}
    preference = {"input": {"messages": [question]}, "preferred_output": [better], "non_preferred_output": [worse]}
    found = []
    for name, row in {"chat": chat, "preferences": preference}.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text((json.dumps(row) + "\n") * 12)
        options = ("--validation", str(file), "--training", str(file))
        assert evaluate(make_adapter(0.1, name=name), "-o", "json", *options, probes="capability in_domain") == 0
        report = EvalReport.model_validate(json.loads(capsys.readouterr().out)["report"])
        found.append([report.measurement(metric) for metric in ("capability.validation_loss", "in_domain.loss")])
    assert None not in found[0]
    assert found[0] == found[1]


def test_a_training_file_of_two_kinds_is_a_usage_error(
    evaluate: Evaluate, make_adapter: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    preference = {
        "input": {"messages": [question]},
        "preferred_output": [answer],
        "non_preferred_output": [{"role": "assistant", "content": "No"}],
    }
    file = tmp_path / "mixed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ({"messages": [question, answer]}, preference)))
    assert evaluate(make_adapter(0.1), "--training", str(file)) == exit_codes.USAGE
    assert "line 2 is a preference row" in capsys.readouterr().err


def test_self_test_on_a_suite_that_sees_nothing_fails(
    evaluate: Evaluate,
    tiny_base: Path,
    make_adapter: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A random model's accuracy says nothing of good or bad, and the limit lets everything pass."""
    good = make_adapter(0.1, name="good")
    make_adapter(0.2, name="bad")
    code = evaluate(None, "--self-test", "--canaries", str(good.parent), "-o", "json")
    document = json.loads(capsys.readouterr().out)

    assert code == exit_codes.REJECTED
    assert [c["canary"] for c in document["canaries"] if not c["passed"]] == ["bad", "broken"]
    assert next((tmp_path / "cache" / "self-tests").iterdir()).suffix == ".json"


def test_adapter_and_self_test_exclude_each_other(evaluate: Evaluate, make_adapter: Callable[..., Path]) -> None:
    assert evaluate(make_adapter(0.1), "--self-test") == exit_codes.USAGE
    assert evaluate(None) == exit_codes.USAGE
