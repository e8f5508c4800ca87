"""Every error of the tree has a code of its own kind, prints its message and survives a process boundary."""

from __future__ import annotations

import pickle

import pytest

from policies import errors
from policies.errors import PolicyError, TunegateError

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TunegateError)]


def test_the_tree_was_found() -> None:
    assert len(TREE) == 16


@pytest.mark.parametrize("kind", TREE)
def test_an_error_pickles(kind: type[TunegateError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what; fix", "field")))
    assert (type(error), str(error), error.param, error.code) == (kind, "what; fix", "field", kind.code)


def test_the_problems_of_a_policy_pickle() -> None:
    error = pickle.loads(pickle.dumps(PolicyError("two", problems=("p:1: a: x", "p:2: b: y"))))
    assert error.problems == ("p:1: a: x", "p:2: b: y")


@pytest.mark.parametrize("kind", [kind for kind in TREE if kind is not TunegateError])
def test_an_error_inherits_a_standard_one(kind: type[TunegateError]) -> None:
    assert issubclass(kind, ValueError | LookupError | RuntimeError)


def test_codes_are_distinct() -> None:
    codes = [kind.code for kind in TREE]
    assert len(set(codes)) == len(codes)
