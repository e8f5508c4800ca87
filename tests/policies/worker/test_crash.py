"""What tells one crash from another, and which crashes say nothing of the next attempt."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import botocore.exceptions
import httpx
import pytest
import torch.distributed

from policies.contract.artifacts import canonical_json, digest_bytes
from policies.contract.training import CheckpointRecord
from policies.contract.worker_api import Claim, Progress
from policies.worker.crash import CRASH_FILE, point_reached, signature_of, signed_crashes

DIGEST = digest_bytes(b"x")


def signature(fail: Callable[[], object]) -> str | None:
    try:
        fail()
    except Exception as error:
        return signature_of(error)
    raise AssertionError("it did not fail")


def chained(cause: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise ValueError("no score") from cause

    return fail


def in_a_group() -> None:
    raise ExceptionGroup("many", [ValueError("a"), ConnectionResetError("b")])


def while_handling() -> None:
    try:
        Path("/nowhere/at/all").read_bytes()
    except FileNotFoundError:
        raise KeyError("weights")  # noqa: B904  # as a library that forgets the cause


def test_a_signature_is_the_same_whatever_the_exception_says() -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    first, second = (signature(partial(fail, text)) for text in ("row 1 of acme", "row 2 of acme"))
    assert first == second
    assert first is not None
    assert len(first) == 64


def test_another_type_and_another_place_have_another_signature() -> None:
    fails = (lambda: canonical_json({1, 2}), lambda: canonical_json(math.nan), lambda: digest_bytes("text"))  # type: ignore[arg-type]  # it fails
    assert len({signature(fail) for fail in fails}) == 3


def test_the_innermost_line_of_ours_counts_and_none_of_a_library() -> None:
    """A set and a set in a list fail at other depths of the json module, called from one line of ours."""
    assert signature(lambda: canonical_json({1})) == signature(lambda: canonical_json([[{1}]]))


@pytest.mark.parametrize(
    "fail",
    [
        lambda: Path("/nowhere/at/all").read_bytes(),
        lambda: (_ for _ in ()).throw(MemoryError()),
        lambda: (_ for _ in ()).throw(TimeoutError()),
        lambda: (_ for _ in ()).throw(httpx.ReadTimeout("slow")),
        lambda: (_ for _ in ()).throw(botocore.exceptions.EndpointConnectionError(endpoint_url="http://store")),
        lambda: (_ for _ in ()).throw(torch.AcceleratorError("device lost")),
        lambda: (_ for _ in ()).throw(torch.distributed.DistBackendError("a peer is gone")),
        chained(ConnectionRefusedError("the store")),
        in_a_group,
        while_handling,
    ],
)
def test_what_comes_from_outside_has_no_signature(fail: Callable[[], object]) -> None:
    assert signature(fail) is None


def test_a_batch_that_does_not_fit_into_memory_will_not_fit_the_next_time() -> None:
    assert signature(lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("2 GiB"))) is not None


def test_exceptions_that_led_to_each_other_end() -> None:
    first, second = ValueError("a"), TypeError("b")
    first.__cause__, second.__cause__ = second, first
    assert signature(chained(first)) is not None


def test_a_crash_passes_and_leaves_its_signature(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="secret"), signed_crashes(tmp_path):
        raise ValueError("secret of acme")
    left = json.loads((tmp_path / CRASH_FILE).read_bytes())
    assert left.keys() == {"signature"}
    assert len(left["signature"]) == 64


def test_what_ends_well_leaves_nothing(tmp_path: Path) -> None:
    with signed_crashes(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_told_no_step_is_where_it_began(claim: Claim) -> None:
    saved = CheckpointRecord(step=8, epoch=1.0, state=DIGEST, adapter=DIGEST, metrics={})
    told = Progress(step=8, total_steps=20, stage="training")
    resumed = claim.model_copy(update={"resume_from": saved})
    assert point_reached(resumed, None) == point_reached(claim, told)
    assert point_reached(claim, None) != point_reached(claim, told)


def test_an_evaluation_is_as_far_as_the_probe_that_runs(claim: Claim) -> None:
    """How much of it is done depends on what the caches knew."""
    evaluation = claim.model_copy(update={"kind": "evaluate"})
    early, late, other = (
        Progress(step=step, total_steps=100, stage=stage)
        for step, stage in ((3, "coherence"), (9, "coherence"), (9, "toxicity"))
    )
    assert point_reached(evaluation, early) == point_reached(evaluation, late)
    assert point_reached(evaluation, late) != point_reached(evaluation, other)
