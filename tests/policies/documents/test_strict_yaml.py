"""Which values plain scalars have, and what a file may do to whoever reads it."""

from __future__ import annotations

import pytest

from policies.documents.strict_yaml import MAX_DEPTH, parse_documents


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("010", 10),
        ("1e-4", 1e-4),
        ("-.5", -0.5),
        ("~", None),
        ("True", True),
        ('"1"', "1"),
    ],
)
def test_plain_scalars_have_the_value_that_a_reader_expects(written: str, value: object) -> None:
    (document,) = parse_documents(f"%YAML 1.1\n---\na: {written}\n".encode())
    assert document.problems == ()
    assert isinstance(document.value, dict)
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    (document,) = parse_documents(b"a:\n  - b\n  - {c: 1,\n     d: 2}\n")
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("a", 0): 2,
        ("a", 1): 3,
        ("a", 1, "c"): 3,
        ("a", 1, "d"): 4,
    }


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_nesting_ends_long_before_the_stack_does(opening: str) -> None:
    (document,) = parse_documents(opening.encode() * 100_000)
    assert [problem.what for problem in document.problems] == [
        f"nested deeper than {MAX_DEPTH} levels; no policy needs that"
    ]


def test_an_alias_is_never_expanded() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 12))
    (document,) = parse_documents(bomb.encode())
    assert [(problem.line, problem.what) for problem in document.problems] == [
        (1, "anchors and aliases are not allowed; write the value out")
    ]
