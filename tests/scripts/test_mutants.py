from __future__ import annotations

from pathlib import Path

from scripts.mutants import (
    EQUIVALENT,
    Change,
    Equivalent,
    judge,
    modules_without_mutants,
    parse_change,
    parse_statuses,
    read_equivalents,
    table,
)

FUNCTION = "evaluator.gate.decide"
CHANGE = Change(FUNCTION, "if a < b:", "if a <= b:")
ENTRY = Equivalent(FUNCTION, "if a < b:", ("if a <= b:",), "a and b are never equal")


def test_survivor_that_is_not_on_the_list_is_unnoticed() -> None:
    other = CHANGE._replace(becomes="if a > b:")
    verdict = judge({"one": CHANGE, "two": other}, [ENTRY])

    assert (verdict.unnoticed, verdict.equivalent, verdict.stale) == ({"two": other}, {"one": CHANGE}, [])


def test_change_that_is_listed_for_another_function_is_unnoticed() -> None:
    assert judge({"one": CHANGE}, [ENTRY._replace(function="evaluator.gate.standing")]).unnoticed == {"one": CHANGE}


def test_entry_that_fits_no_survivor_is_stale() -> None:
    assert judge({}, [ENTRY]).stale == [(FUNCTION, "if a < b:", "if a <= b:")]


def test_statuses_are_read_from_the_tools_lines() -> None:
    lines = ["    evaluator.gate.x_decide__mutmut_1: survived", "", "    a.x_b__mutmut_2: caught by type check"]

    assert dict(parse_statuses(lines)) == {
        "evaluator.gate.x_decide__mutmut_1": "survived",
        "a.x_b__mutmut_2": "caught by type check",
    }


def test_change_is_read_from_the_tools_diff() -> None:
    diff = ["# name: survived", "--- a.py", "+++ a.py", "@@ -1 +1 @@", " def f():", "-    if a < b:", "+    if a <= b:"]

    assert parse_change("evaluator.gate.x_decide__mutmut_7", diff) == CHANGE
    assert parse_change("evaluator.gate.xǁ_Endingǁtold__mutmut_7", diff).function == "evaluator.gate._Ending.told"


def test_file_that_moved_away_is_missed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.py").write_text("def f(): ...")
    (tmp_path / "a" / "two.py").write_text("def g(): ...")
    (tmp_path / "a" / "__init__.py").write_text("")

    found = modules_without_mutants(["a.one.x_f__mutmut_1"], ["a/*.py", "gone.py"], tmp_path)
    assert found == ["a/two.py", "gone.py"]


def test_score_is_the_share_of_those_that_can_be_noticed() -> None:
    """Of 5 mutants one is equivalent, and of the other 4 a test notices 2, the type checker 1."""
    statuses = {"m.1": "killed", "m.2": "killed", "m.3": "caught by type check", "m.4": "survived", "m.5": "survived"}

    assert list(table(statuses, ["m.5"]))[2:] == [
        "| `m` | 5 | 2 | 1 | 1 | 75.0 % |",
        "| all | 5 | 2 | 1 | 1 | 75.0 % |",
    ]


def test_each_equivalent_mutant_has_its_reason() -> None:
    entries = read_equivalents(EQUIVALENT)

    assert entries
    assert [entry for entry in entries if len(entry.reason.split()) < 4 or not entry.becomes] == []
