"""A PostgreSQL server of a test run's own: on a Unix socket in a private folder, without any care for durability.

`python -m tests.postgres BINARIES` serves until its standard input ends, so the server goes with the process that
started it, also where that is killed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

ROOT = Path(__file__).parents[1]
DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian keeps the server's binaries, off the PATH."""
START_SECONDS = 60.0
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "log_min_messages": "panic",  # tests provoke errors
}
INITDB = "--auth=trust --username=tunegate --no-sync --no-instructions --encoding=UTF8 --locale=C.UTF-8"


def postgres_binaries() -> Path | None:
    """The folder of `postgres` and `initdb`: on the PATH, or the newest of Debian's."""
    found = shutil.which("postgres")
    if found is not None and shutil.which("initdb") is not None:
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


class PostgresServer:
    """Started when it is made; `close` ends it, and so does the end of this process."""

    def __init__(self, binaries: Path) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres", str(binaries)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C ends the tests first
        )
        assert self._keeper.stdout is not None
        self.folder = Path(self._keeper.stdout.readline().strip())
        if not self.folder.is_absolute():
            raise RuntimeError("PostgreSQL did not start; what it said stands above")
        self._n_made = 0
        self._connection = self.connect("postgres")

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user="tunegate", dbname=name, autocommit=True)

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The name of a new database, a copy of `template`, which is dropped in the end."""
        self._n_made += 1
        name = f"test_{self._n_made}"
        statement = "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY"
        self._connection.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield name
        finally:
            self._connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def disconnect(self, name: str) -> None:
        """End whatever still talks to a database."""
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        self._connection.execute(statement, [name])

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://tunegate@/{name}?host={self.folder}"

    def close(self) -> None:
        self._connection.close()
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper.stdout.close()


def serve(binaries: Path) -> None:
    """Print the folder once the server answers; end the server when standard input ends."""
    user = unprivileged()
    with tempfile.TemporaryDirectory(prefix="tunegate-postgres-") as name:
        folder = Path(name)
        os.chown(folder, user.pw_uid, user.pw_gid)
        if _run([binaries / "initdb", *INITDB.split(), "-D", folder / "data"], user).wait() != 0:
            return
        options = [f"--{key}={value}" for key, value in (SETTINGS | {"unix_socket_directories": name}).items()]
        server = _run([binaries / "postgres", "-D", folder / "data", *options], user)
        try:
            wait_until_ready(server, folder)
            print(folder, flush=True)
            sys.stdin.read()
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nobody wants the data
            server.wait()


def unprivileged() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _run(command: Sequence[str | Path], user: pwd.struct_passwd) -> subprocess.Popen[bytes]:
    is_other = user.pw_uid != os.geteuid()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        user=user.pw_uid if is_other else None,
        group=user.pw_gid if is_other else None,
        extra_groups=[] if is_other else None,
    )


def wait_until_ready(server: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(host=str(folder), user="tunegate", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
