"""The server that tests run on leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.postgres import ROOT, PostgresServer, postgres_binaries

USE = """
import sys
from tests.postgres import PostgresServer, postgres_binaries

server = PostgresServer(postgres_binaries())
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(postgres_binaries() is None and not os.environ.get("CI"), reason="no PostgreSQL here")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: int, folder: Path) -> None:
    while is_alive(pid) or folder.exists():
        time.sleep(0.02)


def test_the_server_ends_with_a_process_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", USE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        pid, folder = user.stdout.readline().split()
        assert is_alive(int(pid))
        user.send_signal(signal.SIGKILL)
        wait_until_gone(int(pid), Path(folder))


def test_only_who_started_the_server_can_reach_it() -> None:
    binaries = postgres_binaries()
    assert binaries is not None
    server = PostgresServer(binaries)
    try:
        assert server.folder.stat().st_mode & 0o077 == 0
        with server.database() as name, server.connect(name) as session:
            row = session.execute("SHOW listen_addresses").fetchone()
        assert row == ("",)
    finally:
        server.close()
    assert not server.folder.exists()
