"""A run's folder has one bench at a time, and is free again once nobody works in it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Barrier

import pytest

from policies.contract.artifacts import Record
from policies.errors import IntegrityError, WorkerError
from trainer.qualification.cached_runs import Launch, Outcome, RunFailure, alone_in, execute, work_off, write_failure

RUN = "sha256:" + "a" * 64
ROOT = Path(__file__).parents[3]
A_BENCH = """
import sys
from pathlib import Path
from trainer.qualification.cached_runs import alone_in, launch_module
folder = Path(sys.argv[1])
with alone_in(folder):
    launch_module("tests.trainer.qualification.waiting_child", folder, {})
"""


class Assignment(Record):
    rows: int = 1


def run(folder: Path, launch: Launch) -> Outcome | RunFailure:
    return execute(folder, Assignment(), run=RUN, kind=Outcome, launch=launch)


def succeed(folder: Path) -> None:
    (folder / "result.json").write_bytes(Outcome(run=RUN).canonical())


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_free(folder: Path) -> bool:
    try:
        with alone_in(folder):
            return True
    except WorkerError:
        return False


def test_a_folder_in_which_a_bench_works_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def meet_another(folder: Path) -> None:
        (folder / "checkpoints").mkdir()
        with pytest.raises(WorkerError, match=f"another process is working in {folder}; wait"):
            run(folder, launch=succeed)
        assert not (folder / "result.json").exists()
        (folder / "checkpoints").rmdir()
        succeed(folder)

    assert run(folder, meet_another) == Outcome(run=RUN)


def test_a_folder_is_free_again_after_a_failure_or_a_crash(tmp_path: Path) -> None:
    def crash(folder: Path) -> None:
        raise OSError("no space left")

    failed = RunFailure(code="crashed", message="no memory")
    assert run(tmp_path, lambda folder: write_failure(folder, failed)) == failed
    with pytest.raises(OSError, match="no space left"):
        run(tmp_path, crash)
    assert run(tmp_path, succeed) == Outcome(run=RUN)


def test_what_another_bench_finished_in_the_meantime_is_taken(tmp_path: Path) -> None:
    succeed(tmp_path)
    assert run(tmp_path, _must_not_run) == Outcome(run=RUN)


def _must_not_run(folder: Path) -> None:
    raise AssertionError(f"{folder} was run again")


def test_the_child_of_a_killed_bench_keeps_the_folder_until_it_ends(tmp_path: Path) -> None:
    bench = subprocess.Popen([sys.executable, "-c", A_BENCH, str(tmp_path)], cwd=ROOT)
    try:
        wait_until((tmp_path / "started").exists)
        bench.kill()
        bench.wait()
        assert not is_free(tmp_path)
    finally:
        bench.kill()
        (tmp_path / "end").touch()
    wait_until(lambda: is_free(tmp_path))


def test_a_result_of_another_run_or_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(Outcome(run="sha256:" + "b" * 64).canonical())
    with pytest.raises(IntegrityError, match="is the result of another run"):
        run(tmp_path, _must_not_run)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(IntegrityError, match="is no result that can be read; remove the folder"):
        run(tmp_path, _must_not_run)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_so_many_runs_at_a_time_are_worked_on_until_one_may_not_begin(jobs: int) -> None:
    """As many as jobs are under way at once: each waits until all the others of its turn have begun."""
    together, done = Barrier(jobs, timeout=30), list[int]()

    def work(run: int) -> None:
        together.wait()
        done.append(run)

    left = work_off(range(10), work, lambda run: run < 6, jobs=jobs)

    assert left == (6, 7, 8, 9)
    assert sorted(done) == list(range(6))


def test_after_an_error_no_run_is_begun() -> None:
    done = list[int]()

    def work(run: int) -> None:
        if run == 1:
            raise IntegrityError("spoilt")
        done.append(run)

    with pytest.raises(IntegrityError, match="spoilt"):
        work_off(range(5), work, lambda run: True, jobs=1)
    assert done == [0]
