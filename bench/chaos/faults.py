"""What is done to the stack, and to which jobs; each fault is over when its function returns."""

from __future__ import annotations

import base64
import json
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from bench.chaos.scene import TARGET_SECONDS, Scene, Struck, busy_worker, send
from bench.chaos.system.faulty_store import BAD_READS, BAD_WRITES, NO_ROOM, SLOW, Weather
from bench.chaos.system.stack import WORKERS
from gateway.jobs.lifecycle import WAITING
from gateway.jobs.states import RUNNING
from policies.contract.jobs import Phase
from policies.contract.tasks import EVALUATE_QUEUE, GATEWAY_QUEUE, TRAIN_QUEUE, VALIDATE_QUEUE

TAKEN_OVER_SECONDS = 30.0
ON_ITS_WAY_SECONDS = 0.3
"""Of what a worker sent before it was stopped."""
OUTAGE_SECONDS = (1.0, 3.0)
JUMP_SECONDS = 3600
COPIES = 3
QUEUES = (VALIDATE_QUEUE, TRAIN_QUEUE, EVALUATE_QUEUE)
TRAINERS = [name for name in WORKERS if name.startswith("trainer")]
EVALUATORS = [name for name in WORKERS if name.startswith("evaluator")]


Fault = Callable[[Scene], Struck | None]
"""None: nothing was there to be hit."""


def kill_child(names: Sequence[str], scene: Scene) -> Struck | None:
    target = busy_worker(scene, names)
    if target is None:
        return None
    at = time.monotonic()
    n_hit = send(target.pool.children(), signal.SIGKILL)
    return Struck(at, frozenset({target.job.job_id}), ended_attempt=True) if n_hit else None


def kill_worker(names: Sequence[str], scene: Scene) -> Struck | None:
    target = busy_worker(scene, names)
    if target is None:
        return None
    at = time.monotonic()
    scene.stack.kill(target.part)
    return Struck(at, frozenset({target.job.job_id}), ended_attempt=True)


def stop_worker(scene: Scene) -> Struck | None:
    """SIGSTOP until another attempt has the job, then SIGCONT: what the worker says now must be refused."""
    target = busy_worker(scene, WORKERS)
    if target is None:
        return None
    part, job = scene.stack.parts[target.part], target.job
    processes = [psutil.Process(part.pid), *psutil.Process(part.pid).children(recursive=True)]
    log_size = part.log.stat().st_size
    at = time.monotonic()
    send(processes, signal.SIGSTOP)
    time.sleep(ON_ITS_WAY_SECONDS)
    if job not in scene.watch.now_standing():
        send(processes, signal.SIGCONT)
        return None

    def is_taken_over() -> bool:
        return job not in scene.watch.standing.values()

    was_taken_over = scene.watch.wait_for(is_taken_over, TAKEN_OVER_SECONDS)
    send(processes, signal.SIGCONT)
    refused = partial(_says_stopped, part.log, log_size, job.job_id)
    problem = None
    if not was_taken_over:
        problem = f"nobody took {job.job_id} over while its worker was stopped"
    elif not scene.watch.wait_for(refused, TAKEN_OVER_SECONDS):
        problem = f"the worker that was stopped over {job.job_id} was not refused"
    return Struck(at, frozenset({job.job_id}), problem, ended_attempt=True)


def _says_stopped(log: Path, start: int, job_id: str) -> bool:
    with log.open("rb") as stream:
        stream.seek(start)
        return any(b"stopped" in line and job_id.encode() in line for line in stream)


def kill_part(name: str, phases: Iterable[Phase], scene: Scene) -> Struck | None:
    jobs = scene.standing(phases)
    at = time.monotonic()
    scene.stack.kill(name)
    return Struck(at, jobs) if jobs else None


def empty_redis(scene: Scene) -> Struck | None:
    jobs = scene.standing(WAITING)
    at = time.monotonic()
    with scene.stack.redis() as redis:
        redis.flushall()
    return Struck(at, jobs) if jobs else None


def restart_postgres(how: signal.Signals, scene: Scene) -> Struck | None:
    assert scene.postgres is not None
    jobs = scene.standing(Phase)
    at = time.monotonic()
    scene.postgres.stop(how)
    scene.postgres.start()
    return Struck(at, jobs) if jobs else None


def bad_store(weather: Weather, scene: Scene) -> Struck | None:
    jobs = scene.standing(RUNNING | {Phase.VALIDATING})
    at = time.monotonic()
    with _weather(scene, weather):
        time.sleep(scene.draw.uniform(*OUTAGE_SECONDS))
    return Struck(at, jobs) if jobs else None


