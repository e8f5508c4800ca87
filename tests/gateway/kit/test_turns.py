"""Work waits for its tenant's turn, is refused beyond a limit, and costs nobody else a thread or a connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from gateway.errors import TooManyRequests, Unavailable
from gateway.kit.turns import Turns, Work

KIND = Work("digs", "the limit digs_waiting", "digs_waiting", wait_seconds=60.0)


class Bench:
    """Work that ends when a test says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self.may_end = threading.Semaphore(0)

    def work(self, name: str) -> Callable[[], str]:
        def run() -> str:
            with self._lock:
                self.begun.append(name)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
            self.may_end.acquire()
            with self._lock:
                self.at_once -= 1
            return name

        return run


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.may_end.release(100)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_tenants_take_turns(bench: Bench) -> None:
    runs = Turns(KIND, at_once=1, waiting=16)
    names = ["a1", "a2", "a3", "b1", "b2", "c1"]
    waiting = []
    for name in names:
        waiting.append(asyncio.create_task(runs.run(name[0], bench.work(name))))
        await asyncio.sleep(0)
    bench.may_end.release(len(names))
    assert await asyncio.gather(*waiting) == names
    assert bench.begun == ["a1", "a2", "b1", "c1", "a3", "b2"]
    assert bench.most_at_once == 1


@pytest.mark.asyncio
async def test_one_tenant_runs_one_and_leaves_room_for_another(bench: Bench) -> None:
    runs = Turns(KIND, at_once=2, waiting=16)
    tasks = [asyncio.create_task(runs.run("a", bench.work(f"a{n}"))) for n in range(3)]
    await until(lambda: bench.begun == ["a0"])
    tasks.append(asyncio.create_task(runs.run("b", bench.work("b0"))))
    await until(lambda: bench.begun == ["a0", "b0"])
    bench.may_end.release(4)
    await asyncio.gather(*tasks)
    assert bench.begun[2:] == ["a1", "a2"]


@pytest.mark.asyncio
async def test_tenant_that_waits_often_enough_is_told_when_to_come_again(bench: Bench) -> None:
    """16 may wait, a quarter of them one tenant's: one runs, four wait, the sixth is refused."""
    runs = Turns(KIND, at_once=2, waiting=16)
    tasks = [asyncio.create_task(runs.run("a", bench.work(f"a{n}"))) for n in range(5)]
    await until(lambda: bench.begun == ["a0"])
    with pytest.raises(TooManyRequests, match="Of your digs 4 wait already, the limit digs_waiting;") as error:
        await runs.run("a", bench.work("a5"))
    assert error.value.headers == {"retry-after": "5", "retry-after-ms": "5000"}
    other = asyncio.create_task(runs.run("b", bench.work("b0")))
    bench.may_end.release(6)
    assert await other == "b0"
    await asyncio.gather(*tasks)


@pytest.mark.asyncio
async def test_all_tenants_together_wait_up_to_a_limit(bench: Bench) -> None:
    runs = Turns(KIND, at_once=1, waiting=4)
    tasks = [asyncio.create_task(runs.run(name, bench.work(name))) for name in "abcde"]
    await until(lambda: bench.begun == ["a"])
    with pytest.raises(Unavailable) as error:
        await runs.run("f", bench.work("f"))
    assert (error.value.status, error.value.code, error.value.retry_after_seconds) == (503, "digs_waiting", 5)
    bench.may_end.release(5)
    await asyncio.gather(*tasks)


@pytest.mark.asyncio
async def test_who_waits_too_long_is_told_to_come_again(bench: Bench) -> None:
    runs = Turns(KIND._replace(wait_seconds=0.05), at_once=1, waiting=4)
    first = asyncio.create_task(runs.run("a", bench.work("a")))
    await until(lambda: bench.begun == ["a"])
    with pytest.raises(Unavailable):
        await runs.run("b", bench.work("b"))
    bench.may_end.release()
    await first
    bench.may_end.release()
    assert await runs.run("b", bench.work("again")) == "again"
    assert bench.begun == ["a", "again"]


@pytest.mark.asyncio
async def test_place_of_a_caller_that_is_gone_is_anothers(bench: Bench) -> None:
    runs = Turns(KIND, at_once=1, waiting=4)
    first = asyncio.create_task(runs.run("a", bench.work("a")))
    await until(lambda: bench.begun == ["a"])
    gone = asyncio.create_task(runs.run("b", bench.work("b")))
    last = asyncio.create_task(runs.run("c", bench.work("c")))
    await asyncio.sleep(0)
    gone.cancel()
    bench.may_end.release(2)
    await asyncio.gather(first, last)
    assert bench.begun == ["a", "c"]


@pytest.mark.asyncio
async def test_work_whose_caller_is_gone_keeps_its_turn_until_it_ends(bench: Bench) -> None:
    """Otherwise a tenant would have as many running as it calls and hangs up."""
    runs = Turns(KIND, at_once=2, waiting=16)
    gone = asyncio.create_task(runs.run("a", bench.work("a1")))
    await until(lambda: bench.begun == ["a1"])
    gone.cancel()
    tasks = [asyncio.create_task(runs.run(name[0], bench.work(name))) for name in ("a2", "b1")]
    await until(lambda: len(bench.begun) == 2)
    assert bench.begun == ["a1", "b1"]
    bench.may_end.release(3)
    await asyncio.gather(*tasks)
    assert bench.begun[2:] == ["a2"]


@pytest.mark.asyncio
async def test_failed_work_gives_its_place_back(bench: Bench) -> None:
    runs = Turns(KIND, at_once=1, waiting=4)

    def fail() -> str:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await runs.run("a", fail)
    bench.may_end.release()
    assert await runs.run("a", bench.work("a")) == "a"
