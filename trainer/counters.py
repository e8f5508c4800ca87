"""What a defense counts on the way, for its evidence; it survives a resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Self

from policies.errors import IntegrityError


@dataclass
class Counters:
    """A defense with counters declares them in a subclass, each with a default."""

    def state(self) -> dict[str, float]:
        """The counters as JSON has them."""
        return asdict(self)

    def restored(self, state: Mapping[str, float]) -> Self:
        """Counters of the same kind with the values that `state` gave.

        Raises:
            IntegrityError: a counter is missing, or one is not of this kind.
        """
        if set(state) != set(asdict(self)):
            raise IntegrityError(f"counters {sorted(state)} were saved, not {sorted(asdict(self))}; train again")
        return replace(self, **state)

    @property
    def are_finite(self) -> bool:
        return all(map(math.isfinite, asdict(self).values()))
