"""What a killed worker leaves in its work folder is removed; what a living one works in is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from policies.worker.work_folder import HELD, attempt_folder, remove_abandoned
from tests.policies.worker.conftest import REPOSITORY

WORKER = """
import sys, time
from pathlib import Path
from policies.worker.work_folder import attempt_folder

with attempt_folder(Path(sys.argv[1])) as folder:
    (folder / "checkpoint").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""


def test_the_folder_of_an_attempt_goes_with_its_block(tmp_path: Path) -> None:
    with attempt_folder(tmp_path / "work") as folder:
        (folder / "big").write_text("x")
    assert list((tmp_path / "work").iterdir()) == []


def test_the_folder_of_a_killed_worker_is_removed_and_that_of_a_living_one_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with (
        attempt_folder(tmp_path) as mine,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as worker,
    ):
        assert worker.stdout is not None
        other = Path(worker.stdout.readline().strip())
        remove_abandoned(tmp_path)
        assert {*tmp_path.iterdir()} == {mine, other}
        worker.kill()
        worker.wait()
        remove_abandoned(tmp_path)
        assert [*tmp_path.iterdir()] == [mine]


def test_a_folder_that_is_just_being_made_is_not_touched(tmp_path: Path) -> None:
    """Neither without its mark nor with one that nobody holds yet; nor is any other folder."""
    for name in ("tunegate-attempt-new", "tunegate-attempt-newer", "others"):
        (tmp_path / name).mkdir()
    (tmp_path / "tunegate-attempt-newer" / HELD).touch()
    remove_abandoned(tmp_path)
    assert len([*tmp_path.iterdir()]) == 3
