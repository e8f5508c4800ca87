"""Work for which tenants take turns: little runs at once, and who asks for too much is told when to come again.

What waits or runs holds neither a thread that other requests need nor a database connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from gateway.errors import TooManyRequests, Unavailable

RETRY_SECONDS = 5

T = TypeVar("T")


class Work(NamedTuple):
    """What tenants take turns for, in the words of its errors."""

    plural: str
    limit: str
    """What bounds how many wait."""
    code: str
    """Of the error where too many wait."""
    wait_seconds: float
    """Longest wait for a turn."""


class Turns:
    """The work of one kind in one gateway process; used from its event loop only.

    Args:
        at_once: How much runs, of one tenant one piece of it.
        waiting: How much more may wait, of one tenant a quarter of it and at least one.
    """

    def __init__(self, kind: Work, *, at_once: int, waiting: int) -> None:
        self._kind, self._at_once, self._waiting = kind, at_once, waiting
        self._waiting_per_tenant = max(1, waiting // 4)
        self._pool = ThreadPoolExecutor(at_once, "turn")
        self._running: Counter[str] = Counter()
        self._turns: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def run(self, tenant_id: str, work: Callable[[], T]) -> T:
        """What `work` returns or raises; it is called in a thread of its own, when it is the tenant's turn.

        The turn is the tenant's until the work ends, also where its caller is gone.

        Raises:
            TooManyRequests: the tenant has enough of it waiting.
            Unavailable: all tenants together have, or no turn came.
        """
        await self._turn(tenant_id)
        under_way = asyncio.get_running_loop().run_in_executor(self._pool, work)
        under_way.add_done_callback(lambda _: self._end(tenant_id))
        return await asyncio.shield(under_way)

    def _end(self, tenant_id: str) -> None:
        self._running -= Counter([tenant_id])
        self._give_turns()

    async def _turn(self, tenant_id: str) -> None:
        self._require_room(tenant_id)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.setdefault(tenant_id, deque()).append(turn)
        self._give_turns()
        try:
            async with asyncio.timeout(self._kind.wait_seconds):
                await asyncio.shield(turn)
        except BaseException as error:
            self._give_back(tenant_id, turn)
            if isinstance(error, TimeoutError):
                raise self._busy() from None
            raise

    def _require_room(self, tenant_id: str) -> None:
        if len(self._turns.get(tenant_id, ())) >= self._waiting_per_tenant:
            message = (
                f"Of your {self._kind.plural} {self._waiting_per_tenant} wait already, {self._kind.limit}; send the "
                "next one when one of them is answered."
            )
            raise TooManyRequests(message, retry_after_seconds=RETRY_SECONDS)
        if sum(map(len, self._turns.values())) >= self._waiting:
            raise self._busy()

    def _give_turns(self) -> None:
        """Start what may start: of the tenants without one under way, the one that waited longest for a turn first."""
        while self._running.total() < self._at_once:
            tenant_id = next((each for each in self._turns if not self._running[each]), None)
            if tenant_id is None:
                return
            turn = self._turns[tenant_id].popleft()
            self._turns.move_to_end(tenant_id)
            if not self._turns[tenant_id]:
                del self._turns[tenant_id]
            self._running[tenant_id] += 1
            turn.set_result(None)

    def _give_back(self, tenant_id: str, turn: asyncio.Future[None]) -> None:
        """The caller is gone: its place in the queue, or the turn that it was just given, is another's."""
        if turn.done():
            self._end(tenant_id)
            return
        self._turns[tenant_id].remove(turn)
        if not self._turns[tenant_id]:
            del self._turns[tenant_id]

    def _busy(self) -> Unavailable:
        message = f"Many {self._kind.plural} are waiting, {self._kind.limit}; send this one again in a few seconds."
        return Unavailable(message, code=self._kind.code, retry_after_seconds=RETRY_SECONDS)
