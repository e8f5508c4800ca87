"""A PostgreSQL of the study itself, which stops and starts: `python -m bench.chaos.system.postgres BINARIES DATA`.

The command serves in place of itself, as the user that PostgreSQL wants, so that the server is a part like others.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import psycopg

from gateway.embedded.processes import Part, Reaper
from policies.errors import ConfigurationError
from tests.postgres import INITDB, SETTINGS, postgres_binaries, unprivileged

START_SECONDS = 60.0
KEPT = SETTINGS | {"synchronous_commit": "on", "log_min_messages": "warning", "autovacuum": "on"}
"""What was committed must survive the server's end; the machine's end is none of the faults, so no file is synced."""


class Postgres:
    """A context manager: entered, the server answers; left, nothing of it is there any more."""

    def __init__(self, log: Path) -> None:
        found = postgres_binaries()
        if found is None:
            raise ConfigurationError("no PostgreSQL on PATH; use --database sqlite")
        self._binaries, self._log = found, log
        self.folder = Path(mkdtemp(prefix="tunegate-chaos-postgres-"))
        self._reaper = Reaper()
        self._server: Part | None = None

    def __enter__(self) -> Self:
        try:
            user = unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            _run_as_owner([str(self._binaries / "initdb"), *INITDB.split(), "-D", str(self.folder / "data")])
            self.start()
            with self._connect("postgres") as connection:
                connection.execute("CREATE DATABASE chaos")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self.stop(signal.SIGQUIT)
        self._reaper.close()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://tunegate@/chaos?host={self.folder}"

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        command = [sys.executable, "-m", "bench.chaos.system.postgres", str(self._binaries), str(self.folder)]
        self._server = Part("postgres", command, environment={}, log=self._log)
        self._reaper.watch(self._server)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connect("postgres").close()
                return
            except psycopg.OperationalError:
                self._server.require_running()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self, how: signal.Signals) -> None:
        """SIGINT ends its connections in good order; SIGQUIT ends it at once, and it recovers when it starts."""
        assert self._server is not None
        os.kill(self._server.pid, how)
        self._server.end(by=time.monotonic() + START_SECONDS)
        self._reaper.forget(self._server)
        self._server = None

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user="tunegate", dbname=database, autocommit=True)


def _become_owner() -> None:
    user = unprivileged()
    if user.pw_uid != os.geteuid():
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


def _run_as_owner(command: list[str]) -> None:
    subprocess.run(command, preexec_fn=_become_owner, cwd="/", check=True, stdout=subprocess.DEVNULL)


def serve(binaries: Path, folder: Path) -> None:
    options = [f"--{key}={value}" for key, value in (KEPT | {"unix_socket_directories": str(folder)}).items()]
    _become_owner()
    os.chdir("/")
    os.execv(binaries / "postgres", ["postgres", "-D", str(folder / "data"), *options])  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
