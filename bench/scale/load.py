"""Many clients of a gateway at once: readers with a tenant's key, and workers that hold jobs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from policies.contract.tasks import HEARTBEAT_PATH, WORKER_KEY_HEADER

REQUESTS_OF_A_CLIENT = 5
WORKER_KEY = "k" * 40


class Crowd(NamedTuple):
    """What became of the requests of many readers."""

    outcomes: Counter[str]
    """By status, or by the error that there was instead of an answer."""
    a_second: float
    health_milliseconds: list[float]


async def beat(url: str, tokens: Sequence[str], *, credential: str, every_seconds: float) -> list[float]:
    """Each worker, one an attempt, beats at that interval for two rounds; gives the milliseconds of all answers."""
    place = urlsplit(url)
    milliseconds: list[float] = []
    headers = f"authorization: Bearer {credential}\r\n{WORKER_KEY_HEADER}: {WORKER_KEY}\r\n"
    kind = "content-type: application/json\r\ncontent-length: 2\r\n"

    async def work(number: int, token: str) -> None:
        path = HEARTBEAT_PATH.format(attempt_token=token)
        request = f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}{kind}\r\n{{}}".encode()
        await asyncio.sleep(every_seconds * number / len(tokens))
        for _ in range(2):
            started = time.perf_counter()
            reader, writer = await asyncio.open_connection(place.hostname, place.port)  # idle ones are closed meanwhile
            writer.write(request)
            answer = await _answer(reader)
            milliseconds.append(1000 * (time.perf_counter() - started))
            writer.close()
            assert answer == (200, b'{"order":"continue"}'), answer
            await asyncio.sleep(max(0.0, every_seconds - milliseconds[-1] / 1000))

    await asyncio.gather(*(work(number, token) for number, token in enumerate(tokens)))
    return milliseconds


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(line for line in head.splitlines() if line.startswith("content-length:"))
    return int(head.split()[1]), await reader.readexactly(int(length.partition(":")[2]))


async def _read(host: str, port: int, key: str, *, outcomes: Counter[str]) -> None:
    """One client; written by hand, because that of httpx takes longer for a request the more of them wait."""
    reader, writer = await asyncio.open_connection(host, port)
    request = f"GET /v1/fine_tuning/jobs?limit=5 HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n\r\n"
    try:
        for _ in range(REQUESTS_OF_A_CLIENT):
            writer.write(request.encode())
            status, _ = await _answer(reader)
            outcomes[str(status)] += 1
    except (OSError, asyncio.IncompleteReadError) as error:
        outcomes[type(error).__name__] += 1
    finally:
        writer.close()


async def read_at_once(url: str, key: str, *, clients: int) -> Crowd:
    """Many clients that read, each on a connection of its own, while health checks go on."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    outcomes: Counter[str] = Counter()
    waited: list[float] = []
    reads = [_read(place.hostname, place.port, key, outcomes=outcomes) for _ in range(clients)]
    started = time.perf_counter()
    reading = asyncio.gather(*reads)
    async with httpx.AsyncClient(base_url=url, timeout=120) as health:
        while not reading.done():
            asked = time.perf_counter()
            await health.get("/healthz")
            waited.append(1000 * (time.perf_counter() - asked))
            await asyncio.sleep(0.1)
    await reading
    seconds = time.perf_counter() - started
    return Crowd(outcomes, round(outcomes.total() / seconds, 1), waited)
