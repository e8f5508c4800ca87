"""What a file holds, whatever kind of container it is."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from policies.datasets.conversion.sources import Source, open_source
from policies.errors import ConfigurationError, DatasetError

ROWS = [{"prompt": "a", "completion": "b\nc"}, {"prompt": "d", "completion": 'e "f"'}]


def source_of(folder: Path, name: str, content: str | bytes) -> Source:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_source(path)


@pytest.mark.parametrize(
    ("name", "content", "unit", "numbers"),
    [
        ("a.jsonl", '{"prompt":"a","completion":"b\\nc"}\n{"prompt":"d","completion":"e \\"f\\""}\n', "line", [1, 2]),
        (
            "a.json",
            '\ufeff [\n{"prompt":"a","completion":"b\\nc"},{"prompt":"d","completion":"e \\"f\\""}]',
            "row",
            [1, 2],
        ),
        ("a.csv", '\ufeffprompt,completion\r\na,"b\nc"\r\nd,"e ""f"""\r\n', "line", [3, 4]),
        ("a.tsv", 'prompt\tcompletion\na\t"b\nc"\nd\t"e ""f"""\n', "line", [3, 4]),
    ],
)
def test_rows_are_those_of_the_file(tmp_path: Path, name: str, content: str, unit: str, numbers: list[int]) -> None:
    source = source_of(tmp_path, name, content)
    rows = list(source.rows)
    assert (source.unit, [row.number for row in rows]) == (unit, numbers)
    assert [row.value for row in rows] == ROWS


def test_lines_that_are_no_json_are_rows_with_a_reason(tmp_path: Path) -> None:
    source = source_of(tmp_path, "a.jsonl", b'{"a": 1}\n{"a": NaN}\n\n{"a": 1, "a": 2}\n\xff\n[1]\n')
    reasons = [(row.unreadable or "").rpartition("(")[2].rstrip(")") for row in source.rows]
    assert reasons == ["", "non_finite_number", "blank_line", "duplicate_key", "invalid_utf8", ""]


def test_lines_of_a_csv_file_with_too_few_or_too_many_cells_are_rows_with_a_reason(tmp_path: Path) -> None:
    rows = list(source_of(tmp_path, "a.csv", "a,b\n1\n1,2\n1,2,3\n").rows)
    assert [row.unreadable is None for row in rows] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", "[{}", "not JSON"),
        ("a.json", '[{"a": 1, "a": 2}]', "occurs twice"),
        ("a.csv", 'a,b\n"1"2,3\n', "line 2 is no CSV"),
        ("a.csv", b"a,b\n\xff,1\n", "is no CSV in UTF-8"),
        ("a.csv", "a,a\n1,2\n", "two columns have one name"),
        ("a.parquet", "PAR", "not a Parquet file"),
    ],
)
def test_files_that_cannot_be_read_are_errors(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DatasetError, match=reason):
        list(source_of(tmp_path, name, content).rows)


def test_parquet_is_read_where_pyarrow_is(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert source.unit == "row"
    assert [(row.number, row.value) for row in source.rows] == list(enumerate(ROWS, start=1))


@pytest.mark.parametrize(("name", "package"), [("a.parquet", "pyarrow"), ("folder", "datasets")])
def test_a_missing_package_is_named(tmp_path: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in `sys.modules` is how Python marks a module that can't be imported."""
    path = tmp_path / name
    path.write_bytes(b"") if path.suffix else path.mkdir()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=f"pip install {package}"):
        list(open_source(path).rows)


@pytest.mark.skipif(find_spec("datasets") is None, reason="needs the package datasets")
def test_folder_of_a_split_is_read_and_one_of_several_splits_names_them(tmp_path: Path) -> None:
    import datasets

    split = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=split, test=split).save_to_disk(str(tmp_path / "all"))
    assert [row.value for row in open_source(tmp_path / "all" / "train").rows] == ROWS
    with pytest.raises(DatasetError, match="train, test"):
        list(open_source(tmp_path / "all").rows)