def fill_disk(scene: Scene) -> Struck | None:
    """The store's own small file system is filled to the last byte; where there is none, writes fail as if it were."""
    if not scene.limited_store:
        return bad_store(NO_ROOM, scene)
    jobs = scene.standing(RUNNING | {Phase.QUEUED})
    at, ballast = time.monotonic(), scene.stack.places.store / "ballast"
    try:
        with ballast.open("wb", buffering=0) as stream:
            while stream.write(bytes(1 << 16)):
                pass
    except OSError:
        time.sleep(scene.draw.uniform(*OUTAGE_SECONDS))
    finally:
        ballast.unlink()
    return Struck(at, jobs) if jobs else None


def jump_clock(seconds: int, scene: Scene) -> Struck | None:
    jobs = scene.standing(RUNNING)
    at = time.monotonic()
    scene.clock_offset += seconds
    scene.stack.clock.set(scene.clock_offset)
    return Struck(at, jobs) if jobs else None


def change_messages(copies: int, scene: Scene) -> Struck | None:
    """Every message that waits at the broker is there so many times more, or with −1 no more."""
    hit: set[str] = set()
    at = time.monotonic()

    def change() -> bool:
        nonlocal at
        at = time.monotonic()
        with scene.stack.redis() as redis:
            for queue in QUEUES if copies > 0 else (GATEWAY_QUEUE, *QUEUES):
                messages = [str(message) for message in redis.lrange(queue, 0, -1)]
                hit.update(*(_jobs_in(message) for message in messages))
                if copies < 0:
                    redis.delete(queue)
                elif messages:
                    redis.lpush(queue, *messages * copies)
        return bool(hit)

    scene.watch.wait_for(change, TARGET_SECONDS)
    jobs = frozenset(hit & scene.standing(Phase))
    return Struck(at, jobs) if jobs else None


def _jobs_in(message: str) -> set[str]:
    arguments, *_ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return {str(argument) for argument in arguments[:1]}


@contextmanager
def _weather(scene: Scene, weather: Weather) -> Iterator[None]:
    weather.put(scene.stack.places.weather)
    try:
        yield
    finally:
        Weather().put(scene.stack.places.weather)


FAULTS: dict[str, Fault] = {
    "training child killed": partial(kill_child, TRAINERS),
    "evaluation child killed": partial(kill_child, EVALUATORS),
    "trainer killed": partial(kill_worker, TRAINERS),
    "evaluator killed": partial(kill_worker, EVALUATORS),
    "worker stopped beyond its lease": stop_worker,
    "gateway killed": partial(kill_part, "gateway", RUNNING),
    "gateway worker killed": partial(kill_part, "gateway-worker", WAITING),
    "validator killed": partial(kill_part, "validator", [Phase.VALIDATING]),
    "Redis killed": partial(kill_part, "redis", WAITING),
    "Redis emptied": empty_redis,
    "PostgreSQL ended at once": partial(restart_postgres, signal.SIGQUIT),
    "PostgreSQL restarted": partial(restart_postgres, signal.SIGINT),
    "reads of the store fail": partial(bad_store, BAD_READS),
    "writes of the store fail": partial(bad_store, BAD_WRITES),
    "reads of the store are slow": partial(bad_store, SLOW),
    "disk full": fill_disk,
    "clock jumps forward": partial(jump_clock, JUMP_SECONDS),
    "clock jumps back": partial(jump_clock, -JUMP_SECONDS),
    "messages doubled": partial(change_messages, COPIES),
    "messages lost": partial(change_messages, -1),
}
ON_POSTGRES = {"PostgreSQL ended at once", "PostgreSQL restarted"}
ON_A_CLOCK = {"clock jumps forward", "clock jumps back"}


def possible(scene: Scene) -> list[str]:
    """The faults that this database and this machine can have."""
    left_out = (set() if scene.postgres else ON_POSTGRES) | (set() if scene.stack.clock.can_jump else ON_A_CLOCK)
    return [name for name in FAULTS if name not in left_out]


def drawn(names: Sequence[str], count: int, draw: random.Random) -> list[str]:
    """So many faults in a random order, each kind as often as the others, give or take one."""
    rounds = [draw.sample(names, len(names)) for _ in range(-(-count // len(names)))]
    chosen = [name for turn in rounds for name in turn][:count]
    draw.shuffle(chosen)
    return chosen
