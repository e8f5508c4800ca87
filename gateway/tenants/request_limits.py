"""How many requests a key may send: a token bucket a key, in each process of the gateway.

Several processes let through several times as much; the limit is against a client that runs wild, not a price.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from gateway.errors import TooManyRequests

MAX_KEYS = 100_000
"""Buckets that are remembered; a bucket that is forgotten was full long ago."""


class Allowance(NamedTuple):
    """What is left after a request."""

    limit: int
    remaining: int
    reset_seconds: float
    """Until the bucket is full again."""

    @property
    def headers(self) -> dict[str, str]:
        """As OpenAI sends them."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.reset_seconds:.3f}s",
        }


class RequestLimits:
    """`per_minute` requests a key, so many at once and then evenly. Called from many threads."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When each key's bucket is full again."""
        self._lock = threading.Lock()

    def take(self, key_id: str) -> Allowance:
        """Count a request.

        Raises:
            TooManyRequests: the key has sent as many as it may.
        """
        a_request = 60.0 / self._per_minute
        with self._lock:
            now = self._clock()
            full_at = self._full_at.get(key_id, now)
            if not now <= full_at <= now + 61.0:  # it is full, or the clock was set back: a minute fills any
                full_at = now
            full_at += a_request
            wait = full_at - now - 60.0
            if wait > 1e-9:
                message = f"This key may send {self._per_minute} requests a minute, the limit requests_per_minute."
                raise TooManyRequests(message, retry_after_seconds=math.ceil(wait))
            self._full_at[key_id] = full_at
            self._full_at.move_to_end(key_id)
            if len(self._full_at) > MAX_KEYS:
                self._full_at.popitem(last=False)
        return Allowance(self._per_minute, int((60.0 - (full_at - now)) / a_request + 1e-6), full_at - now)
