"""How many uploads a tenant may have under way: what they have written counts for its share only once they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import TooManyRequests

RETRY_SECONDS = 5


class UploadsUnderWay:
    """Those of one gateway process; used from its event loop only."""

    def __init__(self, per_tenant: int) -> None:
        self._per_tenant = per_tenant
        self._running: Counter[str] = Counter()

    @contextmanager
    def one_more(self, tenant_id: str) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            TooManyRequests: the tenant has none left.
        """
        if self._running[tenant_id] >= self._per_tenant:
            message = (
                f"{self._per_tenant} of your uploads are under way, the limit uploads_at_once; wait for one to end."
            )
            raise TooManyRequests(message, retry_after_seconds=RETRY_SECONDS)
        self._running[tenant_id] += 1
        try:
            yield
        finally:
            self._running -= Counter([tenant_id])  # which forgets whom it has none of
