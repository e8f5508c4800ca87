"""How a request's work meets threads and database connections.

A connection is taken by the thread that does the request's work, and given back by it: while a request waits for a
thread, it holds none. So as many connections as threads are enough, and no two requests wait for each other. Calls of
workers have threads of their own, which no number of tenants' requests can take.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import cache, partial, wraps
from typing import Any, TypeVar, get_args, get_type_hints
from weakref import WeakSet

from anyio import CapacityLimiter, to_thread
from fastapi import Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from gateway.db import begun
from gateway.kit.json_body import GatedRoute

REQUEST_THREADS = 40
"""Of tenants' requests: anyio's own number."""
WORKER_THREADS = 8
"""Of calls of workers."""

READING = {"GET", "HEAD"}
"""Methods whose endpoints write nothing."""

T = TypeVar("T")
Endpoint = Callable[..., Any]  # Any: whatever FastAPI takes
_WRAPPED: WeakSet[Endpoint] = WeakSet()


class Route(GatedRoute):
    """Runs the endpoint within its transaction, where it asks for one."""

    def __init__(self, path: str, endpoint: Endpoint, **arguments: Any) -> None:  # Any: FastAPI's own
        reads = set(arguments.get("methods") or ("GET",)) <= READING
        super().__init__(path, _wrapped(endpoint, partial(in_transaction, reads=reads)), **arguments)


class WorkerRoute(GatedRoute):
    """The same in the threads that are kept for workers."""

    def __init__(self, path: str, endpoint: Endpoint, **arguments: Any) -> None:  # Any: FastAPI's own
        super().__init__(path, _wrapped(endpoint, in_worker_thread), **arguments)


def in_transaction(endpoint: Callable[..., T], *, reads: bool = False) -> Callable[..., T | Response]:
    """The endpoint, with the session among its arguments open while it runs and committed when it returns."""

    @wraps(endpoint)
    def run(**arguments: Any) -> T | Response:  # Any: the endpoint's own
        session = next((value for value in arguments.values() if isinstance(value, Session)), None)
        if session is None:
            return _rendered(endpoint(**arguments))
        with session, begun(session, reads=reads):
            answer = endpoint(**arguments)
        return _rendered(answer)

    return run


def _rendered(answer: T) -> T | Response:
    """A model as the response that FastAPI would make of it, which takes it a further thread and time of the loop."""
    if not isinstance(answer, BaseModel):
        return answer
    return Response(answer.model_dump_json(by_alias=True), media_type="application/json")


def in_worker_thread(endpoint: Callable[..., T]) -> Callable[..., Coroutine[None, None, T | Response]]:
    """`in_transaction`, called in one of the threads for workers."""
    transaction = in_transaction(endpoint)

    @wraps(endpoint)
    async def run(**arguments: Any) -> T | Response:  # Any: the endpoint's own
        return await to_thread.run_sync(partial(transaction, **arguments), limiter=_worker_threads())

    return run


@cache
def _worker_threads() -> CapacityLimiter:
    return CapacityLimiter(WORKER_THREADS)


def _wrapped(endpoint: Endpoint, wrapper: Callable[[Endpoint], Endpoint]) -> Endpoint:
    """Once: a router that is included makes its routes anew. An asynchronous endpoint sees to its threads itself."""
    if endpoint in _WRAPPED:
        return endpoint
    if inspect.iscoroutinefunction(endpoint):
        if any(Session in get_args(hint) for hint in get_type_hints(endpoint, include_extras=True).values()):
            raise TypeError(f"{endpoint.__name__} is asynchronous, so nobody would begin or commit its session")
        return endpoint
    wrapped = wrapper(endpoint)
    _WRAPPED.add(wrapped)
    return wrapped
