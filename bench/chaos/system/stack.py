"""The embedded stack as the study runs it: two workers of a kind, short leases, a store, a clock and a Redis that fail.

Whatever ends by itself is started again at once, as systemd or a container's restart policy would.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis import Redis

from bench.chaos.system.clock import JumpingClock
from bench.chaos.system.faulty_store import PROTOCOL, plug_in
from gateway.embedded.processes import Part
from gateway.embedded.stack import STOP_SECONDS, EmbeddedStack

LEASE_SECONDS = 3.0
SETTINGS = {
    "HEARTBEAT_SECONDS": "0.5",
    "TICK_SECONDS": "0.25",
    "REDISPATCH_SECONDS": "3",
    "MIN_FREE_BYTES": str(16 << 20),
    "REQUESTS_PER_MINUTE": "100000",
    "EVALUATIONS_PER_DAY": "100000",
}
"""Short, so that a study of minutes sees what hours of a service would."""
SECOND_WORKERS = ("trainer.2", "evaluator.2")
WORKERS = ("trainer", "evaluator", *SECOND_WORKERS)
ON_A_CLOCK = ("gateway", "gateway-worker", "validator")
"""The parts whose clock can be made to jump; nothing else reads the time of day to decide anything."""
MARK = "CHAOS_RUN"
SUPERVISION_SECONDS = 0.2


@dataclass(frozen=True)
class Places:
    """Where the study keeps what the stack is not told by the product's own settings."""

    folder: Path
    policies: Path
    store: Path
    database_url: str | None
    """None: the embedded SQLite."""

    @property
    def weather(self) -> Path:
        return self.folder / "plugin" / "weather.json"


class ChaosStack(EmbeddedStack):
    """A context manager, as the one that it is made of."""

    def __init__(self, places: Places) -> None:
        super().__init__(places.folder / "data", policy_dir=places.policies, threads=1, lease_seconds=LEASE_SECONDS)
        self.places = places
        self.mark = uuid.uuid4().hex
        self.groups: set[int] = set()
        self.restarts: dict[str, int] = {}
        """How often a part that ended by itself was started again."""
        self._admin_password = uuid.uuid4().hex
        self._plugged = plug_in(places.folder / "plugin")
        self.clock = JumpingClock(places.folder)
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor")

    def redis(self) -> Redis:
        """A connection that may do everything."""
        url = f"redis://chaos:{self._admin_password}@127.0.0.1:{self._redis_port}/0"
        return Redis.from_url(url, decode_responses=True)

    def environment_of(self, part: str) -> dict[str, str]:
        variables = super().environment_of(part.removesuffix(".2")) | self._plugged | {MARK: self.mark}
        variables |= {f"TUNEGATE_{name}": value for name, value in SETTINGS.items()}
        variables["TUNEGATE_STORE_URL"] = f"{PROTOCOL}://{self.places.store}"
        if self.places.database_url is not None and "TUNEGATE_DATABASE_URL" in variables:
            variables["TUNEGATE_DATABASE_URL"] = self.places.database_url
        if "TUNEGATE_CACHE_DIR" in variables:
            variables["TUNEGATE_CACHE_DIR"] = str(self.places.folder / "cache" / part.partition(".")[0])
        if part in ON_A_CLOCK:
            variables |= self.clock.variables
        return variables

    def start_part(self, name: str) -> Part:
        with self._lock:
            part = super().start_part(name)
            self.groups.add(part.pid)
            return part

    def kill(self, name: str) -> None:
        """SIGKILL to the part's whole group, and a new one in its place."""
        with self._lock:
            part = self.parts[name]
            os.killpg(part.pid, signal.SIGKILL)
            part.end(by=time.monotonic())
            self.start_part(name)

    def marked(self) -> list[psutil.Process]:
        """What runs of this stack: by the mark in its environment, or by its process group."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def strays(self) -> list[psutil.Process]:
        """Of these, what no part has as a child (any more)."""
        with self._lock:
            parts = [psutil.Process(part.pid) for part in self.parts.values() if part.is_running]
        known = {process.pid for part in parts for process in (part, *part.children(recursive=True))}
        return [process for process in self.marked() if process.pid not in known]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return os.getpgid(process.pid) in self.groups or process.environ().get(MARK) == self.mark
        except (ProcessLookupError, psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def _start(self) -> None:
        self.places.store.mkdir(parents=True, exist_ok=True)
        super()._start()
        for name in SECOND_WORKERS:
            self.start_part(name)
        self._supervisor.start()

    def _stop(self) -> None:
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        second = [self.parts[name] for name in SECOND_WORKERS if name in self.parts]
        for part in second:
            part.ask_to_end()
        by = time.monotonic() + STOP_SECONDS
        for part in second:
            part.end(by=by)
        super()._stop()

    def _supervise(self) -> None:
        while not self._stopping.wait(SUPERVISION_SECONDS):
            with self._lock:
                for name in [name for name, part in self.parts.items() if not part.is_running]:
                    self.restarts[name] = self.restarts.get(name, 0) + 1
                    self.parts[name].end(by=time.monotonic())
                    self.start_part(name)

    def _commands(self) -> dict[str, list[str]]:
        commands = super()._commands()
        for name, module in (("trainer", "trainer.tasks"), ("evaluator", "evaluator.tasks")):
            own = [f"bench.chaos.system.workers:{name}" if word == module else word for word in commands[name]]
            commands |= {name: own, f"{name}.2": own}
        return commands

    def _write_redis_configuration(self) -> None:
        super()._write_redis_configuration()
        with (self.folder / "redis.conf").open("a") as stream:
            stream.write(f"user chaos on >{self._admin_password} ~* &* +@all\n")
