"""A worker's cache folder: nobody else's, and never shared between trainers and evaluators."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import get_args

import pytest

from policies.contract.worker_api import WorkKind
from policies.errors import ConfigurationError
from policies.worker.own_cache import take_cache
from tests.policies.worker.conftest import REPOSITORY

KINDS: tuple[WorkKind, ...] = get_args(WorkKind)
CONFIRMER = ("evaluator.tasks:confirmer", "confirm", "a second evaluator")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_folder_is_closed_to_others_and_may_be_used_again(tmp_path: Path, kind: WorkKind) -> None:
    folder = tmp_path / "a" / "cache"
    take_cache(folder, kind)
    take_cache(folder, kind)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    take_cache(tmp_path, "evaluate")
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("first", "second"), list(permutations(KINDS, 2)))
def test_workers_of_two_kinds_do_not_share_a_folder(tmp_path: Path, first: WorkKind, second: WorkKind) -> None:
    take_cache(tmp_path, first)
    with pytest.raises(ConfigurationError, match="TUNEGATE_CACHE_DIR"):
        take_cache(tmp_path, second)
    take_cache(tmp_path, first)


def test_a_mark_that_says_nothing_known_is_no_permission(tmp_path: Path) -> None:
    take_cache(tmp_path, "evaluate")
    (tmp_path / ".used-by").write_text("")
    with pytest.raises(ConfigurationError):
        take_cache(tmp_path, "evaluate")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused_and_the_childs_own_is_not(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        take_cache(tmp_path, "evaluate")
    take_cache(tmp_path, "evaluate", user="nobody")
    take_cache(tmp_path / "new", "train", user="nobody")
    assert (tmp_path / "new").stat().st_uid == 65534


@pytest.mark.parametrize(
    ("app", "queue", "what"), [("evaluator.tasks", "eval", "an evaluator"), CONFIRMER], ids=["evaluator", "confirmer"]
)
def test_a_worker_does_not_start_on_another_kinds_cache(tmp_path: Path, app: str, queue: str, what: str) -> None:
    take_cache(tmp_path / "cache", "train")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
        "TUNEGATE_WORKER_TOKEN": "w" * 40,
        "TUNEGATE_BROKER_URL": "redis://127.0.0.1:1/0",
        "TUNEGATE_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queue, "--concurrency", "1"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert f"is that of a trainer: give {what} one of its own (TUNEGATE_CACHE_DIR)" in ended.stderr
